"""Tracks of a camera: schedules with a neutral default, sampled under their own name, kept in range."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from pydantic import Field

from kinema.core.errors import ConfigError
from kinema.story.keyed import Array
from kinema.story.tracks import Schedule


def track(default: float, title: str, description: str) -> Any:
    """A field of `Settings` that is a schedule, `default` where nothing is given."""
    return Field(
        Schedule(default), title=title, description=description, json_schema_extra={"default": default}
    )


def sampled(name: str, track: Schedule, frames: int, fps: float | Fraction, seed: int) -> Array:
    """The track's values `[F]`; what is wrong with them is said under its name."""
    try:
        return track.sample(frames, fps, seed)
    except ConfigError as error:
        raise ConfigError(f"camera.{name}: {error}") from None


def in_range(name: str, values: Mapping[str, Array], low: float, high: float) -> None:
    """`ConfigError` naming the first frame at which the track is below `low` or above `high`."""
    if name not in values:
        return
    wrong = np.flatnonzero((values[name] < low) | (values[name] > high))
    if len(wrong):
        frame = int(wrong[0])
        raise ConfigError(
            f"camera.{name}={values[name][frame]:g} at frame {frame} is out of range; "
            f"write {low:g} to {high:g}."
        )
