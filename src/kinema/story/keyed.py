"""What is written at some frames and holds or travels in between: the part that numbers and prompts share.

    value(f) = (1 - e(u)) a + e(u) b,    u = (f - f_a) / (f_b - f_a)

for the keys a, b on either side of frame f, where e is the easing written at a, the key that is being left.
Before the first key and after the last one the nearest key holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kinema.core.errors import ConfigError
from kinema.story.easing import easing
from kinema.story.positions import FramePosition

Array = NDArray[np.float64]
V = TypeVar("V")

MAX_KEYS = 10_000
MAX_FRAMES = 1_000_000


@dataclass(frozen=True, slots=True)
class Key(Generic[V]):
    """A value at a place, and the easing from here to the next key."""

    position: FramePosition
    value: V
    ease: str

    def __post_init__(self) -> None:
        easing(self.ease)  # an unknown name is an error now, not when sampled


@dataclass(frozen=True, slots=True)
class Segments:
    """Which two keys each frame lies between, and how far it has travelled.

    Attributes:
        order_K: the keys by frame, as indices into the track's keys.
        frame_K: the frame of each of them, ascending.
        left_F, right_F: indices into `order_K`; equal where one key holds.
        travelled_F: e(u), 0 at the left key; 1 would be at the right key.
    """

    order_K: tuple[int, ...]
    frame_K: tuple[int, ...]
    left_F: NDArray[np.intp]
    right_F: NDArray[np.intp]
    travelled_F: Array


class Keyed(Generic[V]):
    """A value over frames, remembered as the user wrote it; a pydantic type that serialises back to that.

    Two are equal when they were written alike. Subclasses say how to read the source.
    """

    __slots__ = ("_keys", "_source")
    _json_schema: ClassVar[dict[str, Any]]

    def __init__(self, source: Any) -> None:
        self._keys: tuple[Key[V], ...] = self._read(source)
        self._source = deepcopy(source)
        if not self._keys:
            raise ConfigError("a track without keys; write at least one, such as {0: ...}.")
        if len(self._keys) > MAX_KEYS:
            raise ConfigError(f"a track with {len(self._keys)} keys; the most is {MAX_KEYS}.")
        _refuse_twins([key.position for key in self._keys])

    def _read(self, source: Any) -> tuple[Key[V], ...]:
        raise NotImplementedError  # each subclass has its notation

    @classmethod
    def coerce(cls, source: Any) -> Self:
        """`source` itself when it is one already."""
        return source if isinstance(source, cls) else cls(source)

    @property
    def source(self) -> Any:
        """What the user wrote: JSON values only."""
        return deepcopy(self._source)

    @property
    def keys(self) -> tuple[Key[V], ...]:
        """The keys in the order written."""
        return self._keys

    def frames_of_keys(self, frames: int, fps: float | Fraction) -> tuple[int, ...]:
        """The frame of each key, in the order written; `ConfigError` for one outside or two on one frame."""
        if not 1 <= frames <= MAX_FRAMES:
            raise ConfigError(f"frames={frames} is out of range; write 1 to {MAX_FRAMES}.")
        found = tuple(key.position.resolve(frames, fps) for key in self._keys)
        seen: dict[int, FramePosition] = {}
        for frame, key in zip(found, self._keys, strict=True):
            if frame in seen:
                raise ConfigError(
                    f"keys {seen[frame].source} and {key.position.source} are both frame {frame} "
                    f"of {frames}; remove one."
                )
            seen[frame] = key.position
        return found

    def segments(self, frames: int, fps: float | Fraction) -> Segments:
        """Where each of `frames` frames lies between the keys."""
        found = self.frames_of_keys(frames, fps)
        order = sorted(range(len(found)), key=found.__getitem__)
        frame_K = np.array([found[i] for i in order])
        f_F = np.arange(frames)
        left_F = np.maximum(np.searchsorted(frame_K, f_F, side="right") - 1, 0)
        right_F = np.where(f_F < frame_K[0], 0, np.minimum(left_F + 1, len(order) - 1))
        span_F = np.maximum(frame_K[right_F] - frame_K[left_F], 1)
        u_F = np.clip((f_F - frame_K[left_F]) / span_F, 0.0, 1.0)
        u_F = np.where(left_F == right_F, 0.0, u_F)
        travelled_F = np.zeros(frames)
        for i, (start, end) in enumerate(pairwise(frame_K)):
            travelled_F[start:end] = easing(self._keys[order[i]].ease)(u_F[start:end])
        travelled_F[frame_K] = 0.0  # to the last bit, whatever the easing's rounding
        return Segments(tuple(order), tuple(int(f) for f in frame_K), left_F, right_F, travelled_F)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._canonical() == other._canonical()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._canonical()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source!r})"

    def _canonical(self) -> str:
        return json.dumps(self._source)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.coerce,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.source),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return deepcopy(cls._json_schema)


def _refuse_twins(positions: list[FramePosition]) -> None:
    """The same place written twice is an error whatever the length of the clip."""
    seen: dict[tuple[str, Fraction], FramePosition] = {}
    for position in positions:
        place = (position.unit, position.value)
        if place in seen:
            raise ConfigError(f"key {position.source} is written twice; remove one.")
        seen[place] = position


def entries(value: Any, fields: tuple[str, ...], key: object) -> Mapping[str, Any]:
    """A key's long form `{value: ..., ease: ...}`, with only `fields` in it."""
    if unknown := [name for name in value if name not in fields]:
        raise ConfigError(f"key {key}: unknown entry {unknown[0]!r}; write {', '.join(fields)}.")
    if fields[0] not in value:
        raise ConfigError(f"key {key}: missing {fields[0]!r}, as in {{{fields[0]}: ..., ease: in_out}}.")
    return dict(value)


def ease_name(value: object) -> str:
    """An easing's name as text; the name itself is checked by `Key`."""
    if not isinstance(value, str):
        raise ConfigError(f"ease={value!r} is not a name; write for example ease: in_out.")
    return value
