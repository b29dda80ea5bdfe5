"""A worker: takes a job, renders it durably, hands it in, takes the next; the model stays loaded in between.

    states/<id>/request.json     what is rendered, with the seeds drawn for it
               /state/           the render's state, as of `kinema render`
               /clip.mp4         the finished file, until the queue knows of it

Whatever ends a worker, the next one goes on from there, and makes the same bytes.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import BusyError, KinemaError
from kinema.core.failpoints import reach
from kinema.io.atomic import write_whole
from kinema.io.journal import FrameJournal
from kinema.io.locks import LOCK_END, Lock
from kinema.pipelines.durable.opening import StateOptions, seeded
from kinema.pipelines.durable.pace import Every
from kinema.pipelines.job import Job as Planned
from kinema.pipelines.job import make_job
from kinema.pipelines.loading import AnyModel, decoder_of, load
from kinema.pipelines.run import write
from kinema.serve.beats import Beats
from kinema.serve.desk import Desk, NotHere
from kinema.serve.failures import described, is_worth_another_try
from kinema.serve.jobs import Job
from kinema.serve.logs import LOG, hidden, log, texts_of
from kinema.serve.media import localized, renamed
from kinema.serve.meter import Meter
from kinema.serve.needs import check_loras, check_models
from kinema.serve.partial import save_part
from kinema.serve.previews import Previewer
from kinema.serve.queue_leases import Lost
from kinema.serve.results import Made
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

MOST_PATIENCE = 30.0
STALL = 3 * 3600.0
HUNG = 75  # exit code of a process whose work hangs
PATIENCE = 300.0
"""Seconds that a step of another worker may take which has lost its lease."""


class Halt(BaseException):
    """The render has to stop at this step: `cancel_keep`, `cancel_drop`, `lost` or `drain`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def leave() -> None:
    """End a process whose work hangs; whoever watches it starts another."""
    os._exit(HUNG)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """How a worker works.

    Attributes:
        name: for the queue, and for whoever restarts it.
        lease: seconds that a job is its own without a beat.
        news: the least seconds between two beats.
        idle: seconds between two looks at an empty queue.
        every: how often a render keeps its state.
        previews: whether clean estimates are shown.
        stall: seconds without a step, a frame or a part of a download after which the work hangs.
        hung: called then; the next worker goes on from the state, and a job that hangs three times fails.
    """

    name: str
    lease: float = 30.0
    news: float = 0.5
    idle: float = 0.2
    every: Every = field(default_factory=Every)
    previews: bool = True
    stall: float = STALL
    hung: Callable[[], None] = leave


class Worker:
    """Works until it is stopped.

    Args:
        desk: where the jobs are.
        options: of the worker.
    """

    def __init__(self, desk: Desk, options: WorkerOptions) -> None:
        self._desk, self._options = desk, options
        self._stopping = False  # no Event: a signal's handler must not wait for the lock of one
        self._model: tuple[tuple[str, str, str], AnyModel] | None = None
        self._shares: dict[str, float] = {}

    def stop(self) -> None:
        """End after this step, and give the job back with its state; may be called by a signal's handler."""
        self._stopping = True

    def run(self) -> None:
        """Work until `stop`."""
        patience = self._options.idle
        while not self._stopping:
            try:
                found = self._desk.lease(self._options.name, self._options.lease)
                patience = self._options.idle
            except KinemaError as error:
                log(logging.WARNING, "no job can be taken", message=str(error))
                found, patience = None, min(2 * patience, MOST_PATIENCE)
            if found is None:
                self._rest(patience)
            else:
                self.work(*found)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))

    def work(self, job: Job, token: str) -> None:
        """One job, to whichever end."""
        reach("worker.leased")
        with hidden(texts_of(job.request)):
            log(logging.INFO, "taken", job=job.id, attempt=job.attempt)
            self._with_beats(job, token)

    def _with_beats(self, job: Job, token: str) -> None:
        options = self._options
        lease, news, stall = options.lease, options.news, options.stall
        beating = Beats(self._desk, job, token, lease=lease, news=news, stall=stall, hung=options.hung)
        with beating as beats:
            try:
                self._work(job, token, beats)
            except Halt:  # it has not even begun
                self._desk.release(job.id, token)
            except Lost:
                log(logging.WARNING, "lease ended", job=job.id)
            except NotHere as error:
                self._refused(job, token, error)
            except Exception as error:
                self._failed(job, token, error)

    def _work(self, job: Job, token: str, beats: Beats) -> None:
        desk, folder = self._desk, self._desk.folder(job.id)
        with self._claimed(folder, beats):
            made, why = self._outcome(job, folder, beats)
            if why == "lost":
                return
            if made is not None:
                desk.finish(job.id, token, made)
            else:
                desk.release(job.id, token)
            if made is not None or why != "drain":
                desk.forget(job.id)
        log(logging.INFO, "made" if made is not None else why, job=job.id)

    def _outcome(self, job: Job, folder: Path, beats: Beats) -> tuple[Made | None, str]:
        """What was made, or why there is nothing: a `Halt`'s reason."""
        cancelled = job.state == "cancelling"
        try:
            order = Order.read(job, self._desk, folder)
        except KinemaError:
            if not cancelled:
                raise
            return None, "cancel_drop"
        why = "cancel_keep"
        try:
            if not cancelled:
                return self._rendered(order, beats), ""
        except Halt as halt:
            why = halt.why
        try:
            return (self._kept(order, beats) if why == "cancel_keep" else None), why
        except Halt as halt:
            return None, halt.why

    @contextmanager
    def _claimed(self, folder: Path, beats: Beats) -> Iterator[None]:
        """The job's folder for this process; one whose lease has ended lets go of it at its next step."""
        lock, until = (
            Lock(folder.with_name(f".{folder.name}{LOCK_END}"), folder.name),
            time.monotonic() + PATIENCE,
        )
        while True:
            try:
                lock.acquire()
                break
            except BusyError:
                if time.monotonic() > until or beats.signal == "lost":
                    raise
                if self._stopping:
                    raise Halt("drain") from None
                self._rest(0.2)
        try:
            yield
        finally:
            lock.release()

    # Rendering

    def _rendered(self, order: Order, beats: Beats) -> Made:
        """The finished file; `Halt` when it has to stop, whose state is then kept."""
        if not order.clip.exists():
            meter = Meter(order.plan.plans, self._shares)
            listener = self._listener(order, meter, beats)
            listener(Progress("load", 0, 1))
            state = StateOptions(folder=order.folder / "state", every=self._options.every)
            write(
                order.plan,
                order.clip,
                request=order.request,
                state=state,
                model=self._loaded(order.plan, listener),
                on_progress=listener,
                overwrite=True,
                on_note=lambda note: log(logging.INFO, "note", job=order.id, message=note),
            )
        reach("worker.rendered")
        return Made.of(order.clip, fps=order.plan.fps, seed=order.plan.seed)

    def _listener(self, order: Order, meter: Meter, beats: Beats) -> OnProgress:
        show: Previewer | None = None

        def listen(event: Progress) -> None:
            nonlocal show
            if event.note is not None:
                log(logging.INFO, "note", job=order.id, message=event.note)
            picture = None
            if self._options.previews and event.phase in ("denoise", "draw"):  # the model is there by then
                show = show or Previewer(self._decoder(order.plan), float(Fraction(order.plan.made_fps)))
                picture = show.drawn(order.frames) if event.phase == "draw" else show(event)
            beats.tell(meter(event), picture)
            if beats.signal != "go":
                raise Halt(beats.signal)
            if self._stopping:
                raise Halt("drain")

        return listen

    def _kept(self, order: Order, beats: Beats) -> Made | None:
        """What a cancelled job has, as a file; None for nothing."""
        part = order.clip.with_stem("part")

        def listen(event: Progress) -> None:
            if beats.signal in ("cancel_drop", "lost"):
                raise Halt(beats.signal)

        model = None if self._model is None else self._model[1]
        count = save_part(order.plan, order.folder / "state", part, model=model, on_progress=listen)
        if count is None:
            return None
        return Made.of(part, fps=order.plan.made_fps, seed=order.plan.seed, partial=True)

    # Models

    def _loaded(self, plan: Planned, on_progress: OnProgress) -> AnyModel | None:
        """The model of a job, kept from the one before if it is the same; None where a job needs several."""
        wanted = {(p.model, p.device, p.dtype) for p in plan.plans}
        key = min(wanted)
        if self._model is None or self._model[0] != key or len(wanted) > 1:
            self._unload()
            if len(wanted) > 1:
                return None
            model, device, dtype = key
            self._model = (key, load(model, device=device, dtype=dtype, card=plan.cards[model]))
            on_progress(Progress("load", 1, 1))
        return self._model[1]

    def _decoder(self, plan: Planned) -> Any:
        """The decoder for previews: of the model that is kept."""
        model = None if self._model is None else self._model[1]
        return None if model is None else decoder_of(model)

    def _unload(self) -> None:
        self._model = None
        gc.collect()

    # Failing

    def _failed(self, job: Job, token: str, error: Exception) -> None:
        told = described(error)
        again = is_worth_another_try(told)
        facts = {"job": job.id, **told.to_json()}
        if again:
            LOG.exception("failed", extra={"facts": facts})
            self._unload()
        else:
            log(logging.WARNING, "failed", **facts)
        try:
            self._desk.fail(job.id, token, told, again=again)
        except KinemaError as lost:
            log(logging.WARNING, "not told", job=job.id, message=str(lost))

    def _refused(self, job: Job, token: str, error: NotHere) -> None:
        told = described(error)
        log(logging.WARNING, "given back", job=job.id, **told.to_json())
        try:
            self._desk.refuse(job.id, token, told)
        except KinemaError as lost:
            log(logging.WARNING, "not told", job=job.id, message=str(lost))


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A job as it is rendered here.

    Attributes:
        id: of the job.
        folder: all that is kept of it.
        request: with this machine's paths.
        plan: of the request, with the seeds that were drawn the first time; its record names no path.
    """

    id: str
    folder: Path
    request: Shot | Storyboard
    plan: Planned

    @staticmethod
    def read(job: Job, desk: Desk, folder: Path) -> Order:
        """Plan a job; what is kept of another request under its name is removed.

        Raises:
            NotHere: this machine lacks a model or a LoRA that it names.
            KinemaError: it cannot be rendered.
        """
        check_loras(job.request, desk.loras)
        request, names = localized(job.request, desk.media, desk.loras)
        digest = hashlib.sha256(json.dumps(job.request, sort_keys=True).encode()).hexdigest()
        seeds = _seeds(folder, digest)
        if seeds is None:
            desk.forget(job.id)
        try:
            plan = make_job(request if seeds is None else seeded(request, seeds))
        except KinemaError:
            check_models(request)
            raise
        if seeds is None:
            folder.mkdir(exist_ok=True)
            kept = {"request": digest, "seeds": [p.sampling.seed for p in plan.plans]}
            write_whole(folder / "request.json", json.dumps(kept).encode(), point="job")
        return Order(job.id, folder, request, replace(plan, shot=renamed(plan.shot, names)))

    @property
    def clip(self) -> Path:
        """Where the file is made."""
        return self.folder / ("clip.png" if self.plan.is_image else "clip.mp4")

    def frames(self) -> Iterator[np.ndarray]:
        """Those that are kept of the shot at work."""
        journals = list((self.folder / "state").glob("*/frames.bin"))
        if journals:
            yield from FrameJournal(max(journals, key=lambda path: path.stat().st_mtime_ns))


def _seeds(folder: Path, digest: str) -> tuple[int, ...] | None:
    """Those drawn for this request before; None when nothing of it is kept."""
    try:
        kept = json.loads((folder / "request.json").read_text())
        return tuple(int(seed) for seed in kept["seeds"]) if kept["request"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
