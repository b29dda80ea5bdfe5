"""The server's worker processes: started, watched, started again when they die, drained at the end.

A job that kills its process (out of memory, a driver's fault) takes no answer of the server along: the
process is another one, its lease ends the moment it is seen dead, and the next process goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kinema.core.errors import KinemaError
from kinema.serve.environment import child_environment
from kinema.serve.logs import log
from kinema.serve.queue import Queue

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
HEALTHY = 20.0
"""Seconds after which a process counts as one that starts well, and its end as an accident."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """What a worker process is told.

    Attributes:
        data: the server's folder.
        loras: paths by name.
        models: that jobs may name; none for all.
        lease: seconds that a job is a worker's own without a beat.
        checkpoint_every: how often a render keeps its state, as in `kinema render`; None for the default.
        environment: variables set for it, such as `CUDA_VISIBLE_DEVICES`.
    """

    data: Path
    loras: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    lease: float = 30.0
    checkpoint_every: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class WorkerProcess:
    """One worker that is always there, watched by a thread.

    Args:
        queue: of the server's folder.
        settings: of the worker.
        name: of the worker, another one for each.

    Attributes:
        restarts: how often it was started again.
    """

    def __init__(self, queue: Queue, settings: WorkerSettings, name: str = "worker 1") -> None:
        self._queue, self._settings, self.name = queue, settings, name
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
        self.restarts = 0

    def start(self) -> None:
        """Start it; what an earlier server's worker of this name held is given to it at once."""
        self._forfeit(blame=False)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def stop(self, grace: float = 20.0) -> None:
        """Let the step end and the state be kept, for at most `grace` seconds; then it is killed."""
        self._stopping.set()
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                process = self._process = self._started()
            except OSError as error:  # no memory or no handles just now
                log(logging.ERROR, "worker cannot be started", worker=self.name, message=error.strerror)
                self._stopping.wait(pause := min(2 * pause, LONGEST_PAUSE))
                continue
            if self._stopping.is_set():  # `stop` has not seen this one
                process.terminate()
            code = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            self._forfeit()
            if self._stopping.is_set():
                return
            self.restarts += 1
            pause = FIRST_PAUSE if time.monotonic() - began > HEALTHY else min(2 * pause, LONGEST_PAUSE)
            facts = {"worker": self.name, "how": _told(code), "again_in_seconds": pause}
            log(logging.ERROR, "worker ended", **facts)
            self._stopping.wait(pause)

    def _started(self) -> subprocess.Popen[bytes]:
        settings = self._settings
        process = subprocess.Popen(
            [sys.executable, "-m", "kinema.serve.worker_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=child_environment(settings.environment),
        )
        told = {
            "data": str(settings.data),
            "name": self.name,
            "loras": dict(settings.loras),
            "models": list(settings.models),
            "lease": settings.lease,
            "checkpoint_every": settings.checkpoint_every,
        }
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
        return process

    def _forfeit(self, *, blame: bool = True) -> None:
        try:
            self._queue.forfeit(self.name, blame=blame)
        except KinemaError as error:  # the lease ends by itself
            log(logging.ERROR, "worker", worker=self.name, message=str(error))


def _told(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
