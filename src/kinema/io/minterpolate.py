"""ffmpeg's `minterpolate` filter over a stream of frames: block matching, by name beside our own flow."""

from __future__ import annotations

import math
import queue
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from threading import Thread
from typing import IO

import numpy as np

from kinema.core.errors import MediaError
from kinema.io import ffmpeg

FILTER = "tpad=stop=3:stop_mode=clone,minterpolate=fps={fps}:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1"
_LEFT = 60.0  # seconds that it may take to hand out its last frames


def minterpolated(
    frames: Iterable[np.ndarray], fps: Fraction, new_fps: Fraction, count: int
) -> Iterator[np.ndarray]:
    """`count` frames at `new_fps`, beginning with the first.

    Frames are written and read by turns, so memory holds what the filter is behind, not the clip.

    Args:
        frames: uint8 `[H, W, 3]` at `fps`; the filter knows no alpha.
        fps, new_fps: rates.
        count: frames to give.

    Raises:
        MediaError: the frames have alpha, or ffmpeg fails.
    """
    source = iter(frames)
    first = next(source, None)
    if first is None:
        return
    if first.shape[2] != 3:
        raise MediaError("minterpolate cannot keep transparency; use method flow or blend.")
    yield from islice(_filtered(first, source, fps, new_fps), count)


def _filtered(
    first: np.ndarray, rest: Iterator[np.ndarray], fps: Fraction, new_fps: Fraction
) -> Iterator[np.ndarray]:
    height, width = first.shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    arguments = [*raw, "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    arguments += ["-vf", FILTER.format(fps=new_fps), *raw, "-"]
    with tempfile.TemporaryFile() as log:
        process = ffmpeg.start(ffmpeg.command(arguments), log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        made: queue.Queue[np.ndarray | None] = queue.Queue()
        reader = Thread(target=_read, args=(process.stdout, first.shape, made), daemon=True)
        reader.start()
        try:
            for frame in _chain(first, rest):
                _write(process.stdin, frame, log)
                while not made.empty() and (ready := made.get()) is not None:
                    yield ready
            process.stdin.close()
            while (ready := _next(made)) is not None:
                yield ready
            if process.wait():
                raise MediaError(f"minterpolate failed: {ffmpeg.reason(ffmpeg.said(log))}")
        finally:
            ffmpeg.stop(process)
            reader.join()


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _read(pipe: IO[bytes], shape: tuple[int, ...], made: queue.Queue[np.ndarray | None]) -> None:
    size = math.prod(shape)
    try:
        while len(data := pipe.read(size)) == size:
            made.put(np.frombuffer(data, np.uint8).reshape(shape))
    except (OSError, ValueError):  # the process was stopped while we waited for it
        pass
    made.put(None)


def _write(pipe: IO[bytes], frame: np.ndarray, log: IO[bytes]) -> None:
    try:
        pipe.write(np.ascontiguousarray(frame).tobytes())
    except OSError:
        raise MediaError(f"minterpolate failed: {ffmpeg.reason(ffmpeg.said(log))}") from None


def _next(made: queue.Queue[np.ndarray | None]) -> np.ndarray | None:
    try:
        return made.get(timeout=_LEFT)
    except queue.Empty:
        raise MediaError(f"minterpolate gave nothing for {_LEFT:.0f} s; use method flow.") from None
