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
ON_TIME = Fraction(0)


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


def soundtrack(
    shots: Sequence[Shot], places: Sequence[Place], fps: Fraction, late: Fraction = ON_TIME
) -> tuple[AudioPart, ...]:
    """The parts of the sound files that shots name, placed in the clip.

    Args:
        shots: in order.
        places: of each of them.
        fps: of the clip.
        late: seconds by which all but the clip's first frame is seen later than `fps` says; see `moment`.
    """
    anchors: dict[tuple[str, float], Fraction] = {}
    parts = []
    for run in _runs(shots, places, fps):
        at, end = (moment(frame, fps, late) for frame in (run.first.begin, run.last.end))
        anchor = anchors.setdefault((run.audio, run.sound.start), at)
        parts.append(_part(run, at, end, anchor))
    return tuple(parts)


def moment(frame: int, fps: Fraction, late: Fraction = ON_TIME) -> Fraction:
    """Seconds in the clip at which a shot begins or ends, by the frame of that.

    A clip on disk that comes first as it is may end between two frames of `fps`, and what goes on from its
    last frame is that much later than by its own count of frames. No shot but the first begins in it.
    """
    return frame / fps + (late if frame else 0)


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


def _part(run: _Run, at: Fraction, end: Fraction, anchor: Fraction) -> AudioPart:
    seconds = end - at
    return AudioPart(
        path=run.audio,
        at=at,
        seconds=seconds,
        start=run.sound.start + float(at - anchor),
        loop=run.sound.loop,
        volume=run.sound.volume,
        fade_in=min(run.fade_in, float(seconds)),
        fade_out=min(run.fade_out, float(seconds)),
    )
