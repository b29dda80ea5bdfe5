"""A job's heartbeat: a thread that renews the lease, tells the progress, and brings back what is asked."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from kinema.core.errors import KinemaError
from kinema.serve.desk import Desk
from kinema.serve.jobs import Job, JobProgress, Signal
from kinema.serve.logs import LOG, log


class Beats:
    """Beats while it is entered: soon when there is news, and else at a third of the lease.

    Args:
        desk: that is told.
        job: of the lease.
        token: of the lease.
        lease: seconds that it lasts without a beat.
        news: the least seconds between two beats.
        stall: seconds without any news after which the work hangs; then there are no more beats.
        hung: called then, once; this thread cannot stop what hangs, so it had better end the process.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        desk: Desk,
        job: Job,
        token: str,
        *,
        lease: float,
        news: float,
        stall: float = math.inf,
        hung: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self._job, self._token = desk, job, token
        self._third, self._news, self._clock = lease / 3, min(news, lease / 3), clock
        self._stall, self._hung = stall, hung
        self._guard = threading.Lock()
        self._moved = clock()
        self._progress, self._told = job.progress, job.progress
        self._preview: bytes | None = None
        self._count = job.progress.preview
        self._signal: Signal = "go"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"beats of {job.id}", daemon=True)

    def __enter__(self) -> Beats:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def signal(self) -> Signal:
        """What the last beat brought back."""
        return self._signal

    def tell(self, progress: JobProgress, preview: bytes | None = None) -> None:
        """How far it is; the next beat says so."""
        with self._guard:
            if preview is not None:
                self._preview = preview
                self._count += 1
            self._progress = replace(progress, preview=self._count)
            self._moved = self._clock()

    def _run(self) -> None:
        last = self._clock()
        while not self._ended.wait(self._news):
            with self._guard:
                progress, preview, still = self._progress, self._preview, self._clock() - self._moved
            if still > self._stall:
                log(logging.ERROR, "hangs", job=self._job.id, seconds=round(still))
                self._hung()
                return
            if progress == self._told and self._clock() - last < self._third:
                continue
            last = self._clock()
            try:
                self._signal = self._desk.beat(self._job.id, self._token, progress, preview)
            except KinemaError as error:  # a full disk, a network: the lease outlasts a few of these
                log(logging.WARNING, "no beat", job=self._job.id, message=str(error))
                continue
            except Exception:  # a bug of ours must not end the lease of a render that goes well
                LOG.exception("no beat", extra={"facts": {"job": self._job.id}})
                continue
            self._told = progress
            with self._guard:
                if self._preview is preview:
                    self._preview = None
            if self._signal == "lost":
                return
