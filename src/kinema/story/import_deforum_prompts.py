"""The prompts of Deforum's settings files as tracks.

In the modes that move a picture a prompt holds until the next one. In Interpolation mode it travels there in
a straight line, also towards a prompt that stands behind the clip's end, and `max_f` in a key is the number
of frames, not the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kinema.core.errors import ConfigError
from kinema.story.caret import Place
from kinema.story.dialects_numexpr import Formula
from kinema.story.imported import Imported, plain, prompt_track, split_negative


def read_prompts(
    found: Imported, settings: Mapping[str, Any], *, frames: int, seed: int, travel: bool
) -> None:
    """Put `prompt` and `negative` into what was found.

    `animation_prompts_positive` and `animation_prompts_negative`, which a file saved in the page has, are put
    around every prompt, as Deforum does with them. `positive_prompts` and `negative_prompts`, which a render
    saves, are in its prompts already, and Deforum never reads them.

    Args:
        found: gets the tracks, and a line for what is left behind.
        settings: of the file.
        frames: of the clip.
        seed: `s` in keys and weights.
        travel: whether prompts travel, as in Interpolation mode.

    Raises:
        ConfigError: no prompts, none inside the clip, or a key that cannot be read.
    """
    written = settings.get("prompts", settings.get("animation_prompts", {}))
    if not isinstance(written, Mapping) or not written:
        raise ConfigError("prompts is not a mapping of frames to texts; is this a Deforum settings file?")
    last = frames if travel else frames - 1
    sides: tuple[dict[int, str], dict[int, str]] = ({}, {})
    for frame, (where, text) in _reached(found, written, frames, seed, travel).items():
        for side, words in zip(sides, split_negative(text), strict=True):
            side[frame] = found.words(words, where, frame, last, seed)
    head = found.words(_around(settings, "animation_prompts_positive"), "animation_prompts_positive")
    tail = found.words(_around(settings, "animation_prompts_negative"), "animation_prompts_negative")
    for name, side, ends in (("prompt", sides[0], (head, "")), ("negative", sides[1], ("", tail))):
        if any(side.values()) or any(ends):
            found.values[name] = _track(side, ends, frames, travel)


def frame_of(key: str, last: int, seed: int, where: str = "prompts") -> int:
    """The frame of a key, a number or a formula of `max_f` and `s`, its fraction cut off.

    Args:
        key: as written, with quotes or without.
        last: `max_f`.
        seed: `s`.
        where: the setting that an error names.

    Raises:
        ConfigError: it cannot be read, or is not finite.
    """
    written = key.strip().strip("'\"")
    if written.isdecimal() and len(written) < 10:
        return int(written)
    formula = Formula(written, frozenset(("max_f", "s")), Place(written, 0, where))
    value = float(formula.evaluate({"max_f": last, "s": seed}, 1)[0])
    if not math.isfinite(value):
        raise formula.error(f"a key at frame {value}; write a whole number")
    return int(value)


def _reached(
    found: Imported, written: Mapping[Any, Any], frames: int, seed: int, travel: bool
) -> dict[int, tuple[str, str]]:
    """Keys and texts of the clip by frame, in order; with the one behind its end that it travels towards."""
    texts: dict[int, tuple[str, str]] = {}
    for key, text in written.items():
        frame = frame_of(str(key), frames if travel else frames - 1, seed)
        texts[frame] = (f"prompts {key}", str(text))
    behind = min((frame for frame in texts if frame >= frames), default=None)
    ahead = behind if travel and frames - 1 not in texts else None
    for frame, (where, _) in texts.items():
        if not 0 <= frame < frames and frame != ahead:
            found.leave(where, f"frame {frame} is outside the clip of {frames} frames")
    kept = {frame: texts[frame] for frame in sorted(texts) if 0 <= frame < frames or frame == ahead}
    if not kept:
        raise ConfigError(f"no prompt is inside the clip of {frames} frames; write one at 0.")
    return kept


def _around(settings: Mapping[str, Any], name: str) -> str:
    return str(settings.get(name) or "").replace("--neg", " ").strip()


def _track(side: Mapping[int, str], ends: tuple[str, str], frames: int, travel: bool) -> Any:
    if not travel:
        return prompt_track(side, *ends, mode="hold")
    if len(set(side.values())) == 1:
        side = {0: next(iter(side.values()))}
    if max(side) < frames:
        return prompt_track(side, *ends, mode="blend")
    head, tail = ends
    mix = {text: _share(side, text, frames) for text in dict.fromkeys(side.values())}
    return {**({"head": head} if head else {}), **({"tail": tail} if tail else {}), "mix": mix}


def _share(side: Mapping[int, str], text: str, frames: int) -> str:
    """The share of one text over the clip, as a schedule; the way to what is behind its end is cut off."""
    at_K = sorted({0, frames - 1, *(frame for frame in side if frame < frames)})
    share_K = np.interp(at_K, list(side), [float(there == text) for there in side.values()])
    return ", ".join(f"{frame}:({plain(share)})" for frame, share in zip(at_K, share_K, strict=True))
