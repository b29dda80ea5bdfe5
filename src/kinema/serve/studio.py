"""What a running server holds: queue, files, watcher, inspectors and counts; begun and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import anyio

from kinema.core.errors import KinemaError
from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import read_card
from kinema.serve.asked import FIELDS, Asked, read_asked
from kinema.serve.bodies import Upload
from kinema.serve.cost import check_cost
from kinema.serve.errors import ApiError, not_found, of_kinema
from kinema.serve.events import Watcher
from kinema.serve.folders import Folders
from kinema.serve.inspector import Inspector
from kinema.serve.jobs import Job
from kinema.serve.logs import log
from kinema.serve.media import MediaStore, localized, references
from kinema.serve.metrics import Metrics
from kinema.serve.queue import Queue
from kinema.serve.results import sweep
from kinema.serve.retries import Refusals
from kinema.serve.settings import ServeSettings
from kinema.serve.worker_process import WorkerProcess, WorkerSettings

P = ParamSpec("P")
T = TypeVar("T")
SWEEP = 5.0
COLLECT, UNUSED_FOR = 86_400.0, 7 * 86_400.0
FILE_MEMORY = 8 << 30
QUEUE_THREADS = 8
PLANS_KEPT = 512


class Studio:
    """One server's state.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.folders = Folders(settings.data.absolute())
        self.media = MediaStore(self.folders.media)
        self.metrics = Metrics()
        self.refusals = Refusals()
        self.draining = False
        self.began = time.time()
        self.cards: dict[str, ModelCard] = {}
        self.loras = {path.stem: str(path) for path in settings.loras}
        hidden = {f"{self.folders.media}/": "media:", **{path: name for name, path in self.loras.items()}}
        self._plans = Inspector("plans", hidden, threads=0)
        self._files = Inspector("files", hidden, memory=FILE_MEMORY)
        self._planned: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._taking = threading.Lock()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: list[asyncio.Task[None]] = []
        self._workers: list[WorkerProcess] = []
        self._restarts = 0

    def open(self) -> None:
        """Open the queue and read what the models are; done once.

        Raises:
            KinemaError: the folder, the queue or a model cannot be used.
        """
        if self.cards:
            return
        self.folders.make()
        self.queue = Queue(self.folders.queue)
        sweep(self.queue, self.folders)
        self.cards = {model: read_card(model) for model in self.settings.models}

    async def start(self) -> None:
        """Open what is not open yet, begin to watch, start the workers."""
        self._threads = anyio.CapacityLimiter(QUEUE_THREADS)
        await self.thread(self.open)
        self.watcher = Watcher(self.queue, self.settings.limits.listeners, self._count, self._forget)
        await self.watcher.start()
        self._tasks = [asyncio.create_task(self._sweep()), asyncio.create_task(self._collect())]
        if self.settings.warm:
            self._tasks.append(asyncio.create_task(self._warm()))
        told = WorkerSettings(data=self.folders.root, loras=self.loras, models=self.settings.models)
        self._workers = [
            WorkerProcess(self.queue, told, f"worker {number + 1}") for number in range(self.settings.workers)
        ]
        for worker in self._workers:
            await self.thread(worker.start)

    async def stop(self) -> None:
        """End everything that `start` began."""
        await self._let_workers_go()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.watcher.stop()
        await self._plans.stop()
        await self._files.stop()
        self.queue.close()

    async def thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what waits for a disk, outside of the event loop."""
        return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._threads)

    async def drain(self) -> None:
        """Before the end: nothing more is taken in, workers let go, streams end; looks are still answered."""
        self.draining = True
        await self._let_workers_go()
        self.watcher.let_go()

    async def _let_workers_go(self) -> None:
        workers, self._workers = self._workers, []
        self._restarts += sum(worker.restarts for worker in workers)
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(anyio.to_thread.run_sync(worker.stop))

    @property
    def restarts(self) -> int:
        """How often a local worker died and was started again."""
        return self._restarts + sum(worker.restarts for worker in self._workers)

    # Requests

    async def read(self, values: Any) -> Asked:
        """A client's request, checked; `ApiError` 422. Others are answered while a long one is read."""
        return await anyio.to_thread.run_sync(read_asked, values, self.settings, self.has_media)

    def has_media(self, sha256: str) -> bool:
        """Whether that file was uploaded."""
        return self.media.has(sha256)

    async def plan(self, asked: Asked) -> dict[str, Any]:
        """What a request would do and cost, and that it can be done.

        Raises:
            ApiError: 422 when it cannot, or costs more than one job may.
        """
        request = await anyio.to_thread.run_sync(self._local, asked)
        seconds = self.settings.limits.plan_seconds
        try:
            found = await self._plans.ask("plan", seconds, request=request)
        except KinemaError as error:
            raise of_kinema(error, fields=FIELDS) from None
        check_cost(found, self.settings.limits)
        return {**found, "most_seconds": self.settings.limits.seconds or None}

    def _local(self, asked: Asked) -> dict[str, Any]:
        story, _ = localized(asked.values(), self.media.path, self.loras)
        return story.to_mapping()

    async def plan_once(self, asked: Asked) -> dict[str, Any]:
        """`is_image` and `seconds` of the file; what was planned lately, seeds aside, is not planned anew."""
        values = asked.values()
        for shot in (values, *values.get("shots", ())):
            shot.pop("seed", None)
        key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        if key not in self._planned:
            plan = await self.plan(asked)
            seconds = float(plan["frames"] / Fraction(plan["fps"]))
            self._planned[key] = {"is_image": plan["is_image"], "seconds": seconds}
            if len(self._planned) > PLANS_KEPT:
                self._planned.popitem(last=False)
        return self._planned[key]

    async def check_again(self, job: Job) -> None:
        """What was asked for once, by the models and limits of today; `ApiError` 422."""
        await self.plan_once(await self.read(job.request))

    async def keep(self, upload: Upload) -> dict[str, Any]:
        """Take an upload into the media, if it is a picture, a clip or a sound that can be decoded.

        Raises:
            ApiError: 422 when it is not, 413 when there is no room for it.
        """
        try:
            facts = await self.inspect("measure", upload.path)
            await self.thread(self._take, upload)
        finally:
            upload.path.unlink(missing_ok=True)
        return {"ref": f"media:{upload.sha256}", "bytes": upload.bytes, **facts}

    def _take(self, upload: Upload) -> None:
        most = self.settings.limits.media_bytes
        with self._taking:  # two that come together must not both find the last room
            if not self.media.has(upload.sha256) and self.media.held() + upload.bytes > most:
                raise ApiError(413, "there is no room for more uploads on this server.", code="media_full")
            self.media.take(upload.path, upload.sha256)

    async def held(self, sha256: str) -> dict[str, Any]:
        """What `keep` said of an upload; 404 when it is not here."""
        if not self.has_media(sha256):
            raise not_found("upload", f"media:{sha256}")
        return {"ref": f"media:{sha256}", **await self.inspect("measure", self.folders.upload(sha256))}

    async def adopt(self, path: Path) -> str:
        """A file of ours as an upload, so that another request can name it: its `media:` name."""
        return f"media:{await self.thread(self._adopt, path)}"

    def _adopt(self, path: Path) -> str:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        copy = self.folders.incoming / f"adopted-{os.urandom(12).hex()}"
        try:
            os.link(path, copy)
        except OSError:  # a disk without links
            shutil.copyfile(path, copy)
        try:
            self._take(Upload(copy, sha256, copy.stat().st_size))
        finally:
            copy.unlink(missing_ok=True)
        return sha256

    async def delete(self, name: str, patience: float = 0.0) -> bool:
        """Remove a job; whether it is gone, or its worker has yet to let go.

        Args:
            name: of the job.
            patience: seconds to wait for the worker.
        """
        gone = await self.thread(self.queue.delete, name)
        until = time.monotonic() + patience
        while not gone and time.monotonic() < until:
            await asyncio.sleep(0.1)
            gone = not await self.thread(self.queue.knows, name)
        return gone

    @contextlib.asynccontextmanager
    async def one_at_a_time(self, key: str) -> AsyncIterator[None]:
        """Whoever comes with the same key waits until the one before has been answered."""
        lock = self._turns.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    async def inspect(self, what: str, path: Path, **arguments: Any) -> dict[str, Any]:
        """Look into a file in the process that is for it; `ApiError` 422 when it is not what it should be."""
        seconds = self.settings.limits.file_seconds
        try:
            return await self._files.ask(what, seconds, path=str(path), **arguments)
        except KinemaError as error:
            raise of_kinema(error) from None

    def check_open(self) -> None:
        """`ApiError` 503 while the server ends."""
        if self.draining:
            message = "the server is about to end and takes no more jobs; try again soon."
            raise ApiError(503, message, code="draining", headers={"retry-after": "10"})

    # Behind the scenes

    def _count(self, job: Job) -> None:
        if job.ended and job.finished is not None and job.finished >= self.began:
            self.metrics.ended(job)
        else:
            self.metrics.progressed(job)

    async def _forget(self, name: str) -> None:
        await self.thread(self.folders.forget, name)

    async def _warm(self) -> None:
        """Have the planner import and measure what the first plan will need; nobody waits for this."""
        try:
            seconds, models = self.settings.limits.plan_seconds, list(self.settings.models)
            await self._plans.ask("warm", seconds, models=models)
        except (KinemaError, ApiError, OSError) as error:  # the first request will tell
            log(logging.WARNING, "planner", message=str(error))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            try:
                if lost := await self.thread(self.queue.sweep):
                    log(logging.WARNING, "leases expired", jobs=lost)
            except Exception as error:  # the next one may find the disk well again
                log(logging.ERROR, "sweep", message=str(error))

    async def _collect(self) -> None:
        """Once a day, uploads that nothing names any more."""
        while True:
            with contextlib.suppress(KinemaError, OSError):
                removed = await self.thread(lambda: self.media.collect(self._named_media(), UNUSED_FOR))
                log(logging.INFO, "uploads removed", files=removed)
            await asyncio.sleep(COLLECT)

    def _named_media(self) -> Iterator[str]:
        """The uploads that any job names."""
        since, more = 0, True
        while more:
            found = self.queue.changes(since)
            since, more = found.revision, found.more
            for job in found.jobs:
                yield from references(job.request)
