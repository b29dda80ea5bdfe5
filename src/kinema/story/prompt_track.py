"""`PromptTrack`: prompts over frames, and how much of each makes up every frame.

PromptTrack({0: "a fox", 24: {"prompt": "a wolf", "ease": "in_out"}, -1: "a bear", "tail": "in oil"})
PromptTrack({"mix": {"a fox": "1 - t / max_f", "a wolf": "t / max_f"}})
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError, unknown_name
from kinema.story import prompts
from kinema.story.keyed import Array, Key, Keyed, Segments, ease_name, entries, read_place
from kinema.story.music import Music
from kinema.story.positions import RANGE_PATTERN, FramePosition
from kinema.story.prompt_mix import Mix, read_mix, shares

_LINEAR = "linear"
_RESERVED = ("head", "tail", "ease", "mode", "mix")


class PromptTrack(Keyed[str]):
    """Prompts over frames.

    Written as one text, or as a mapping from place to a text or to `{prompt: ..., ease: ..., mode: ...}`.
    Beside the keys, `head` and `tail` are joined to every prompt with a comma, and `ease` and `mode` are the
    defaults. Mode `blend` travels to the next prompt; `hold` jumps when the next key is reached. In place of
    keys, `mix` has several prompts at once, each with a weight over frames; see `kinema.story.prompt_mix`.

    Raises:
        ConfigError: anything that cannot be read; `PromptError` for weights that cannot.
    """

    __slots__ = ("_mix",)
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
                    "mix": {"type": ["object", "array"], "description": "prompts with weights over frames"},
                },
                "patternProperties": {
                    RANGE_PATTERN: {
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
        self._mix: Mix | None = None
        if isinstance(source, str):
            return (Key(FramePosition.parse(0), _words(source, "prompt"), _LINEAR),)
        if not isinstance(source, Mapping):
            raise ConfigError(
                f"{str(source)[:40]!r} is not a prompt; write text, or a mapping such as {{0: a fox}}."
            )
        default = _easing_of(source, _LINEAR, "the track")
        head, tail = (_words(source.get(name, ""), name) for name in ("head", "tail"))
        if "mix" in source:
            self._mix = _read_mix(source, head, tail)
            return (Key(FramePosition.parse(0), " + ".join(text for text, _ in self._mix), _LINEAR),)
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
    def mixed(self) -> bool:
        """It is several prompts with weights over frames, not prompts at places."""
        return self._mix is not None

    @property
    def mix(self) -> Mix:
        """Prompts and their weights where it is `mixed`; empty otherwise."""
        return self._mix or ()

    @property
    def constant(self) -> str | None:
        """The prompt, when it is the same at every frame."""
        if self._mix is not None:
            return self._mix[0][0] if len(self._mix) == 1 else None
        values = {key.value for key in self.keys}
        return values.pop() if len(values) == 1 else None

    def hearing(self, music: Music) -> Self:
        """The same prompts in a shot with this tempo and sound; weights hear it too."""
        track = super().hearing(music)
        if self._mix is not None:
            track._mix = tuple((text, weight.hearing(music)) for text, weight in self._mix)
        return track

    def sample(self, frames: int, fps: float | Fraction, seed: int = 0) -> tuple[tuple[str, ...], Array]:
        """The different prompts, and how much of each makes up each frame.

        Args:
            frames: F, the clip's pixel frames.
            fps: frames per second.
            seed: what the weights' expressions see.

        Returns:
            K prompts in the order of their first frame, with the weights syntax still in them, and weights
            float64 `[F, K]`, non-negative, each row with sum 1. An easing that overshoots is clipped.

        Raises:
            ConfigError: a key outside the clip, or two on one frame; weights below 0, or all 0.
        """
        if self._mix is not None:
            weights_FK = shares(self._mix, frames, fps, seed)
            used = np.flatnonzero(weights_FK.any(axis=0))
            return tuple(self._mix[k][0] for k in used), weights_FK[:, used]
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
    position, until = read_place(place)
    ease = default
    if isinstance(written, Mapping):
        entry = entries(written, ("prompt", "ease", "mode"), place)
        written, ease = entry["prompt"], _easing_of(entry, default, f"key {place}")
    return Key(position, _joined(head, _words(written, f"key {place}"), tail), ease, until)


def _joined(head: str, words: str, tail: str) -> str:
    """A prompt between what is common to all of them."""
    parts = [part.strip() for part in (head, words, tail) if part.strip()]
    text = ", ".join(parts) if head or tail else words
    prompts.parse(text)
    return text


def _read_mix(source: Mapping[Any, Any], head: str, tail: str) -> Mix:
    """The entry `mix`, with head and tail around each prompt."""
    if other := [key for key in source if key not in ("head", "tail", "mix")]:
        raise ConfigError(f"{other[0]!r} beside mix; a mix has weights over frames in place of keys.")
    mix = read_mix(source["mix"])
    return tuple((_joined(head, _words(text, "mix"), tail), weight) for text, weight in mix)


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
