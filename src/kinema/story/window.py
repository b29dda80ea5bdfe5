"""How a clip longer than its model is sampled, and prompts that go around in a loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from kinema.story.keyed import Array
from kinema.story.prompt_track import PromptTrack
from kinema.story.settings import Settings

MAX_LENGTH = 100_000


class Windows(Settings):
    """Windows over a long clip; from text: their kind.

    `auto` is `fuse` for clips longer than the model learned, and one window for all others.
    """

    kind: Literal["auto", "fuse", "continue", "whole"] = Field(
        "auto",
        title="Kind",
        description="fuse: windows averaged at every step; continue: one after the other; whole: none",
    )
    length: int | None = Field(
        None,
        ge=1,
        le=MAX_LENGTH,
        title="Length",
        description="frames of a window; by default what the model learned",
    )
    overlap: int | None = Field(
        None,
        ge=0,
        le=MAX_LENGTH,
        title="Overlap",
        description="frames that neighbouring windows share at least",
    )
    weights: Literal["pyramid", "linear", "flat"] = Field(
        "pyramid", title="Weights", description="what a window's frames count for where windows overlap"
    )
    places: Literal["uniform", "static"] = Field(
        "uniform", title="Places", description="uniform shifts the windows at every step; static does not"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @property
    def plain(self) -> bool:
        """Nothing was asked for but the kind."""
        return self.given().keys() <= {"kind"}


def sample_around(track: PromptTrack, frames: int, fps: float | Fraction) -> tuple[tuple[str, ...], Array]:
    """`PromptTrack.sample` for a loop: after the last key the prompts travel back to the first one.

    Args:
        track: prompts with their keys inside the clip.
        frames: of the loop; frame `frames` is frame 0 again.
        fps: for keys in seconds.

    Returns:
        Prompts, and weights float64 `[F, K]`, each row with sum 1.
    """
    places = track.frames_of_keys(frames, fps)
    keys = sorted(zip(places, track.keys, strict=True), key=lambda pair: pair[0])
    first = keys[0][0]
    written: Mapping[Any, Any] = {
        _place(*key.frames(frames, fps, beyond=False)): {"prompt": key.value, "ease": key.ease}
        for _, key in keys
    }
    closed = PromptTrack({**written, frames + first: {"prompt": keys[0][1].value}})
    texts, weights_FK = closed.sample(frames + first + 1, fps)
    return texts, np.roll(weights_FK[first : first + frames], first, axis=0)


def _place(first: int, last: int) -> int | str:
    """A frame, or the range that a key holds."""
    return first if first == last else f"{first}..{last}"


@dataclass(frozen=True, slots=True)
class Turn:
    """How a loop comes from its last prompt back to its first one.

    Attributes:
        last, first: the prompts.
        frames: from the end of the last key to the first key of the next time around; 1 is a jump.
        begin: how many of them are the clip's first frames.
        jumps: there is nothing in between.
    """

    last: str
    first: str
    frames: int
    begin: int
    jumps: bool


def turn_back(track: PromptTrack, frames: int, fps: float | Fraction) -> Turn | None:
    """Where a loop turns from its last prompt back to its first; None where they are the same."""
    keys = sorted((key.frames(frames, fps, beyond=False), i) for i, key in enumerate(track.keys))
    ((begin, _), i), ((_, until), j) = keys[0], keys[-1]
    first, last = track.keys[i], track.keys[j]
    if first.value == last.value:
        return None
    between = frames + begin - until
    return Turn(last.value, first.value, between, begin, last.ease == "hold" or between == 1)
