"""Bodies on their way in: how large one may be, how slowly it may come, and how much all may be together.

A body that the server has to wait for longer than `body_seconds + bytes so far / slowest` is given up (408);
time in which the server itself is busy does not count. What is received is counted until its request has been
answered: files by the disk they take, JSON by the memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

from starlette.types import Receive

from kinema.serve.errors import ApiError
from kinema.serve.settings import Limits

Where = Literal["disk", "memory"]
_CLOSE = {"connection": "close"}  # the rest of the body is not read


class Intake:
    """All bodies that are being received.

    Args:
        limits: of the server.
        clock: seconds that only grow.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self.held: dict[Where, int] = {"disk": 0, "memory": 0}

    def check_room(self, where: Where, count: int) -> None:
        """`ApiError` 429 when so many bytes more are too many."""
        most = self.limits.incoming_bytes if where == "disk" else self.limits.held_bytes
        if self.held[where] + count > most:
            message = f"more than {most} bytes are being received, the most at once; try again."
            raise ApiError(429, message, code="busy", headers={**_CLOSE, "retry-after": "10"})


class Body:
    """One request's way in.

    Args:
        receive: brings it.
        intake: it is one of.
        most: bytes.
        where: what takes them.
    """

    def __init__(self, receive: Receive, intake: Intake, most: int, where: Where) -> None:
        self._receive, self._intake, self._most, self._where = receive, intake, most, where
        self._seen, self._waited, self._complete = 0, 0.0, False

    def check_announced(self, length: str | None) -> None:
        """Refuse a body by what its header says of it."""
        if length is None:
            return
        if not length.isdecimal() or len(length) > 18:
            raise ApiError(400, "content-length is no number.", code="invalid_header")
        if int(length) > self._most:
            raise self._too_large()
        self._intake.check_room(self._where, int(length))

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next part; once it is complete, what follows may take any time."""
        if self._complete:
            return await self._receive()
        message = await self._next()
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        if count := len(message.get("body", b"")):
            self._take(count)
        return message

    def close(self) -> None:
        """The request has been answered: what it held is free."""
        self._intake.held[self._where] -= self._seen
        self._seen, self._complete = 0, True

    async def _next(self) -> MutableMapping[str, Any]:
        limits, began = self._intake.limits, self._intake.clock()
        left = limits.body_seconds + self._seen / limits.slowest - self._waited
        if left <= 0:
            raise self._too_slow()
        try:
            async with asyncio.timeout(left):
                return await self._receive()
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._waited += self._intake.clock() - began

    def _take(self, count: int) -> None:
        if self._seen + count > self._most:
            raise self._too_large()
        self._intake.check_room(self._where, count)
        self._seen += count
        self._intake.held[self._where] += count

    def _too_slow(self) -> ApiError:
        message = f"the body stopped after {self._seen} bytes, or comes too slowly; send it again."
        return ApiError(408, message, code="too_slow", headers=_CLOSE)

    def _too_large(self) -> ApiError:
        message = f"the body has more than {self._most} bytes, the most here."
        return ApiError(413, message, code="too_large", headers=_CLOSE)
