"""A clip on disk that a shot goes on from: its frames at the shot's rate, and the rate they were made at.

Frames that `interpolate` drew in between are none that a model made: what goes on from such a clip is made at
the rate under them, and brought to the file's rate like the clip itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from kinema.core.contracts import Record
from kinema.core.errors import ConfigError, MediaError
from kinema.io.reader import leading_up, picked
from kinema.io.record import read_record
from kinema.io.video_read import open_video
from kinema.pipelines.plan import Plan
from kinema.story.post import Interpolate
from kinema.story.shot import Shot
from kinema.story.timing import parse_fps


def carried_frames(plan: Plan) -> Iterator[np.ndarray]:
    """The clip on disk that a plan goes on from, at the plan's rate and up to its end, uint8 `[H, W, 3]`."""
    assert plan.given.extend is not None, "a plan that extends a clip"
    rate = Fraction(plan.geometry.fps)
    clip = open_video(plan.given.extend, still_fps=rate)
    return picked(clip, leading_up(clip, rate))


def at_made_rate(shots: Sequence[Shot]) -> tuple[Shot, ...]:
    """The shots of one file, told at which rate to go on where the first goes on from an interpolated clip.

    New frames are made at the rate under the clip's own, and drawn up to the file's by the method that its
    record names. Shots that say another rate, or another interpolation, are left as they are.
    """
    first = shots[0]
    if first.extend is None or first.extend.previous:
        return tuple(shots)
    found = _made(first.extend.path)
    if found is None:
        return tuple(shots)
    fps, drawn = found
    rates = {fps if shot.fps is None else Fraction(shot.fps) for shot in shots}
    files = {drawn.fps if shot.interpolate is None else shot.interpolate.fps for shot in shots}
    if len(rates) > 1 or max(rates) >= drawn.fps or files != {drawn.fps}:
        return tuple(shots)
    plain = {shot.interpolate for shot in shots} == {None}
    more = {"interpolate": drawn} if plain else {}
    told = [shot.with_(**more) for shot in shots]
    return (told[0].with_(fps=max(rates)), *told[1:])


def _made(path: str) -> tuple[Fraction, Interpolate] | None:
    """The rate at which a clip's frames were made, and how they were brought to the file's higher one."""
    try:
        record = read_record(path)
        found = None if record is None else _told(record)
        # what was asked for of an older file need not be so of this one
        return found if found and found[0] < found[1].fps == open_video(path).fps else None
    except (ConfigError, MediaError):  # a clip that cannot be read is refused where it is needed
        return None


def _told(record: Record) -> tuple[Fraction, Interpolate] | None:
    shots = record.shot.get("shots")
    shot: Any = shots[0] if isinstance(shots, list) and shots else record.shot
    if not isinstance(shot, Mapping):
        return None
    post: Any = record.post if isinstance(record.post, Mapping) else {}
    drawn, fps = (shot.get(name, post.get(name)) for name in ("interpolate", "fps"))
    if drawn is None or fps is None:
        return None
    return parse_fps(fps), Interpolate.from_mapping(drawn)
