"""Changes of the queue as server-sent events: one watcher asks the queue, every listener gets the same bytes.

    event: job       data: the job          a job is new or has changed
    event: preview   data: {id, step, steps, url}
    event: gone      data: {id}             a job was deleted
    event: ready     data: {revision}       what came before is told

The id of an event is the queue's revision; a client that comes back with Last-Event-ID gets what it missed. A
listener that reads slower than things change is let go, and comes back the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kinema.core.errors import KinemaError
from kinema.serve.errors import ApiError, as_json
from kinema.serve.jobs import Job
from kinema.serve.logs import LOG, log
from kinema.serve.queue import Changes, Queue

HEARTBEAT = 15.0
WATCH = 0.1
MOST_BEHIND = 1000
MOST_BYTES_BEHIND = 4_000_000
_PULSE = b": still here\n\n"


@dataclass(eq=False)
class Listener:
    """One open stream."""

    waiting: deque[bytes] = field(default_factory=deque)
    behind: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    slow: bool = False

    def give(self, message: bytes) -> None:
        """Lay a message down for it; too many mean that it is slow."""
        self.waiting.append(message)
        self.behind += len(message)
        many = len(self.waiting) > 1 and self.behind > MOST_BYTES_BEHIND  # one alone, it had no time to read
        self.slow = self.slow or many or len(self.waiting) > MOST_BEHIND
        self.woken.set()

    def take(self) -> bytes:
        """All that waits."""
        found = b"".join(self.waiting)
        self.waiting.clear()
        self.behind = 0
        self.woken.clear()
        return found


class Watcher:
    """Asks for changes and tells the listeners.

    Args:
        queue: whose changes are told.
        most: listeners at a time.
        on_job: called with each job that changed, for counts.
        on_gone: called with each id that was deleted.
    """

    def __init__(
        self,
        queue: Queue,
        most: int,
        on_job: Callable[[Job], None],
        on_gone: Callable[[str], Awaitable[None]],
    ) -> None:
        self._queue, self._most, self._on_job, self._on_gone = queue, most, on_job, on_gone
        self._listeners: set[Listener] = set()
        self._previews: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self.revision = 0

    @property
    def listeners(self) -> int:
        """Open streams."""
        return len(self._listeners)

    async def start(self) -> None:
        """Begin to watch; what the queue holds already is no change."""
        self.revision = await anyio.to_thread.run_sync(self._queue.revision)
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop watching and end every stream."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.let_go()

    def let_go(self) -> None:
        """End every stream; clients come back by themselves."""
        for listener in self._listeners:
            listener.slow = True
            listener.woken.set()

    def listen(self) -> Listener:
        """A new stream; `ApiError` 429 when there are too many."""
        if len(self._listeners) >= self._most:
            message = f"{self._most} event streams are open, the most here; close one."
            raise ApiError(429, message, code="too_many_listeners", headers={"retry-after": "10"})
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """The stream has ended."""
        self._listeners.discard(listener)

    async def missed(self, since: int) -> AsyncIterator[bytes]:
        """What a client has not seen, in parts, and then the word that this is all."""
        while True:
            found = await anyio.to_thread.run_sync(self._queue.changes, since)
            yield b"".join(_messages(found))
            since = found.revision
            if not found.more:
                break
        yield ready(since)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH)
            try:
                await self._look()
            except KinemaError as error:  # the disk; the next look may find it well again
                log(logging.ERROR, "queue", message=str(error))
                await asyncio.sleep(1.0)
            except Exception:  # a bug; listeners still want to be told
                LOG.exception("bug", extra={"facts": {"where": "watcher"}})
                await asyncio.sleep(1.0)

    async def _look(self) -> None:
        found = await anyio.to_thread.run_sync(self._queue.changes, self.revision)
        self.revision = found.revision
        for job in found.jobs:
            self._on_job(job)
        if told := b"".join(_messages(found)):
            self._tell(told)
        for job in found.jobs:
            self._tell_preview(job)
        for _, name in found.gone:
            self._previews.pop(name, None)
            try:
                await self._on_gone(name)
            except Exception:  # a file that cannot be removed; those of others can
                LOG.exception("not removed", extra={"facts": {"job": name}})

    def _tell_preview(self, job: Job) -> None:
        if job.ended:
            self._previews.pop(job.id, None)
        elif job.progress.preview > self._previews.get(job.id, 0):
            self._previews[job.id] = job.progress.preview
            self._tell(_preview(job))

    def _tell(self, message: bytes) -> None:
        for listener in self._listeners:
            listener.give(message)


def ready(revision: int) -> bytes:
    """The event after those that were missed."""
    return _event("ready", {"revision": revision}, revision)


def _messages(found: Changes) -> Iterator[bytes]:
    """The events in the order of their revisions."""
    told = [(job.revision, _event("job", job.to_json(), job.revision)) for job in found.jobs]
    told += [(revision, _event("gone", {"id": name}, revision)) for revision, name in found.gone]
    return (message for _, message in sorted(told))


def _preview(job: Job) -> bytes:
    p = job.progress
    url = f"/api/jobs/{job.id}/preview?v={p.preview}"
    return _event("preview", {"id": job.id, "step": p.step, "steps": p.steps, "url": url}, job.revision)


def _event(kind: str, data: Any, revision: int) -> bytes:
    """One event; JSON has no line break outside of its texts, and escapes them inside."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (kind.encode(), revision, as_json(data))


class Stream(Response):
    """The answer of one stream, as ASGI.

    Args:
        watcher: whose events it tells.
        since: the revision that the client has seen; None for a client that has seen nothing and asks for
            the list itself.
    """

    def __init__(self, watcher: Watcher, since: int | None) -> None:
        super().__init__(media_type="text/event-stream")
        self._watcher, self._since = watcher, since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves, is slow, or the server ends."""
        listener = self._watcher.listen()
        try:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await _first(self._sender(listener, send), _left(receive), _let_go(listener))
            if not listener.behind:  # a slow reader would not take the end either
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._watcher.leave(listener)

    async def _sender(self, listener: Listener, send: Send) -> None:
        first = b"retry: 2000\n\n" + (ready(self._watcher.revision) if self._since is None else b"")
        await send({"type": "http.response.body", "body": first, "more_body": True})
        if self._since is not None:
            async for body in self._watcher.missed(self._since):
                await send({"type": "http.response.body", "body": body, "more_body": True})
        while True:
            try:
                await asyncio.wait_for(listener.woken.wait(), HEARTBEAT)
                body = listener.take()
            except TimeoutError:
                body = _PULSE
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            elif listener.slow:
                return


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _let_go(listener: Listener) -> None:
    """Returns when a listener is slow; its sender may be waiting for the network then."""
    while not listener.slow:
        await asyncio.sleep(0.5)


async def _first(*waits: Any) -> None:
    """Run until the first of them ends; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
