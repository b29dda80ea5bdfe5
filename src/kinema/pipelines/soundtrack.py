"""What is heard under the shots of a clip: which part of which sound file plays when.

    time in the file = start + (time in the clip - where the first shot with this file begins)

Shots in a row that sound alike are one part. Where the sound changes, the parts cross over the frames that
both shots share; at a cut they go and come within 5 ms, so that nothing clicks. Out of silence and into it,
at the ends of the clip or beside a silent shot, they come and go as slowly as `sound` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from kinema.io.mux import AudioPart
from kinema.story.shot import Shot
from kinema.story.sound import Sound

CLICK = 0.005
"""Seconds in which a sound goes or comes at a cut."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a shot lies in the clip, in frames: it begins, ends (exclusive), and overlaps the shot before."""

    begin: int
    end: int
    overlap: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Shots in a row with the same audio and sound."""

    audio: str
    sound: Sound
    first: Place
    last: Place
    fade_in: float
    fade_out: float


def soundtrack(shots: Sequence[Shot], places: Sequence[Place], fps: Fraction) -> tuple[AudioPart, ...]:
    """The parts of the sound files that shots name, placed in the clip.

    Args:
        shots: in order.
        places: of each of them.
        fps: of the clip.
    """
    anchors: dict[tuple[str, float], int] = {}
    parts = []
    for run in _runs(shots, places, fps):
        anchor = anchors.setdefault((run.audio, run.sound.start), run.first.begin)
        parts.append(_part(run, anchor, fps))
    return tuple(parts)


def _runs(shots: Sequence[Shot], places: Sequence[Place], fps: Fraction) -> list[_Run]:
    heard = [_heard(shot) for shot in shots]
    edges = [0, *(i for i in range(1, len(shots)) if heard[i] != heard[i - 1]), len(shots)]
    cross = [0.0, *(_cross(place, fps) for place in places[1:]), 0.0]
    around = [None, *heard, None]  # shot i is around[i + 1]; before and after the clip there is silence
    runs = []
    for begin, end in pairwise(edges):
        if (own := heard[begin]) is None:
            continue
        audio, sound = own
        fade_in = max(cross[begin], sound.fade_in) if around[begin] is None else cross[begin]
        fade_out = max(cross[end], sound.fade_out) if around[end + 1] is None else cross[end]
        runs.append(_Run(audio, sound, places[begin], places[end - 1], fade_in, fade_out))
    return runs


def _heard(shot: Shot) -> tuple[str, Sound] | None:
    """What a shot plays; None for silence."""
    sound = shot.sound or Sound.make()
    return None if shot.audio is None or sound.volume == 0 else (shot.audio, sound)


def _cross(place: Place, fps: Fraction) -> float:
    return max(CLICK, float(place.overlap / fps))


def _part(run: _Run, anchor: int, fps: Fraction) -> AudioPart:
    at = run.first.begin / fps
    seconds = run.last.end / fps - at
    return AudioPart(
        path=run.audio,
        at=at,
        seconds=seconds,
        start=run.sound.start + float((run.first.begin - anchor) / fps),
        loop=run.sound.loop,
        volume=run.sound.volume,
        fade_in=min(run.fade_in, float(seconds)),
        fade_out=min(run.fade_out, float(seconds)),
    )
