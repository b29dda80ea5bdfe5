"""A clip of variable rate as one of a steady rate, in which frames are repeated for as long as they last."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from kinema.io.probe import SLOWEST
from kinema.io.reader import VideoReader

FASTEST = 60  # frames a second where no rate has every beginning,
MOST = 240  # and where two frames would fall together at that
_SLACK = 2.0  # milliseconds by which a container may have rounded a time
_SLOW = sorted({*map(Fraction, range(1, FASTEST)), *(Fraction(100, k) for k in range(2, 101))})


def steady_rate(clip: VideoReader, most: Fraction | int) -> Fraction | None:
    """The rate at which frames of a variable one can be repeated so that each begins at its time.

    None for a steady clip: every frame begins within half a frame of where its mean rate has it. Else the
    clip's own rate, or the one that most frames follow, where all others begin at multiples of that too; or
    the lowest that has all beginnings, among whole ones and those that count hundredths of a second, as GIF
    does. Where there is none up to 60 frames a second, that, or the rate of the two frames that are nearest.

    Args:
        clip: of any rate.
        most: frames a second that the new file may have.
    """
    starts, fps = clip.times, float(clip.fps)
    if len(starts) < 2 or float(np.abs(starts * fps - np.arange(len(starts))).max()) < 0.5:
        return None
    likely = [rate for rate in _likely(starts, clip.fps) if SLOWEST <= rate <= most]
    off = {rate: _off(starts, rate) for rate in likely}
    if off and min(off.values()) <= _SLACK:
        return min(likely, key=lambda rate: round(off[rate], 1))  # the first of those that differ by nothing
    slow = (rate for rate in _SLOW if rate <= most)
    return next((rate for rate in slow if _off(starts, rate) <= _SLACK), _shown(starts, most))


def shown_for(clip: VideoReader, fps: Fraction) -> np.ndarray:
    """How many frames of a steady rate each frame of a clip lasts: until the next begins; int64 `[F]`.

    The last is there once at least; 0 is for others that begin as near to the place of the next.
    """
    counts = np.diff(_places(np.append(clip.times, clip.duration), fps))
    counts[-1] = max(1, counts[-1])
    return counts


def _likely(starts: np.ndarray, own: Fraction) -> Iterable[Fraction]:
    """The clip's own rate, and what the interval of most frames may mean: 24, 24000/1001, 100/3."""
    intervals = np.sort(np.diff(starts))
    usual = float(intervals[(len(intervals) - 1) // 2])
    if usual <= 0:
        return [own]
    whole = round(1 / usual)
    return [own, Fraction(whole), Fraction(whole * 1000, 1001), Fraction(1 / usual).limit_denominator(1001)]


def _places(starts: np.ndarray, fps: Fraction) -> np.ndarray:
    """The frame of a steady rate that begins nearest to each time; of two the later, as halves would go."""
    places: np.ndarray = np.floor(starts * float(fps) + 0.5 + 1e-6).astype(int)
    return places


def _off(starts: np.ndarray, fps: Fraction) -> float:
    """Milliseconds between where frames begin and where they would; infinite if two fall together."""
    places = _places(starts, fps)
    if int(np.diff(places).min()) < 1:
        return math.inf
    return float(np.abs(places / float(fps) - starts).max()) * 1000


def _shown(starts: np.ndarray, most: Fraction | int) -> Fraction:
    """The lowest rate from 60 on at which no two frames fall together; 60 where there is none."""
    nearest = float(np.diff(starts).min())
    rates = [FASTEST]
    if nearest > 0:
        above = math.ceil(1 / nearest - 1e-6)
        rates += [rate for rate in (above, above + 1) if FASTEST < rate <= MOST]
    apart = (Fraction(rate) for rate in rates if rate <= most and _off(starts, Fraction(rate)) < math.inf)
    return next(apart, min(Fraction(FASTEST), Fraction(most)))
