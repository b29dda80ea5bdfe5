"""What a schedule does that its writer may not expect: where it differs from Deforum, or is never reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kinema.story.expressions import Expression
from kinema.story.keyed import Key
from kinema.story.music import DEFAULT_BPM, Music

ASSUMED = f"no bpm and no audio: {DEFAULT_BPM:g} beats a minute are assumed; write bpm:"


def found(
    keys: Sequence[Key[Any]], firsts: Sequence[int], frames: int, written: str | None, music: Music
) -> Iterator[str]:
    """One line for each.

    Args:
        keys: of the schedule.
        firsts: the first frame of each.
        frames: of the clip.
        written: the string, when it is one.
        music: what it hears.
    """
    for key, first in zip(keys, firsts, strict=True):
        if first >= frames:
            yield (
                f"key {key.written} is past the last frame, {frames - 1}: the value travels to it and is cut "
                "off on the way (Deforum drops the key, and the way with it)"
            )
    if written is not None and len(keys) > 1:
        yield from _against_deforum(keys, firsts)
    if music.assumed and _counts_beats(keys):
        yield ASSUMED


def _against_deforum(keys: Sequence[Key[Any]], firsts: Sequence[int]) -> Iterator[str]:
    """Where the same string has other values there."""
    earliest = min(range(len(keys)), key=firsts.__getitem__)
    if firsts[earliest] > 0:
        yield (
            f"there is no key at frame 0: the value of key {keys[earliest].written} holds from the start "
            "(Deforum stops with an error)"
        )
    latest = max(range(len(keys)), key=firsts.__getitem__)
    for i, key in enumerate(keys):
        if key.position.unit == "frame" and key.position.value < 0:
            yield f"key {key.written} counts from the end (Deforum never reaches it)"
        if isinstance(key.value, Expression) and i != latest and key.ease != "hold":
            yield (
                f"key {key.written}: {_short(key.value.text)} travels to the next key (Deforum holds what is "
                "not a plain number; write ease=hold for that)"
            )


def _counts_beats(keys: Sequence[Key[Any]]) -> bool:
    places = [place for key in keys for place in (key.position, key.until) if place is not None]
    return any(place.unit == "b" or str(place.source).endswith("b") for place in places) or any(
        isinstance(key.value, Expression) and {"beat", "bpm"} & key.value.uses for key in keys
    )


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:23]}…"
