"""An encoder that is watched: frames in, a whole file out, or a reason why not.

ffmpeg may die, hang, be killed, find the disk full, or end well with fewer frames than it was given. All but
the full disk are an `EncoderError`: the frames are good, and another attempt may succeed.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.watchdog import Watchdog

PATIENCE = 120.0  # seconds without any sign of work after which ffmpeg counts as hanging
_FULL = ("No space left", "File too large", "Disk quota exceeded")


class EncoderError(MediaError):
    """The encoder failed, not the frames."""


class FrameSink:
    """An ffmpeg that encodes the frames it is given; a context manager.

    Leaving the block finishes the file; leaving it by any exception kills the program. A program that takes
    no frame for `PATIENCE` seconds, or whose file stands still for as long at the end, is killed.

    Args:
        arguments: without the program and its general options.
        target: what the user calls the file, for messages.
        result: the file that ffmpeg writes, whose growth shows that it works.
    """

    def __init__(self, arguments: Sequence[str], target: Path, result: Path) -> None:
        self._target, self._result = target, result
        with contextlib.ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            line = ffmpeg.command(arguments)
            self._process = ffmpeg.start(line, self._log, stdin=subprocess.PIPE)
            stack.callback(ffmpeg.stop, self._process)
            self._dog = stack.enter_context(Watchdog(self._process, PATIENCE))
            self._open = stack.pop_all()

    def write(self, frame_HWC: np.ndarray) -> None:
        """Feed one frame; `EncoderError` with ffmpeg's own reason when it has died, or hangs."""
        assert self._process.stdin is not None
        self._dog.wait()
        try:
            self._process.stdin.write(np.ascontiguousarray(frame_HWC).data)
            self._process.stdin.flush()
        except OSError:
            self._process.wait()
            raise self._failure() from None
        self._dog.rest()

    def __enter__(self) -> FrameSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._open:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        assert self._process.stdin is not None
        self._dog.wait()
        with contextlib.suppress(OSError):  # a dead reader; the exit status tells
            self._process.stdin.close()
        seen = self._growth()
        while (code := self._ended()) is None:
            if (now := self._growth()) != seen:
                seen = now
                self._dog.wait()
        if code != 0:
            raise self._failure()

    def _ended(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=1.0)
        return None

    def _growth(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            stat = self._result.stat()
            return stat.st_size, stat.st_mtime_ns
        return None

    def _failure(self) -> MediaError:
        if self._dog.barked:
            what = f"cannot write {str(self._target)!r}"
            return EncoderError(f"{what}: ffmpeg did nothing for {PATIENCE:g} s and was stopped.")
        return failure(self._target, self._process.poll(), ffmpeg.said(self._log))


def failure(target: Path, code: int | None, log: str, *, again: bool = True) -> MediaError:
    """Why ffmpeg has not written a file: an `EncoderError` where another attempt may succeed.

    Args:
        target: what the user calls the file.
        code: ffmpeg's exit status.
        log: what it said.
        again: whether an error of its own may be gone the next time.
    """
    what = f"cannot write {str(target)!r}"
    if any(sign in log for sign in _FULL):
        return MediaError(f"{what}: {ffmpeg.reason(log)}; make room, or choose another folder.")
    if not log.strip() and code is not None and code < 0:
        return EncoderError(f"{what}: ffmpeg was ended by {signal.Signals(-code).name}.")
    return (EncoderError if again else MediaError)(f"{what}: {ffmpeg.reason(log)}")
