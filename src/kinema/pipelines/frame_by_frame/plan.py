"""The numbers of frame-by-frame mode: which frames are drawn, and each of them's strength, seeds and touches.

Everything here follows from the shot and its length alone, seeds included, so that a render that goes on
after an interruption needs no memory of the random choices before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinema.core.contracts import Stride
from kinema.core.errors import ConfigError, about
from kinema.io.formats import STILLS
from kinema.io.image import read_image
from kinema.io.video_read import open_video
from kinema.pipelines.card import Mode, ModelCard
from kinema.pipelines.geometry import Geometry
from kinema.pipelines.given import LEAST_CHANGE, Given, HeldImage
from kinema.story.redraw import BARS, RANGES, Redraw, check_range
from kinema.story.seeds import Dialect, seeds
from kinema.story.shot import Shot
from kinema.story.tracks import Schedule

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stroke:
    """The numbers of one drawn frame.

    Attributes:
        frame: which.
        strength: share of the canvas that may change; 0 shows the canvas, 1 ignores it.
        steps: of a whole drawing.
        solver: by name.
        seeds: two, and the share of the second's noise.
        noise, noise_multiplier, contrast, sharpen, blur, colour_window, mask_feather: see `story.redraw`.
        guides: index of a held picture in the plan's `given.held`, and its share of the canvas.
        exact: index of a held picture that the frame shows as it is; None for none.
    """

    frame: int
    strength: float
    steps: int
    solver: str
    seeds: tuple[int, int, float]
    noise: float
    noise_multiplier: float
    contrast: float
    sharpen: float
    blur: float
    colour_window: float
    mask_feather: float
    guides: tuple[tuple[int, float], ...] = ()
    exact: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RedrawPlan:
    """What the loop of frame-by-frame mode needs beside the plan.

    Attributes:
        strokes: the drawn frames, in order; the first is frame 0, the last the clip's last frame.
        noise_kind, sharpen_radius, sharpen_threshold, colour, colour_from, mask, mask_invert, holes: see
            `story.redraw`.
    """

    strokes: tuple[Stroke, ...]
    noise_kind: str
    sharpen_radius: float
    sharpen_threshold: float
    colour: str
    colour_from: str
    mask: str | None
    mask_invert: bool
    holes: str

    @property
    def travels(self) -> bool:
        """Noise goes from seed to seed."""
        return any(stroke.seeds[0] != stroke.seeds[1] for stroke in self.strokes)

    @property
    def independent(self) -> bool:
        """No frame sees the one before."""
        return all(stroke.strength == 1.0 and not stroke.guides for stroke in self.strokes)


def is_frame_by_frame(shot: Shot, card: ModelCard) -> bool:
    """Whether frames are drawn one after the other; a single picture of an image model is drawn so too.

    Raises:
        ModelError: a checkpoint that cannot do the shot's mode.
    """
    if shot.mode == "joint" and not (card.family == "image" and shot.frames == 1):
        return False
    card.require("frame_by_frame")
    return True


def one_frame_card(shot: Shot, card: ModelCard) -> ModelCard:
    """The card of the same model when it draws single pictures: every pixel frame has its own latents.

    Raises:
        ConfigError: the shot asks for something that only frames made together have.
    """
    if shot.source is not None:
        raise ConfigError(
            "source is made over as a whole clip, in mode: joint; in mode: frame_by_frame give one of its "
            "frames as a keyframe instead."
        )
    modes = frozenset[Mode]({"text", "image", "first", "last", "keyframes", "strength", "extend"})
    return replace(card, stride=Stride(1, card.stride.space), modes=modes | {"frame_by_frame"})


def plan_redraw(
    shot: Shot,
    geometry: Geometry,
    given: Given,
    *,
    seed: int,
    steps: int,
    solver: str,
    known_solver: Callable[[str], str],
) -> RedrawPlan:
    """The numbers of every drawn frame.

    Args:
        shot: in mode `frame_by_frame`.
        geometry: with one latent frame per pixel frame.
        given: whose held pictures are the keyframes.
        seed, steps, solver: of the shot, resolved.
        known_solver: a solver's name as it is; `ConfigError` for one that the model has not.

    Raises:
        ConfigError: a schedule leaves its range, or settings contradict each other.
        MediaError: a mask or a colour reference that cannot be read.
    """
    redraw = shot.redraw or Redraw.make()
    _check_files(redraw)
    frames, fps = geometry.keep, Fraction(geometry.fps)
    tracks = {name: _values(redraw, name, frames, fps, seed) for name in RANGES if name not in ("seeds",)}
    drawn = drawn_frames(tracks["cadence"], [held.frame for held in given.held])
    chosen = _seeds(redraw, shot.dialect, seed, drawn, frames, fps)
    names = redraw.solver.sample(frames, fps, seed) if redraw.solver is not None else (solver,) * frames
    names = tuple(known_solver(name) for name in names)
    whole = int if shot.dialect == "deforum" else round  # there a scheduled count loses its fraction
    outpainted = redraw.mask == BARS
    if outpainted and (shot.fit != "pad" or not given.held):
        raise ConfigError(
            "mask: bars is what a keyframe of another shape leaves open; add fit: pad, and a "
            "keyframe at frame 0."
        )
    rates = _guides(given.held, drawn, redraw.approach)
    strokes = [
        Stroke(
            frame=frame,
            strength=1.0
            if outpainted and _exact(frame, given.held) is not None
            else _strength(frame, float(tracks["strength"][frame]), given),
            steps=steps if redraw.steps is None else whole(tracks["steps"][frame]),
            solver=names[frame],
            seeds=chosen[i],
            **{name: float(tracks[name][frame]) for name in _TOUCHES},
            guides=rates[i],
            exact=None if outpainted else _exact(frame, given.held),
        )
        for i, frame in enumerate(drawn)
    ]
    return RedrawPlan(
        strokes=tuple(strokes), **{name: getattr(redraw, name) for name in RedrawPlan.__slots__[1:]}
    )


def _check_files(redraw: Redraw) -> None:
    """What cannot be read is refused now, not after the model has loaded."""
    for path in redraw.files:
        if path == redraw.mask and Path(path).suffix.lower() not in STILLS:
            open_video(path)
        else:
            read_image(path)


_TOUCHES = ("noise", "noise_multiplier", "contrast", "sharpen", "blur", "colour_window", "mask_feather")


def drawn_frames(cadence_F: Values, held: Sequence[int]) -> tuple[int, ...]:
    """The frames that are drawn: the first, then every so many, those with a picture, and the last.

    Args:
        cadence_F: at a drawn frame, how many frames on the next one is, rounded.
        held: frames of keyframes.
    """
    last, frame, found = len(cadence_F) - 1, 0, {0, *held}
    while frame < last:
        step = frame + round(cadence_F[frame])
        # a keyframe on the way is drawn too, and the count goes on from it
        frame = min([step, last, *(h for h in held if frame < h < step)])
        found.add(frame)
    return tuple(sorted(found))


def _values(redraw: Redraw, name: str, frames: int, fps: Fraction, seed: int) -> Values:
    track: Schedule | None = getattr(redraw, name)
    if track is None:
        return np.ones(frames)
    with about(f"redraw.{name}"):
        values_F = track.sample(frames, fps, seed)
    check_range(name, values_F)
    return values_F


def _strength(frame: int, strength: float, given: Given) -> float:
    """A clip's first frame has nothing before it: it is drawn from noise, or from its own keyframe.

    What a formula comes to where it means 0 (`sin(pi)` is 1e-16) is 0.
    """
    if not frame and given.extend is None:
        strength = next((1 - h.strength for h in given.held if h.frame == 0), 1.0)
    return strength if strength >= LEAST_CHANGE else 0.0


def _exact(frame: int, held: Sequence[HeldImage]) -> int | None:
    return next((i for i, h in enumerate(held) if h.frame == frame and h.strength == 1.0), None)


def _guides(
    held: Sequence[HeldImage], drawn: Sequence[int], approach: int
) -> list[tuple[tuple[int, float], ...]]:
    """Which pictures are mixed into the canvas of each drawn frame, and with what share.

    Over the frames before its keyframe a picture's share of the canvas shall rise in a straight line to its
    strength. The canvas has what was mixed in before, so each frame adds only what is missing:

        w = (share - share before) / (1 - share before)
    """
    rates: list[tuple[tuple[int, float], ...]] = []
    for i, frame in enumerate(drawn):
        found = []
        for k, picture in enumerate(held):
            before = _share(picture, drawn[i - 1], approach) if i else 0.0
            share = _share(picture, frame, approach)
            if frame == picture.frame == 0:
                found.append((k, 1.0))  # there is nothing before it: what a mask keeps is this picture's
            elif share > before:
                found.append((k, (share - before) / (1 - before)))
        rates.append(tuple(found))
    return rates


def _share(picture: HeldImage, frame: int, approach: int) -> float:
    if frame > picture.frame:
        return 0.0
    return picture.strength * max(0.0, 1 - (picture.frame - frame) / (approach + 1))


def _seeds(
    redraw: Redraw, dialect: Dialect, seed: int, drawn: Sequence[int], frames: int, fps: Fraction
) -> list[tuple[int, int, float]]:
    """Two seeds of every drawn frame, and the share of the second."""
    if redraw.seed == "travel":
        assert redraw.seeds is not None, "checked when the settings were made"
        return _travelled(redraw.seeds, drawn, frames, fps, seed)
    values = None
    if redraw.seeds is not None:
        with about("redraw.seeds"):
            values_F = redraw.seeds.sample(frames, fps, seed)
        check_range("seeds", values_F)
        values = [float(values_F[frame]) for frame in drawn]
    found = seeds(redraw.seed, seed, len(drawn), every=redraw.seed_every, schedule=values, dialect=dialect)
    return [(one, one, 0.0) for one in found]


def _travelled(
    track: Schedule, drawn: Sequence[int], frames: int, fps: Fraction, seed: int
) -> list[tuple[int, int, float]]:
    """From the seed of one key to that of the next, by the first key's easing."""
    track = track.keyed(frames, fps, seed)
    segments = track.segments(frames, fps)
    at_key = [float(track.sample(frames, fps, seed)[frame]) for frame in segments.frame_K]
    for value in at_key:
        if value < 0 or value != round(value):
            raise ConfigError(f"seeds has {value:g} at a key; travel goes between whole seeds from 0 on.")
    return [
        (
            int(at_key[segments.left_F[frame]]),
            int(at_key[segments.right_F[frame]]),
            float(np.clip(segments.travelled_F[frame], 0.0, 1.0)),
        )
        for frame in drawn
    ]
