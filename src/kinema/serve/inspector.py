"""The server's side of the inspector: ask it, wait so long and no longer, start it again after a stop.

Planning needs torch, and looking into an upload runs decoders on bytes of strangers: neither belongs into
the process that answers everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from kinema.core import errors
from kinema.serve.environment import child_environment
from kinema.serve.errors import ApiError
from kinema.serve.logs import log

MOST_WAITING = 64
START_SECONDS = 60.0
_LINE = 64 << 20


class Inspector:
    """One process that answers one question at a time.

    Args:
        name: for logs and messages.
        hidden: texts that no answer may hold, such as paths, and what stands for them.
        memory: bytes that it may have; 0 for no limit of its own.
        threads: that it computes with; 0 for as many as a render.
    """

    def __init__(self, name: str, hidden: Mapping[str, str], *, memory: int = 0, threads: int = 1) -> None:
        self._name, self._memory = name, memory
        self._environment = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        self._hidden = {
            json.dumps(text)[1:-1].encode(): json.dumps(shown)[1:-1].encode()
            for text, shown in hidden.items()
        }
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False  # it has answered once, so that what it imports is there

    async def ask(self, what: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """The answer.

        Args:
            what: a function of `inspector_process`.
            seconds: that it may take.
            **arguments: of it, JSON values.

        Raises:
            KinemaError: as the function raised it.
            ApiError: 422 when it took too long, 503 when too many wait.
        """
        if self._waiting >= MOST_WAITING:
            message = f"{MOST_WAITING} requests wait to be looked at; try again."
            raise ApiError(503, message, code="busy", headers={"retry-after": "2"})
        self._waiting += 1
        try:
            async with self._turn:
                return self._read(await self._within(what, seconds, arguments))
        finally:
            self._waiting -= 1

    async def _within(self, what: str, seconds: float, arguments: dict[str, Any]) -> dict[str, Any]:
        process = await self._running()
        finished = False
        try:
            async with asyncio.timeout(seconds if self._ready else seconds + START_SECONDS):
                line = await _exchange(process, {"what": what, **arguments})
            finished = self._ready = True
            for text, shown in self._hidden.items():
                line = line.replace(text, shown)
            answer: dict[str, Any] = json.loads(line)
            return answer
        except TimeoutError:
            message = f"looking at this took more than {seconds:g} s; make it smaller or shorter."
            raise ApiError(422, message, code="too_slow") from None
        except (EOFError, ConnectionError, ValueError):
            message = "looking at this needed more memory than there is; make it smaller or shorter."
            raise ApiError(422, message, code="too_large") from None
        finally:
            if not finished:  # also when the client has gone: half an answer must not reach the next one
                await self.stop()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kinema.serve.inspector_process", str(self._memory)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE,
                env=child_environment(self._environment),
            )
        return self._process

    def _read(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" not in answer:
            found: dict[str, Any] = answer["is"]
            return found
        kind, message = answer["error"]
        if kind == "bug":
            log(logging.ERROR, "bug", where=self._name, traceback=message)
            raise ApiError(500, "this is a bug in kinema; the server's log tells more.", code="internal")
        raise getattr(errors, kind)(message)

    async def stop(self) -> None:
        """End the process."""
        process, self._process, self._ready = self._process, None, False
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _exchange(process: asyncio.subprocess.Process, question: dict[str, Any]) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(question).encode() + b"\n")
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line:
        raise EOFError
    return line
