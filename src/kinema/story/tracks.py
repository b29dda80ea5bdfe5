"""Numbers over frames; prompts over frames are `kinema.story.prompt_track`'s.

    Schedule(3.5)    Schedule("0:(1), 30:(2)")    Schedule("3 + sin(tau * sec)")
    Schedule({0: 1, "2s": 2, "8b..12b": 3, "50%": {"value": 3, "ease": "in_out"}, -1: 0})
    Schedule(lambda frame: frame / 24)    Schedule.parse("0:(1), 30:(1/2)", dialect="deforum")

A value may be an expression or a function; from its key on it lives, frame by frame. The frames before travel
to the value it has at its key, and the key's easing is that of the way out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any, ClassVar, Literal, Self

import numpy as np

from kinema.core.errors import ConfigError, unknown_name
from kinema.story import schedule_warnings
from kinema.story.dialects_deforum import DeforumText, Interpolation, check_interpolation
from kinema.story.expressions import Scope
from kinema.story.keyed import Array, Key, Keyed
from kinema.story.live import live_values
from kinema.story.music import Music, Recording
from kinema.story.positions import RANGE_PATTERN, FramePosition
from kinema.story.schedule_text import LINEAR, Value, is_keyed, keyed_text, number_keys, read_value

Dialect = Literal["native", "deforum"]
DIALECTS = ("native", "deforum")

_dialect: ContextVar[Dialect] = ContextVar("dialect of schedule strings", default="native")


@contextmanager
def reading(dialect: Dialect) -> Iterator[None]:
    """Schedules that are made from text inside are read in this dialect."""
    token = _dialect.set(dialect)
    try:
        yield
    finally:
        _dialect.reset(token)


def dialect_in_use() -> Dialect:
    """In which dialect text is read now."""
    return _dialect.get()


_VALUE_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "string"}]}


class Schedule(Keyed[Value]):
    """A number over frames.

    Written as a number, an expression over `t sec beat fps max_f seed` and `audio.rms`, a keyed string
    `"0:(1), 30:(2, ease=in_out)"`, a function of the frame's number, or a mapping from place (frame, "2s",
    "8b", "50%", -1 for the last) or range ("10..20") to a number, an expression, a function, or
    `{value: ..., ease: ...}`. An `ease` beside the keys is the default for all of them (`linear` otherwise).
    `{deforum: "0:(1), 30:(1/2)"}` is Deforum's notation with Deforum's values.

    A key past the end is travelled to and not reached; `warnings` says so.

    Raises:
        ConfigError: anything that cannot be read; with a caret where the source is text.
    """

    __slots__ = ("_deforum",)
    _json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"type": "number"},
            {"type": "string", "maxLength": 100_000, "description": "an expression or 0:(1), 30:(2)"},
            {
                "type": "object",
                "minProperties": 1,
                "properties": {"ease": {"type": "string"}},
                "patternProperties": {
                    RANGE_PATTERN: {
                        "anyOf": [
                            *_VALUE_SCHEMA["anyOf"],
                            {
                                "type": "object",
                                "properties": {"value": _VALUE_SCHEMA, "ease": {"type": "string"}},
                                "required": ["value"],
                                "additionalProperties": False,
                            },
                        ]
                    }
                },
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {
                    "deforum": {"type": "string", "maxLength": 100_000},
                    "interpolation": {"enum": ["linear", "quadratic", "cubic"]},
                },
                "required": ["deforum"],
                "additionalProperties": False,
            },
        ]
    }

    @classmethod
    def parse(
        cls, text: Any, dialect: Dialect = "native", *, interpolation: Interpolation = "linear"
    ) -> Self:
        """A schedule from text (or anything that the constructor takes), in a dialect.

        Args:
            text: such as `"0:(1.0), 30:(1.5*sin(2*pi*t/fps))"`.
            dialect: `deforum` reads as the web UI's extension does and gives its values.
            interpolation: of the Deforum dialect, between keys.

        Raises:
            ConfigError: with key, column and caret.
        """
        if dialect not in DIALECTS:
            raise unknown_name("dialect", dialect, DIALECTS)
        if dialect == "deforum":
            if not isinstance(text, str):
                raise ConfigError(f"{str(text)[:40]!r} is not text; Deforum's schedules are written 0:(1).")
            return cls({"deforum": text, "interpolation": check_interpolation(interpolation)})
        with reading("native"):
            return cls(text)

    def _read(self, source: Any) -> tuple[Key[Value], ...]:
        self._deforum: tuple[DeforumText, Interpolation] | None = None
        if isinstance(source, str) and _dialect.get() == "deforum":
            source = {"deforum": source}
        if isinstance(source, Mapping) and "deforum" in source:
            self._deforum = _read_deforum(source)
            return (Key(FramePosition.parse(0), 0.0, LINEAR),)
        if isinstance(source, Mapping):
            return tuple(number_keys(source))
        if isinstance(source, str) and is_keyed(source):
            return tuple(keyed_text(source))
        return (Key(FramePosition.parse(0), read_value(source, ""), LINEAR),)

    def _written(self, source: Any) -> Any:
        if self._deforum is None:
            return super()._written(source)
        text, interpolation = self._deforum
        plain = {"deforum": text.text}
        return plain if interpolation == "linear" else {**plain, "interpolation": interpolation}

    @property
    def dialect(self) -> Dialect:
        """How its text is read."""
        return "native" if self._deforum is None else "deforum"

    @property
    def constant(self) -> float | None:
        """The value, when it is the same number at every frame by the way it is written."""
        if self._deforum is not None:
            return self._deforum[0].constant
        values = {key.value for key in self.keys}
        value = self.keys[0].value
        return value if len(values) == 1 and isinstance(value, float) else None

    def values(
        self,
        frames: int,
        fps: float | Fraction = 24,
        seed: int = 0,
        *,
        bpm: float | None = None,
        audio: Recording | None = None,
    ) -> Array:
        """The value at each frame, float64 `[F]`; in the Deforum dialect infinities may be among them.

        Args:
            frames: F, the clip's pixel frames.
            fps: frames per second, for `sec` and places in seconds.
            seed: what the expression's `seed` and `noise` see.
            bpm: beats per minute, for `beat` and places in beats.
            audio: what `audio.rms` and the others hear; `kinema.io.audio.listen(path)` gives one.

        Raises:
            ConfigError: a key before the start, two on one frame, or a value that is not finite.
        """
        track = self if bpm is None and audio is None else self.hearing(Music(bpm, audio))
        if track._deforum is None:
            return track._sample(frames, fps, seed)
        text, interpolation = track._deforum
        return text.values(frames, fps, seed, track._music.tempo, interpolation)

    def sample(self, frames: int, fps: float | Fraction, seed: int = 0) -> Array:
        """The same, finite in every dialect.

        Raises:
            ConfigError: as `values`, and for an infinite value in the Deforum dialect.
        """
        value_F = self.values(frames, fps, seed)
        if not np.isfinite(value_F).all():
            frame = int(np.argmax(~np.isfinite(value_F)))
            raise ConfigError(f"the value at frame {frame} is {value_F[frame]}; values here must be finite.")
        return value_F

    def _sample(self, frames: int, fps: float | Fraction, seed: int) -> Array:
        segments = self.segments(frames, fps, beyond=True)
        keys = [self.keys[i] for i in segments.order_K]
        frame_K = np.array(segments.frame_K)
        # past the end, only the first key is on anybody's way
        keys = keys[: int(np.searchsorted(frame_K, frames)) + 1]
        scope = Scope(frames, fps, seed, self._music)
        value_F, first_K = live_values(keys, frame_K[: len(keys)], segments.left_F, scope)
        value_F += segments.travelled_F * (first_K[segments.right_F] - value_F)
        if not np.isfinite(value_F).all():
            frame = int(np.argmax(~np.isfinite(value_F)))
            raise ConfigError(f"the values around frame {frame} are too far apart to travel between.")
        return value_F

    def keyed(self, frames: int, fps: float | Fraction, seed: int = 0) -> Schedule:
        """Itself; in the Deforum dialect a native one, with the values that it has at its keys."""
        if self._deforum is None:
            return self
        value_F = self.sample(frames, fps, seed)
        return Schedule({i: float(value_F[i]) for i in self._deforum[0].places(frames, seed)})

    def frozen(self, frames: int, fps: float | Fraction, seed: int = 0) -> Schedule:
        """Itself when a file can hold it; with Python functions in it, a schedule of its values by frame."""
        if not any(callable(key.value) or callable(key.ease) for key in self.keys):
            return self
        return Schedule({i: float(v) for i, v in enumerate(self.sample(frames, fps, seed))})

    def warnings(self, frames: int, fps: float | Fraction = 24, seed: int = 0) -> tuple[str, ...]:
        """What this schedule does in such a clip that its writer may not expect; see `docs/schedules.md`."""
        if self._deforum is not None:
            return tuple(self._deforum[0].surprises(frames, seed))
        firsts = self.frames_of_keys(frames, fps, beyond=True)
        written = self._source if isinstance(self._source, str) else None
        return tuple(schedule_warnings.found(self.keys, firsts, frames, written, self._music))

    def hearing(self, music: Music) -> Self:
        """The same schedule in a shot with this tempo and sound."""
        track = super().hearing(music)
        track._deforum = self._deforum
        return track


def _read_deforum(source: Mapping[Any, Any]) -> tuple[DeforumText, Interpolation]:
    if unknown := [name for name in source if name not in ("deforum", "interpolation")]:
        raise ConfigError(f"unknown entry {unknown[0]!r} beside deforum; write interpolation, or nothing.")
    text = source["deforum"]
    if not isinstance(text, str):
        raise ConfigError(f"deforum: {str(text)[:40]!r} is not text; write 0:(1), 30:(2) in quotes.")
    return DeforumText.parse(text), check_interpolation(source.get("interpolation", "linear"))
