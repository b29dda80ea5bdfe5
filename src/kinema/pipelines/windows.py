"""Which windows a long clip is sampled in: from its length, what the model learned, and where prompts turn.

    length   what the model learned, or what was asked for
    overlap  two fifths of it, and no less than the longest turn from prompt to prompt that fits,
             so that some window sees each turn whole

A clip no longer than the model has no windows, and a loop always has them: they go around.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from kinema.core.errors import ConfigError, GeometryError, ModelError
from kinema.diffusion.coverage import Continued, Fused
from kinema.pipelines.card import ModelCard
from kinema.pipelines.geometry import Geometry
from kinema.story.shot import Shot
from kinema.story.window import MAX_LENGTH, Windows

USUAL = 0.4  # share of a window that overlaps; a third to a half is what context-window samplers use
Cover = Fused | Continued


def plan_windows(
    shot: Shot, card: ModelCard, geometry: Geometry, weights_TK: Sequence[Sequence[float]]
) -> tuple[Cover | None, tuple[str, ...]]:
    """The windows of a shot, None where one forward sees the whole clip, and what the user should know.

    Args:
        shot: what was asked for.
        card: of its model.
        geometry: of the shot.
        weights_TK: share of each prompt in each new latent frame.

    Raises:
        GeometryError: a window or an overlap that is off the model's grid.
        ConfigError: an overlap that is no shorter than the window.
        ModelError: windows or a loop that the model cannot do.
    """
    asked = shot.windows or Windows.make()
    total = geometry.latent_frames + geometry.context
    learned = _latents(card.defaults.frames, card)
    length = learned if asked.length is None else _window_latents(asked.length, card, total + geometry.loop)
    if geometry.loop:
        _check_loop(card)
    elif asked.kind == "whole" or _fits(geometry, total, length, asked):
        return None, _whole_note(geometry, learned, card)
    if asked.kind == "continue":
        card.require("extend")
    length = min(length, total + geometry.loop)
    overlap = _overlap(asked, length, geometry, weights_TK)
    if asked.kind == "continue":
        return Continued(total=total, length=length, overlap=overlap), ()
    cover = Fused(
        total=total,
        length=length,
        overlap=overlap,
        weights=asked.weights,
        places=asked.places,
        lead=min(overlap, 1) if geometry.time > 1 else 0,
        loop=geometry.loop,
    )
    return cover, (*_crowd_note(cover, geometry, weights_TK), *_shift_note(shot, cover))


def refuse_windows(shot: Shot) -> None:
    """Frames that are drawn one by one are never sampled together."""
    for name in ("loop", "windows"):
        if getattr(shot, name):
            raise ConfigError(f"{name} is for mode: joint, where frames are sampled together; leave it out.")


def _check_loop(card: ModelCard) -> None:
    if card.mechanism == "channels":
        raise ModelError(
            f"model {card.id!r} begins with its picture, so its clips cannot be loops; "
            "use --model embedded, a Wan T2V or a Wan 2.2 TI2V checkpoint."
        )


def _fits(geometry: Geometry, total: int, length: int, asked: Windows) -> bool:
    """One forward sees it all; what is held in front does not count, unless a length was asked for."""
    return total <= length or (asked.length is None and geometry.latent_frames <= length)


def _whole_note(geometry: Geometry, learned: int, card: ModelCard) -> tuple[str, ...]:
    if geometry.latent_frames <= learned:
        return ()
    note = (
        f"{geometry.frames} frames are sampled at once by a model that learned {card.defaults.frames}; "
        "beyond that it is on its own: windows: fuse keeps to what it knows."
    )
    return (note,)


def _latents(frames: int, card: ModelCard) -> int:
    return card.stride.latent_frames(frames)


def _window_latents(frames: int, card: ModelCard, clip: int) -> int:
    """In latent frames; `clip` are those of a window that sees all of the clip."""
    time = card.stride.time
    over = (frames - 1) % time
    if over or frames == 1:
        low = max(frames - over, 1 + time)
        most = 1 + time * min(max(clip - 1, 1), (MAX_LENGTH - 1) // time)
        raise GeometryError(
            f"windows.length={frames} is not 1 + a multiple of {time} above 1; "
            f"{_nearest((low, low + time), most=most)}."
        )
    return _latents(frames, card)


def _overlap(asked: Windows, length: int, geometry: Geometry, weights_TK: Sequence[Sequence[float]]) -> int:
    """In latent frames."""
    if asked.overlap is None:
        if asked.kind == "continue":
            return max(1, min(2, length - 1))
        return min(length - 1, max(1, round(USUAL * length), longest_turn(weights_TK, length - 2)))
    latents, over = divmod(asked.overlap, geometry.time)
    most = (length - 1) * geometry.time
    if latents >= length or not most:
        raise ConfigError(
            f"windows.overlap={asked.overlap} leaves nothing of a window of {length} latent frames; "
            + (f"write at most {most}." if most else "make it longer.")
        )
    if over or not latents:
        near = max(1, latents) * geometry.time
        raise GeometryError(
            f"windows.overlap={asked.overlap} is not a multiple of {geometry.time} above 0; "
            f"{_nearest((near, near + geometry.time), most=most)}."
        )
    return latents


def _nearest(lengths: Sequence[int], *, most: int) -> str:
    """Legal values beside one that is not, no larger than the clip or the window has any use for."""
    legal = dict.fromkeys(min(length, most) for length in lengths)
    verb = "nearest are" if len(legal) > 1 else "nearest is"
    return f"the {verb} {' and '.join(map(str, legal))}"


def longest_turn(weights_TK: Sequence[Sequence[float]], most: int) -> int:
    """The longest run, up to `most`, of latent frames in which several prompts act; 0 where none does."""
    mixed = (sum(weight > 0 for weight in row) > 1 for row in weights_TK)
    runs = [len(list(run)) for several, run in groupby(mixed) if several]
    return max((run for run in runs if run <= most), default=0)


def _shift_note(shot: Shot, cover: Fused) -> tuple[str, ...]:
    """Where a cache finds less, since what a window has computed is kept for its place."""
    shifts = any(cover.windows(0, step) != cover.windows(0, 0) for step in (1, 2))
    if shot.shortcuts is None or not shot.shortcuts.acts or not shifts:
        return ()
    note = (
        "the windows shift at every step, and a forward is carried on only from one at the same place: fewer "
        "are left out, and from steps further back; windows: {places: static} leaves out more."
    )
    return (note,)


def _crowd_note(cover: Fused, geometry: Geometry, weights_TK: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """Where keys are so close that a window has to show more than one turn."""
    rows = [*[weights_TK[0]] * geometry.context, *weights_TK]
    most = max(
        len({k for f in window.frames for k, weight in enumerate(rows[f]) if weight > 0})
        for window in cover.windows(0, 0)
    )
    if most <= 2:
        return ()
    note = (
        f"{most} prompts meet in one window of {geometry.time * cover.length} frames, and the model learned "
        f"clips of one; keys further apart are followed better."
    )
    return (note,)
