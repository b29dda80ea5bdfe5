"""The ffmpeg program of imageio-ffmpeg as a child process: raw frames in, raw frames or text out.

File names always reach it as `file:` and an absolute path, so that `-y.mp4`, `concat:a|b` or `http://x`
is a name and nothing else. Standard error goes to a file, where it can neither block the pipe nor get
lost.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from kinema.core.errors import MediaError

# SVT-AV1 greets on standard error whatever ffmpeg's log level is.
_ENVIRONMENT = {"SVT_LOG": "1"}
# What ffmpeg also says after any failure.
_CONSEQUENCES = (
    "Conversion failed",
    "Nothing was written",
    "Error while opening encoder",
    "Could not open encoder before EOF",
    "Task finished with error code",
    "Terminating thread",
)


@functools.cache
def executable() -> str:
    """Path of the ffmpeg program; `MediaError` when the platform has none."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise MediaError(
            "no ffmpeg program was found; reinstall imageio-ffmpeg or set IMAGEIO_FFMPEG_EXE to one."
        ) from None


def url(path: Path) -> str:
    """The name under which ffmpeg opens exactly this file."""
    return f"file:{path.absolute()}"


def command(arguments: Sequence[str], *, loglevel: str = "error") -> list[str]:
    """A full command line: quiet, never asking, overwriting only what lies in our own working folder."""
    return [executable(), "-hide_banner", "-nostdin", "-loglevel", loglevel, "-y", *arguments]


def run(
    arguments: Sequence[str], *, loglevel: str = "error", limit: int = 1 << 24, seconds: float = 600.0
) -> Result:
    """Run to the end; standard output is cut at `limit` bytes (the program is stopped there)."""
    with tempfile.TemporaryFile() as log:
        process = _start(command(arguments, loglevel=loglevel), log, stdout=subprocess.PIPE)
        assert process.stdout is not None
        late = threading.Event()
        alarm = threading.Timer(seconds, _expire, (process, late))
        alarm.start()
        try:
            output = process.stdout.read(limit)
            if len(output) == limit:
                process.kill()
            process.wait()
        finally:
            alarm.cancel()
            _stop(process)
        if late.is_set():
            raise MediaError(f"ffmpeg gave no answer within {seconds:.0f} s; the file may be damaged.")
        return Result(process.returncode, output, _text(log))


class Result:
    """How a finished ffmpeg ended.

    Attributes:
        code: exit status.
        output: standard output.
        log: standard error.
    """

    def __init__(self, code: int, output: bytes, log: str) -> None:
        self.code = code
        self.output = output
        self.log = log

    def check(self, what: str) -> Result:
        """Itself, or a one-line `MediaError` that says what failed and why."""
        if self.code != 0:
            raise MediaError(f"{what}: {reason(self.log)}")
        return self


class FrameSink:
    """An ffmpeg that encodes the frames it is given; a context manager.

    Leaving the block finishes the file; leaving it by any exception kills the program.
    """

    def __init__(self, arguments: Sequence[str], target: Path) -> None:
        self._target = target
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process = _start(command(arguments), self._log, stdin=subprocess.PIPE)

    def write(self, frame_HWC: np.ndarray) -> None:
        """Feed one frame; `MediaError` with ffmpeg's own reason when it has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frame_HWC).data)
        except OSError:
            self._process.wait()
            raise self._failure() from None

    def __enter__(self) -> FrameSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            _stop(self._process)
            self._log.close()

    def _finish(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            self._process.wait()
            raise self._failure() from None
        if self._process.wait() != 0:
            raise self._failure()

    def _failure(self) -> MediaError:
        return MediaError(f"cannot write {str(self._target)!r}: {reason(_text(self._log))}")


def frames(arguments: Sequence[str], size: tuple[int, int], source: Path) -> Iterator[np.ndarray]:
    """Yield the frames `[H, W, 3]` that ffmpeg writes as rgb24 to its standard output.

    Raises `MediaError` when it stops with an error, after the frames that could be read.
    """
    width, height = size
    with tempfile.TemporaryFile() as log:
        process = _start(command(arguments), log, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            while len(data := process.stdout.read(width * height * 3)) == width * height * 3:
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
            if process.wait() != 0 or data or cut_off(_text(log)):
                raise MediaError(f"cannot read all of {str(source)!r}: {reason(_text(log))}")
        finally:
            _stop(process)


def cut_off(log: str) -> bool:
    """Whether ffmpeg met the end of the file too early; its exit status is 0 then."""
    return any(
        sign in log for sign in ("partial file", "ended prematurely", "Truncating packet", "corrupt input")
    )


def reason(log: str, *, last: bool = False) -> str:
    """The first line (the `last` of a talkative log) that says what went wrong, without ffmpeg's prefix."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if not any(phrase in line for phrase in _CONSEQUENCES)] or lines
    return (
        telling[-1 if last else 0].split("] ", 1)[-1][:300]
        if telling
        else "ffmpeg stopped without giving a reason."
    )


def _start(
    line: list[str], log: IO[bytes], *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C is ours to handle, and must not end the encoder before its last frames.
    return subprocess.Popen(
        line,
        stdin=stdin,
        stdout=stdout,
        stderr=log,
        start_new_session=True,
        env={**os.environ, **_ENVIRONMENT},
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs, reap it and close its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was still buffered for a dead reader is of no use to anyone
                continue


def _expire(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read(1 << 22).decode("utf-8", "replace")
