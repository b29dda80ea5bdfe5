"""Connections: how many there are, and how long one may take to say what it wants.

    connected --headers, within `header_seconds`--> answering --answered--> waiting (uvicorn's keep-alive)
        |                                               |                       |
        `---- one that waits makes room for a new one --+-- one that does not --'
                                                           take what is sent

uvicorn limits neither the time for headers nor a connection that says nothing, and bytes that drip in keep
one open. How slowly a body may come is `intake`'s.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kinema.serve.errors import error_body
from kinema.serve.logs import log
from kinema.serve.settings import Limits

_REASONS = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class Crowd:
    """All connections of one server.

    Args:
        limits: how many there may be, and how long each may take.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: dict[Connection, None] = {}
        """Those without a request, the longest one first."""
        self.stalled: dict[Connection, None] = {}
        """Those whose client does not take what is sent, the longest one first."""
        self._full = False

    def admit(self, count: int) -> bool:
        """Whether there is room for the last of `count`; one that waits, or stalls, may be closed for it."""
        if count <= self.limits.connections:
            self._full = False
            return True
        if not self._full:  # once, however many come
            log(logging.WARNING, "connections", most=self.limits.connections)
        self._full = True
        longest = next(iter(self.waiting), None) or next(iter(self.stalled), None)
        if longest is None:
            return False
        self.forget(longest)
        longest.transport.abort()
        return True

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self.waiting.pop(connection, None)
        self.stalled.pop(connection, None)


class Connection(H11Protocol):
    """One connection, with a time for each request's headers.

    Args:
        crowd: it is one of.
        **given: what uvicorn gives.
    """

    def __init__(self, crowd: Crowd, **given: Any) -> None:
        super().__init__(**given)
        self._crowd = crowd
        self._deadline: asyncio.TimerHandle | None = None
        self._said_something = False

    @property
    def answering(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, or say that there is no room."""
        super().connection_made(transport)
        if self._crowd.admit(len(self.connections)):
            self._wait()
            self._set_deadline()
            return
        most = self._crowd.limits.connections
        self._refuse(503, f"{most} connections are open, the most here; try again.", "busy", "retry-after: 5")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._crowd.forget(self)
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes, of which many may be sent for a long time."""
        if self.transport.is_closing():
            return
        if not self.answering:
            self._said_something = True
            if self._deadline is None:
                self._set_deadline()
        super().data_received(data)

    def handle_events(self) -> None:
        """Look at what has come; when it is a request, its time for headers ends."""
        super().handle_events()
        if self.answering:
            self._clear_deadline()
            self._crowd.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        """Wait for the next request, or begin with one that is there already."""
        self._said_something = False
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not take what is sent."""
        self._crowd.stalled[self] = None
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._crowd.stalled.pop(self, None)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What has come is no HTTP."""
        self._refuse(400, "this is no HTTP request.", "invalid_request")

    def _wait(self) -> None:
        if not self.transport.is_closing():
            self._crowd.waiting[self] = None

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(self._crowd.limits.header_seconds, self._too_late)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._said_something and self.conn.our_state is h11.IDLE:
            seconds = self._crowd.limits.header_seconds
            self._refuse(408, f"the request's headers did not come within {seconds:g} s.", "timeout")
        else:  # it said nothing at all, or goes on with a body that was answered already
            self.transport.close()

    def _refuse(self, status: int, message: str, code: str, *headers: str) -> None:
        """Answer without having read a request, and close."""
        body = error_body(status, message, code=code)
        head = [
            f"HTTP/1.1 {status} {_REASONS[status]}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "x-content-type-options: nosniff",
            "connection: close",
            *headers,
        ]
        if not self.transport.is_closing():
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
            self.transport.close()


def connections(limits: Limits) -> type[asyncio.Protocol]:
    """What uvicorn makes of each connection, all of them of one crowd."""
    return cast("type[asyncio.Protocol]", partial(Connection, Crowd(limits)))
