"""When each frame of a video file is shown, from one decoding pass that keeps no pictures.

The pass sees all of the file, so what is cut off or damaged in it is refused here.
"""

from __future__ import annotations

import re

import numpy as np

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.probe import VideoFile
from kinema.io.reader import MAX_FRAMES
from kinema.io.sniff import Stamp

_ROUNDED = (
    1.1e-3  # seconds between two times that Matroska has rounded to milliseconds, and some microseconds
)
_FRAMECRC = re.compile(r"0, *-?\d+, *(-?\d+), *(\d+),")


def clock(video: VideoFile, stamp: Stamp) -> tuple[np.ndarray, float]:
    """Start of every frame in seconds, float64 `[F]`, the first at 0, and the whole duration.

    Raises:
        MediaError: cut off, damaged, without a frame, or changed since the stamp was made.
    """
    result = ffmpeg.run(video.clock_arguments(), limit=1 << 27, stranger=True)
    result.check(f"cannot read {str(video.path)!r}")
    stamp.check()
    text = result.output.decode("ascii", "replace")
    base = re.search(r"^#tb 0: (\d+)/([1-9]\d*)", text, re.MULTILINE)
    rows = [(int(m[1]), int(m[2])) for m in map(_FRAMECRC.match, text.splitlines()) if m]
    if base is None or not 0 < len(rows) <= MAX_FRAMES:
        raise MediaError(
            f"cannot read {str(video.path)!r}: it shows {len(rows)} frames, not 1 to {MAX_FRAMES}."
        )
    if ffmpeg.cut_off(result.log):
        shown = f"{str(video.path)!r} is cut off after {len(rows)} frames"
        raise MediaError(f"{shown}; re-encode or replace it.")
    if found := ffmpeg.damage(result.log):
        raise MediaError(
            f"{str(video.path)!r} is damaged ({found}): {len(rows)} frames can be decoded, not all of them "
            "as they were; replace it, or re-encode it to take it as it is."
        )
    tick = int(base[1]) / int(base[2])
    starts = np.array([start for start, _ in rows], np.float64) * tick
    if (np.diff(starts) < 0).any():
        raise MediaError(f"the frames of {str(video.path)!r} go back in time; re-encode it.")
    return _unrounded(starts - starts[0], rows[-1][1] * tick, 1 / float(video.fps))


def _unrounded(starts: np.ndarray, last: float, steady: float) -> tuple[np.ndarray, float]:
    """Start times and the whole duration, without what a container's clock has rounded of a steady rate.

    Args:
        starts: of every frame in seconds, the first at 0.
        last: seconds for which the last frame is shown; 0 where that is not known.
        steady: seconds of a frame at the nominal rate.
    """
    exact = np.arange(len(starts)) * steady
    if float(np.abs(starts - exact).max()) <= _ROUNDED:
        starts = exact
    if last <= 0 or abs(last - steady) <= _ROUNDED:
        last = steady
    return starts, float(starts[-1]) + last
