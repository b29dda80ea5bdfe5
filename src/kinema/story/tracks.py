"""Values over frames: `Schedule` for a number, `PromptTrack` for words.

    Schedule(3.5)    Schedule("0:(1), 30:(2)")    Schedule("3 + sin(tau * sec)")
    Schedule({0: 1, "2s": 2, "50%": {"value": 3, "ease": "in_out"}, -1: 0})
    PromptTrack({0: "a fox", 24: {"prompt": "a wolf", "ease": "in_out"}, -1: "a bear", "tail": "in oil"})

A value may be an expression; from its key on it lives, frame by frame. The frames before travel to the value
it has at its key, and the key's easing is that of the way out of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError, unknown_name
from kinema.story import prompts
from kinema.story.caret import at_caret
from kinema.story.expressions import Expression, variables
from kinema.story.keyed import Array, Key, Keyed, Segments, ease_name, entries
from kinema.story.positions import POSITION_PATTERN, FramePosition

_LINEAR = "linear"
_KEY_PATTERN = POSITION_PATTERN


def _number(value: object, where: str) -> float | Expression:
    """A finite number, or an expression from text."""
    if isinstance(value, str):
        return Expression(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}{value!r} is not a number or an expression in quotes.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{where}{number} is not finite; write a number.")
    return number


_VALUE_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "string"}]}


class Schedule(Keyed[float | Expression]):
    """A number over frames.

    Written as a number, an expression over `t sec fps max_f seed`, a keyed string `"0:(1), 30:(2)"`, or a
    mapping from place (frame, "2s", "50%", -1 for the last) to a number, an expression, or
    `{value: ..., ease: ...}`.
    An `ease` beside the keys is the default for all of them (`linear` otherwise).

    Raises:
        ConfigError: anything that cannot be read; with a caret where the source is text.
    """

    __slots__ = ()
    _json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"type": "number"},
            {"type": "string", "maxLength": 100_000, "description": "an expression or 0:(1), 30:(2)"},
            {
                "type": "object",
                "minProperties": 1,
                "properties": {"ease": {"type": "string"}},
                "patternProperties": {
                    _KEY_PATTERN: {
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
        ]
    }

    def _read(self, source: Any) -> tuple[Key[float | Expression], ...]:
        if isinstance(source, Mapping):
            return tuple(_number_keys(source))
        if isinstance(source, str) and ":" in source:
            return tuple(_keyed_text(source))
        return (Key(FramePosition.parse(0), _number(source, ""), _LINEAR),)

    @property
    def constant(self) -> float | None:
        """The value, when it is the same number at every frame by the way it is written."""
        values = {key.value for key in self.keys}
        value = self.keys[0].value
        return value if len(values) == 1 and isinstance(value, float) else None

    def sample(self, frames: int, fps: float | Fraction, seed: int = 0) -> Array:
        """The value at each frame, float64 `[F]`, finite.

        Args:
            frames: F, the clip's pixel frames.
            fps: frames per second, for `sec` and keys in seconds.
            seed: what the expression's `seed` and `noise` see.

        Raises:
            ConfigError: a key outside the clip, two on one frame, or a value that is not finite.
        """
        segments = self.segments(frames, fps)
        scope = variables(frames, fps, seed)
        value_F = np.empty(frames)
        for i, start in enumerate(segments.frame_K):
            end = segments.frame_K[i + 1] if i + 1 < len(segments.frame_K) else frames
            value_F[start:end] = _live(self.keys[segments.order_K[i]].value, scope, start, end)
        first_K = value_F[list(segments.frame_K)]
        value_F[: segments.frame_K[0]] = first_K[0]
        value_F += segments.travelled_F * (first_K[segments.right_F] - value_F)
        if not np.isfinite(value_F).all():
            frame = int(np.argmax(~np.isfinite(value_F)))
            raise ConfigError(f"the values around frame {frame} are too far apart to travel between.")
        return value_F


def _live(value: float | Expression, scope: Mapping[str, Array], start: int, end: int) -> Array | float:
    """The value of one key on the frames from its own to the one before the next key."""
    if isinstance(value, float):
        return value
    frames = len(scope["t"])
    return value.evaluate({n: v[start:end] if len(v) == frames else v for n, v in scope.items()}, end - start)


def _number_keys(source: Mapping[Any, Any]) -> Iterator[Key[float | Expression]]:
    default = ease_name(source.get("ease", _LINEAR))
    for place, written in source.items():
        if place == "ease":
            continue
        position = FramePosition.parse(place)
        value, ease = written, default
        if isinstance(written, Mapping):
            entry = entries(written, ("value", "ease"), place)
            value, ease = entry["value"], ease_name(entry.get("ease", default))
        yield Key(position, _number(value, f"key {place}: "), ease)


def _keyed_text(text: str) -> Iterator[Key[float | Expression]]:
    """Deforum's notation, `0:(1), 30:(2 + sin(t))`; commas inside parentheses belong to the expression."""
    for start, part in _split_at_commas(text):
        place, colon, value = part.partition(":")
        if not colon:
            raise at_caret(
                ConfigError, "missing ':' between a frame and its value, as in 30:(2)", text, start
            )
        try:
            position = FramePosition.parse(place.strip().strip("\"'"))
        except ConfigError as error:
            raise at_caret(ConfigError, str(error), text, start) from None
        if not value.strip():
            raise at_caret(ConfigError, f"key {place.strip()} has no value", text, start + len(place) + 1)
        yield Key(position, Expression(value.strip()), _LINEAR)


def _split_at_commas(text: str) -> Iterator[tuple[int, str]]:
    """The parts between commas outside parentheses, each with its column; a trailing comma is fine."""
    depth, start = 0, 0
    for column, character in enumerate(text + ","):
        depth += (character == "(") - (character == ")")
        if (character == "," and depth <= 0) or column == len(text):
            part = text[start:column]
            if part.strip() or column < len(text):
                yield start + len(part) - len(part.lstrip()), part.strip()
            start = column + 1


_RESERVED = ("head", "tail", "ease", "mode")


class PromptTrack(Keyed[str]):
    """Prompts over frames.

    Written as one text, or as a mapping from place to a text or to `{prompt: ..., ease: ..., mode: ...}`.
    Beside the keys, `head` and `tail` are joined to every prompt with a comma, and `ease` and `mode` are the
    defaults. Mode `blend` travels to the next prompt; `hold` jumps when the next key is reached.

    Raises:
        ConfigError: anything that cannot be read; `PromptError` for weights that cannot.
    """

    __slots__ = ()
    _json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"type": "string", "maxLength": prompts.MAX_LENGTH},
            {
                "type": "object",
                "minProperties": 1,
                "properties": {
                    "head": {"type": "string"},
                    "tail": {"type": "string"},
                    "ease": {"type": "string"},
                    "mode": {"enum": ["hold", "blend"]},
                },
                "patternProperties": {
                    _KEY_PATTERN: {
                        "anyOf": [
                            {"type": "string"},
                            {
                                "type": "object",
                                "properties": {
                                    "prompt": {"type": "string"},
                                    "ease": {"type": "string"},
                                    "mode": {"enum": ["hold", "blend"]},
                                },
                                "required": ["prompt"],
                                "additionalProperties": False,
                            },
                        ]
                    }
                },
                "additionalProperties": False,
            },
        ]
    }

    def _read(self, source: Any) -> tuple[Key[str], ...]:
        if isinstance(source, str):
            return (Key(FramePosition.parse(0), _words(source, "prompt"), _LINEAR),)
        if not isinstance(source, Mapping):
            raise ConfigError(
                f"{str(source)[:40]!r} is not a prompt; write text, or a mapping such as {{0: a fox}}."
            )
        default = _easing_of(source, _LINEAR, "the track")
        head, tail = (_words(source.get(name, ""), name) for name in ("head", "tail"))
        return tuple(
            _prompt_key(place, written, default, head, tail)
            for place, written in source.items()
            if place not in _RESERVED
        )

    @property
    def empty(self) -> bool:
        """There are no words in it."""
        return not any(key.value.strip() for key in self.keys)

    @property
    def constant(self) -> str | None:
        """The prompt, when it is the same at every frame."""
        values = {key.value for key in self.keys}
        return values.pop() if len(values) == 1 else None

    def sample(self, frames: int, fps: float | Fraction) -> tuple[tuple[str, ...], Array]:
        """The different prompts, and how much of each makes up each frame.

        Returns:
            K prompts in the order of their first frame, with the weights syntax still in them, and weights
            float64 `[F, K]`, non-negative, each row with sum 1. An easing that overshoots is clipped.

        Raises:
            ConfigError: a key outside the clip, or two on one frame.
        """
        segments = self.segments(frames, fps)
        texts = [self.keys[i].value for i in segments.order_K]
        distinct = tuple(dict.fromkeys(texts))
        index_K = np.array([distinct.index(text) for text in texts])
        return distinct, _weights(segments, index_K, len(distinct))


def _weights(segments: Segments, index_K: NDArray[np.intp], prompts: int) -> Array:
    e_F = np.clip(segments.travelled_F, 0.0, 1.0)
    weights_FK = np.zeros((len(e_F), prompts))
    row_F = np.arange(len(e_F))
    np.add.at(weights_FK, (row_F, index_K[segments.left_F]), 1.0 - e_F)
    np.add.at(weights_FK, (row_F, index_K[segments.right_F]), e_F)
    return weights_FK


def _prompt_key(place: Any, written: Any, default: str, head: str, tail: str) -> Key[str]:
    position = FramePosition.parse(place)
    ease = default
    if isinstance(written, Mapping):
        entry = entries(written, ("prompt", "ease", "mode"), place)
        written, ease = entry["prompt"], _easing_of(entry, default, f"key {place}")
    parts = [head, _words(written, f"key {place}"), tail]
    text = ", ".join(part.strip() for part in parts if part.strip()) if head or tail else parts[1]
    prompts.parse(text)
    return Key(position, text, ease)


def _easing_of(entry: Mapping[Any, Any], default: str, where: str) -> str:
    """The easing that `ease` and `mode` amount to."""
    mode = entry.get("mode")
    if mode is not None and mode not in ("hold", "blend"):
        raise unknown_name(f"mode of {where}", mode, ["hold", "blend"])
    if mode == "hold":
        if "ease" in entry:
            raise ConfigError(f"{where}: mode hold has no easing; remove ease, or write mode: blend.")
        return "hold"
    if "ease" in entry:
        return ease_name(entry["ease"])
    return _LINEAR if mode == "blend" and default == "hold" else default


def _words(value: Any, where: str) -> str:
    """Text that can be shown, stored and encoded, with weights that can be read."""
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {str(value)[:40]!r} is not text; put it in quotes.")
    if "\0" in value or any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise ConfigError(
            f"{where}: the text has a character that cannot be stored (NUL or half a surrogate pair)."
        )
    prompts.parse(value)
    return value
