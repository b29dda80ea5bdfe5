"""The ffmpeg program of imageio-ffmpeg as a child process: raw frames in, raw frames or text out.

File names always reach it as `file:` and an absolute path, so that `-y.mp4`, `concat:a|b` or `http://x`
is a name and nothing else. Standard error goes to a file, where it can neither block the pipe nor get
lost.
"""

from __future__ import annotations

import functools
import io
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import DTypeLike

from kinema.core.errors import MediaError
from kinema.io.watchdog import Watchdog, limit_resources

STALL = 120.0  # seconds that a decoder may think about one frame

# SVT-AV1 greets on standard error whatever ffmpeg's log level is.
_ENVIRONMENT = {"SVT_LOG": "1"}
_DAMAGE = re.compile(
    r"error while decoding MB|Error at MB|damaged at \d|Invalid NAL unit size|CRC mismatch"
    r"|exceeds containing master element|invalid as first byte of an EBML number"
    r"|Error submitting packet to decoder|Decoding error"
)
# What ffmpeg also says after any failure.
_CONSEQUENCES = (
    "Conversion failed",
    "Nothing was written",
    "Error while opening encoder",
    "Could not open encoder before EOF",
    "Task finished with error code",
    "Terminating thread",
    "Error opening input",
    "Error opening output",
    "Failed to set value '0:V:0'",
    "Error parsing options",
    "To ignore this",
    "Press [q]",
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
    return [executable(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", loglevel, "-y", *arguments]


def run(
    arguments: Sequence[str],
    *,
    loglevel: str = "error",
    limit: int = 1 << 24,
    seconds: float = STALL,
    stranger: bool = False,
) -> Result:
    """Read with ffmpeg to the end; standard output is cut at `limit` bytes (the program is stopped there).

    Args:
        arguments: after ffmpeg's own first ones.
        loglevel: what it says on standard error.
        limit: bytes of standard output that are kept.
        seconds: without any output, after which it is stopped.
        stranger: whether it only reads, a file that is not our own: its memory is bounded then.
    """
    with tempfile.TemporaryFile() as log:
        process = start(command(arguments, loglevel=loglevel), log, stdout=subprocess.PIPE)
        if stranger:
            limit_resources(process)
        try:
            with Watchdog(process, seconds) as dog:
                output = _drain(process, limit, dog)
        finally:
            stop(process)
        if dog.barked:
            raise MediaError(f"ffmpeg gave no answer within {seconds:.0f} s; the file may be damaged.")
        return Result(process.returncode, output, said(log))


def _drain(process: subprocess.Popen[bytes], limit: int, dog: Watchdog) -> bytes:
    """Standard output up to `limit` bytes; the process has ended, or is stopped at the limit."""
    assert isinstance(process.stdout, io.BufferedReader)
    parts, left = [], limit
    dog.wait()
    while left and (part := process.stdout.read1(min(left, 1 << 16))):
        parts.append(part)
        left -= len(part)
        dog.wait()
    if not left:
        process.kill()
    process.wait()
    return b"".join(parts)


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


def frames(
    arguments: Sequence[str], shape: tuple[int, int, int], dtype: DTypeLike, path: Path
) -> Iterator[np.ndarray]:
    """Yield the frames `[H, W, C]` that ffmpeg writes to its standard output as raw video.

    Raises `MediaError` after the frames that could be read, when it stops with an error or gives nothing for
    `STALL` seconds.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile() as log:
        process = start(command(arguments), log, stdout=subprocess.PIPE)
        limit_resources(process)
        assert process.stdout is not None
        try:
            with Watchdog(process, STALL) as dog:
                dog.wait()
                while len(data := process.stdout.read(size)) == size:
                    dog.rest()
                    yield np.frombuffer(data, dtype).reshape(shape)
                    dog.wait()
                code = process.wait()
            if dog.barked:
                raise MediaError(f"cannot read all of {str(path)!r}: ffmpeg gave nothing for {STALL:.0f} s.")
            text = said(log)
            if code != 0 or data or cut_off(text) or damage(text):
                raise MediaError(f"cannot read all of {str(path)!r}: {damage(text) or reason(text)}")
        finally:
            stop(process)


def cut_off(log: str) -> bool:
    """Whether ffmpeg met the end of the file too early; its exit status is 0 then."""
    return any(
        sign in log for sign in ("partial file", "ended prematurely", "Truncating packet", "corrupt input")
    )


def damage(log: str) -> str | None:
    """The first line that says that pictures, or places of the container, are damaged; None for a whole file.

    ffmpeg goes on behind such a place, with pictures that it guesses or without them, and its exit status is
    0. What it says of a recording that begins between two keyframes is no such line.
    """
    line = next((line for line in log.splitlines() if _DAMAGE.search(line)), None)
    return None if line is None else reason(line).rstrip(".")


def reason(log: str, *, last: bool = False) -> str:
    """The first line (the `last` of a talkative log) that says what went wrong, without ffmpeg's prefix.

    Escape codes for the terminal, which a file's own tags may smuggle into the log, do not come out of it.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if not any(phrase in line for phrase in _CONSEQUENCES)] or lines
    if not telling:
        return "ffmpeg stopped without giving a reason."
    line = telling[-1 if last else 0].split("] ", 1)[-1][:300]
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def start(
    line: list[str], log: IO[bytes], *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a `command`; `MediaError` when the program cannot be run."""
    # In a session of its own: Ctrl-C is ours to handle, and must not end the encoder before its last frames.
    try:
        return subprocess.Popen(
            line,
            stdin=stdin,
            stdout=stdout,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **_ENVIRONMENT},
        )
    except OSError as error:
        raise MediaError(
            f"cannot start ffmpeg ({line[0]}): {error.strerror}; reinstall imageio-ffmpeg."
        ) from None


def stop(process: subprocess.Popen[bytes]) -> None:
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


def said(log: IO[bytes]) -> str:
    """What a program has written to its standard error."""
    log.seek(0)
    return log.read(1 << 22).decode("utf-8", "replace")
