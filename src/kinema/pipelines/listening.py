"""A shot brought to its music: beats become places, `audio.rms` becomes values, functions become numbers.

    shot + its sound -> the same shot, every track of which hears it

What was written stays written, so that the record makes the same clip again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any

from kinema.io.audio import Recording as Heard
from kinema.io.audio import listen
from kinema.io.audio_loop import Looped
from kinema.story.keyed import Keyed
from kinema.story.music import Music, Recording
from kinema.story.positions import FramePosition
from kinema.story.prompt_track import PromptTrack
from kinema.story.schedule_warnings import ASSUMED
from kinema.story.settings import Settings
from kinema.story.shot import Shot
from kinema.story.tracks import Schedule

_files: ContextVar[dict[str, Heard] | None] = ContextVar("sound files that were read", default=None)


def settle(
    shot: Shot, frames: int, fps: Fraction, seed: int, begin: float = 0.0
) -> tuple[Shot, tuple[str, ...]]:
    """The shot with its tempo and sound known to all its tracks, and what to tell the user about them.

    Args:
        shot: what was asked for.
        frames: of the clip.
        fps: frames per second.
        seed: that is used.
        begin: seconds of the clip since the first shot with this sound.

    Raises:
        MediaError: a sound that cannot be read.
        ConfigError: a function of the user's that gives no number.
    """
    start = begin + (shot.sound.start if shot.sound is not None else 0.0)
    music = Music(shot.bpm, _recording(shot), start)
    settled: Shot = _settled(shot, music, (frames, fps, seed))
    notes = [
        f"{name}: {warning}."
        for name, track in _tracks(settled)
        for warning in track.warnings(frames, fps, seed)
    ]
    if music.assumed:
        counted = dict.fromkeys(name for name, place in _places(shot) if place.unit == "b")
        notes += [f"{name}: {ASSUMED}." for name in counted]
    if shot.audio is not None:
        beats = "no beat in it" if music.assumed else f"{music.tempo:.4g} beats per minute"
        notes.append(f"{shot.audio}: heard from second {start:g}, {beats}.")
    return settled, tuple(notes)


@contextmanager
def each_file_once() -> Iterator[None]:
    """Inside, a sound file that several shots play is read for the first of them."""
    token = _files.set({})
    try:
        yield
    finally:
        _files.reset(token)


def _recording(shot: Shot) -> Recording | None:
    """The shot's sound as it plays."""
    if shot.audio is None:
        return None
    known = _files.get()
    recording = (known or {}).get(shot.audio) or listen(shot.audio)
    if known is not None:
        known[shot.audio] = recording
    return Looped(recording) if shot.sound is not None and shot.sound.loop else recording


def same_sound(shots: Sequence[Shot], index: int) -> int:
    """The first of the shots that plays the same sound from the same start as the shot at `index`."""
    wanted = _playing(shots[index])
    return next(i for i, shot in enumerate(shots) if _playing(shot) == wanted)


def _playing(shot: Shot) -> tuple[str | None, float]:
    return shot.audio, shot.sound.start if shot.sound is not None else 0.0


def _settled(value: Any, music: Music, clip: tuple[int, Fraction, int]) -> Any:
    """The same value, with what is in it settled; itself where nothing is."""
    if isinstance(value, Schedule):
        return value.hearing(music).frozen(*clip)
    if isinstance(value, Keyed):
        return value.hearing(music)
    if isinstance(value, FramePosition):
        return value.heard(music)
    if isinstance(value, tuple):
        return tuple(_settled(item, music, clip) for item in value)
    if isinstance(value, Settings):
        given = {name: getattr(value, name) for name in value.model_fields_set}
        changed = {name: _settled(held, music, clip) for name, held in given.items()}
        return value.model_copy(update={n: v for n, v in changed.items() if v is not given[n]})
    return value


def _tracks(value: Any, name: str = "") -> Iterator[tuple[str, Schedule]]:
    """The schedules that were given, by name."""
    if isinstance(value, Schedule):
        yield name, value
    elif isinstance(value, PromptTrack):
        for text, weight in value.mix:
            yield f"{name}.mix, weight of {text[:40]!r}", weight
    else:
        for inner, part in _given(value, name):
            yield from _tracks(part, inner)


def _places(value: Any, name: str = "") -> Iterator[tuple[str, FramePosition]]:
    """The places that were given, by the setting that has them, but for those of schedules."""
    if isinstance(value, FramePosition):
        yield name, value
    elif isinstance(value, Keyed) and not isinstance(value, Schedule):
        for key in value.keys:
            yield from ((name, place) for place in (key.position, key.until) if place is not None)
    else:
        for inner, part in _given(value, name):
            yield from _places(part, inner)


def _given(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What a setting is made of: its own settings, or its entries."""
    if isinstance(value, tuple):
        yield from ((f"{name}[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, Settings):
        dot = "." if name else ""
        for field in type(value).model_fields:
            if field in value.model_fields_set:
                yield f"{name}{dot}{field}", getattr(value, field)
