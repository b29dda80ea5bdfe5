"""What is written at some frames and holds or travels in between: the part that numbers and prompts share.

    value(f) = (1 - e(u)) a + e(u) b,    u = (f - f_a) / (f_b - f_a)

for the keys a, b on either side of frame f, where e is the easing written at a, the key that is being left.
Before the first key and after the last one the nearest key holds. A key may hold a range, `10..20`, both ends
included; f_a is its last frame then.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kinema.core.errors import ConfigError
from kinema.story.easing import Easing, easing
from kinema.story.music import Music
from kinema.story.positions import FramePosition

Array = NDArray[np.float64]
V = TypeVar("V")

MAX_KEYS = 10_000
MAX_FRAMES = 1_000_000


@dataclass(frozen=True, slots=True)
class Key(Generic[V]):
    """A value at a place, or from there to another, and the easing from here to the next key."""

    position: FramePosition
    value: V
    ease: str | Easing
    until: FramePosition | None = None

    def __post_init__(self) -> None:
        if isinstance(self.ease, str):
            easing(self.ease)  # an unknown name is an error now, not when sampled

    @property
    def written(self) -> str:
        """The place as the user wrote it."""
        return str(self.position.source) + ("" if self.until is None else f"..{self.until.source}")

    @property
    def easing(self) -> Easing:
        """The function that `ease` names."""
        return easing(self.ease) if isinstance(self.ease, str) else self.ease

    def heard(self, music: Music) -> Key[V]:
        """The same key with beats where this music has them."""
        until = None if self.until is None else self.until.heard(music)
        return replace(self, position=self.position.heard(music), until=until)

    def frames(self, frames: int, fps: float | Fraction, *, beyond: bool) -> tuple[int, int]:
        """Its first and last frame; `ConfigError` when they lie outside, or the wrong way round."""
        first = self.position.resolve(frames, fps, beyond=beyond)
        if self.until is None:
            return first, first
        last = self.until.resolve(frames, fps, beyond=beyond)
        if last < first:
            raise ConfigError(
                f"key {self.written} is frames {first} to {last}; write the earlier place first."
            )
        return first, last


@dataclass(frozen=True, slots=True)
class Segments:
    """Which two keys each frame lies between, and how far it has travelled.

    Attributes:
        order_K: the keys by frame, as indices into the track's keys.
        frame_K: the first frame of each of them, ascending; past the end where that is allowed.
        left_F, right_F: indices into `order_K`; equal where one key holds.
        travelled_F: e(u), 0 at the left key; 1 would be at the right key.
    """

    order_K: tuple[int, ...]
    frame_K: tuple[int, ...]
    left_F: NDArray[np.intp]
    right_F: NDArray[np.intp]
    travelled_F: Array


def _plain(source: Any) -> Any:
    """The source with numpy's numbers as Python's, so that what is remembered is JSON."""
    if isinstance(source, np.number):
        return source.item()
    if isinstance(source, Mapping):
        return {_plain(key): _plain(value) for key, value in source.items()}
    return [_plain(value) for value in source] if isinstance(source, list | tuple) else source


class Keyed(ABC, Generic[V]):
    """A value over frames, remembered as the user wrote it; a pydantic type that serialises back to that.

    Two are equal when they were written alike. Subclasses say how to read the source.
    """

    __slots__ = ("_keys", "_music", "_source")
    _json_schema: ClassVar[dict[str, Any]]

    def __init__(self, source: Any) -> None:
        self._music = Music()
        source = _plain(source)
        self._keys: tuple[Key[V], ...] = self._read(source)
        self._source = self._written(source)
        if not self._keys:
            raise ConfigError("a track without keys; write at least one, such as {0: ...}.")
        if len(self._keys) > MAX_KEYS:
            raise ConfigError(f"a track with {len(self._keys)} keys; the most is {MAX_KEYS}.")
        _refuse_twins(self._keys)

    @abstractmethod
    def _read(self, source: Any) -> tuple[Key[V], ...]:
        """The keys of a source, in the subclass's own notation."""

    def _written(self, source: Any) -> Any:
        """What is remembered of the source."""
        return deepcopy(source)

    def hearing(self, music: Music) -> Self:
        """The same track in a shot with this tempo and sound: beats and audio are known to it."""
        track = copy(self)
        track._music = music
        track._keys = tuple(key.heard(music) for key in self._keys)
        return track

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

    def frames_of_keys(self, frames: int, fps: float | Fraction, *, beyond: bool = False) -> tuple[int, ...]:
        """The first frame of each key, in the order written.

        Args:
            frames: F, the clip's pixel frames.
            fps: frames per second.
            beyond: keys past the end are given as they are.

        Raises:
            ConfigError: a key outside the clip, or two on one frame.
        """
        return tuple(first for first, _ in self._spans(frames, fps, beyond=beyond))

    def _spans(self, frames: int, fps: float | Fraction, *, beyond: bool) -> list[tuple[int, int]]:
        if not 1 <= frames <= MAX_FRAMES:
            raise ConfigError(f"frames={frames} is out of range; write 1 to {MAX_FRAMES}.")
        found = [key.frames(frames, fps, beyond=beyond) for key in self._keys]
        order = sorted(range(len(found)), key=found.__getitem__)
        for a, b in pairwise(order):
            if found[a][1] >= found[b][0]:
                raise ConfigError(
                    f"keys {self._keys[a].written} and {self._keys[b].written} are both frame {found[b][0]} "
                    f"of {frames}; remove one."
                )
        return found

    def segments(self, frames: int, fps: float | Fraction, *, beyond: bool = False) -> Segments:
        """Where each of `frames` frames lies between the keys; `beyond` as in `frames_of_keys`."""
        found = self._spans(frames, fps, beyond=beyond)
        order = sorted(range(len(found)), key=found.__getitem__)
        first_K = np.array([found[i][0] for i in order])
        last_K = np.array([found[i][1] for i in order])
        f_F = np.arange(frames)
        left_F = np.maximum(np.searchsorted(first_K, f_F, side="right") - 1, 0)
        right_F = np.minimum(left_F + 1, len(order) - 1)
        right_F = np.where((f_F < first_K[0]) | (f_F <= last_K[left_F]), left_F, right_F)
        span_F = np.maximum(first_K[right_F] - last_K[left_F], 1)
        u_F = np.where(left_F == right_F, 0.0, np.clip((f_F - last_K[left_F]) / span_F, 0.0, 1.0))
        travelled_F = np.zeros(frames)
        for i in range(len(order) - 1):
            start, end = last_K[i] + 1, min(first_K[i + 1], frames)
            if start < end:
                travelled_F[start:end] = self._keys[order[i]].easing(u_F[start:end])
        return Segments(tuple(order), tuple(int(f) for f in first_K), left_F, right_F, travelled_F)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._canonical() == other._canonical()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._canonical()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source!r})"

    def _canonical(self) -> str:
        return json.dumps(self._source, default=repr)

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


def _refuse_twins(keys: Iterable[Key[Any]]) -> None:
    """The same place written twice is an error whatever the length of the clip."""
    seen = set()
    for key in keys:
        place = (key.position.unit, key.position.value)
        if place in seen:
            raise ConfigError(f"key {key.position.source} is written twice; remove one.")
        seen.add(place)


def read_place(source: object) -> tuple[FramePosition, FramePosition | None]:
    """A place such as `24`, `2s` or `-1`, or a range such as `10..20`: where it begins and where it ends."""
    if isinstance(source, str) and ".." in source:
        first, _, last = source.partition("..")
        return FramePosition.parse(first), FramePosition.parse(last)
    return FramePosition.parse(source), None


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
