"""Sizes and lengths: what was asked for against what a model's latent grid can hold.

    T = 1 + (F - 1) / time        rows, columns = pixels / space

A clip that is extended adds whole groups: T = F / time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from kinema.core.errors import GeometryError
from kinema.io.image import read_image
from kinema.io.reader import VideoReader
from kinema.io.video_read import open_video
from kinema.pipelines.cards import ModelCard
from kinema.story.shot import Shot

MOST_LATENTS = 8_000_000
CONTEXT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """The sizes of a render.

    Attributes:
        width, height: pixels.
        frames: pixel frames that are sampled (for an extension: that are added).
        keep: pixel frames of them that are kept; fewer only where a length was rounded up.
        latent_frames: latent frames that are sampled, without `context`.
        rows, columns: of the latents.
        context: latent frames of an earlier clip held before them.
        time: pixel frames of a latent group.
        fps: frames per second, as a fraction's text.
        notes: what was rounded.
    """

    width: int
    height: int
    frames: int
    keep: int
    latent_frames: int
    rows: int
    columns: int
    context: int
    time: int
    fps: str
    notes: tuple[str, ...] = ()

    def group_starts(self) -> list[int]:
        """First pixel frame of every sampled latent frame."""
        if self.context:
            return [self.time * t for t in range(self.latent_frames)]
        return [0, *(1 + self.time * t for t in range(self.latent_frames - 1))]

    @property
    def latents(self) -> int:
        """Latent positions that the transformer sees."""
        return (self.latent_frames + self.context) * self.rows * self.columns


def plan_geometry(shot: Shot, card: ModelCard) -> Geometry:
    """The geometry of a shot on a model; `GeometryError` with the nearest legal values where it does not fit."""
    clip = _clip_of(shot)
    fps = (
        Fraction(str(shot.fps)) if shot.fps is not None else clip.fps if clip else Fraction(card.defaults.fps)
    )
    width, height = _size(shot, card, clip)
    frames, keep, notes = _length(shot, card, fps, clip)
    context = 0 if shot.extend is None else (shot.extend.context or CONTEXT)
    geometry = Geometry(
        width=width,
        height=height,
        frames=frames,
        keep=keep,
        latent_frames=frames // card.stride.time if context else card.stride.latent_frames(frames),
        rows=height // card.stride.space,
        columns=width // card.stride.space,
        context=context,
        time=card.stride.time,
        fps=str(fps),
        notes=notes,
    )
    if geometry.latents > MOST_LATENTS:
        raise GeometryError(
            f"{width}x{height} with {frames} frames is {geometry.latents:,} latents, above {MOST_LATENTS:,}; ask for a "
            "smaller size or a shorter clip."
        )
    return geometry


def _clip_of(shot: Shot) -> VideoReader | None:
    path = (
        shot.source.path if shot.source is not None else shot.extend.path if shot.extend is not None else None
    )
    return None if path is None else open_video(path)


def _size(shot: Shot, card: ModelCard, clip: VideoReader | None) -> tuple[int, int]:
    """What was asked for; else the clip's or first picture's shape at the model's own area; else the default."""
    own = card.defaults
    if shot.width is not None and shot.height is not None:
        check_multiple(shot.width, shot.height, card.multiple)
        return shot.width, shot.height
    if shot.extend is not None and clip is not None:
        check_multiple(*clip.size, card.multiple)
        return clip.size
    if not card.any_aspect:
        return own.width, own.height
    like = clip.size if clip else _picture_size(shot)
    if like is None:
        return own.width, own.height
    aspect, area = like[1] / like[0], own.width * own.height
    side: Callable[[float], int] = lambda x: max(1, int(x // card.multiple)) * card.multiple  # noqa: E731
    return side((area / aspect) ** 0.5), side((area * aspect) ** 0.5)


def _picture_size(shot: Shot) -> tuple[int, int] | None:
    if not shot.keyframes:
        return None
    height, width = read_image(shot.keyframes[0].image).shape[:2]
    return width, height


def check_multiple(width: int, height: int, multiple: int) -> None:
    """Refuse a size that is off the model's grid, naming the two nearest of each side that is."""
    if width % multiple == 0 and height % multiple == 0:
        return
    sides = []
    for name, value in (("width", width), ("height", height)):
        if value % multiple:
            low = max(multiple, value // multiple * multiple)
            sides.append(
                f"{name}={value} is not a multiple of {multiple} (nearest: {low} and {low + multiple})"
            )
    raise GeometryError(f"{'; '.join(sides)}.")


def _length(
    shot: Shot, card: ModelCard, fps: Fraction, clip: VideoReader | None
) -> tuple[int, int, tuple[str, ...]]:
    """Frames to sample, frames to keep, notes."""
    time = card.stride.time
    rest = 0 if shot.extend is not None else 1
    if shot.seconds is not None:
        wanted = Fraction(shot.seconds) * fps
        frames = max(rest + (0 if rest else time), rest + time * round((wanted - rest) / time))
        exact = frames == wanted
        note = (
            ()
            if exact
            else (f"{shot.seconds:g} s at {fps} fps is rounded to {frames} frames, a legal length.",)
        )
        return frames, frames, note
    if shot.frames is None:
        return _default_length(shot, card, clip)
    over = (shot.frames - rest) % time
    if not over and shot.frames > 0:
        return shot.frames, shot.frames, ()
    low, high = shot.frames - over, shot.frames - over + time
    if shot.length_fit:
        return high, shot.frames, (f"{high} frames are made and {shot.frames} kept.",)
    rule = f"1 + a multiple of {time}" if rest else f"a multiple of {time}"
    near = f"{low} and {high}" if low >= max(1, rest) else f"{high}"
    raise GeometryError(
        f"frames={shot.frames} is not {rule}; the nearest lengths are {near} (or let kinema round up and trim: "
        "--fit-length)."
    )


def _default_length(
    shot: Shot, card: ModelCard, clip: VideoReader | None
) -> tuple[int, int, tuple[str, ...]]:
    time, own = card.stride.time, card.defaults.frames
    if shot.extend is not None:
        return own // time * time, own // time * time, ()
    if shot.source is None or clip is None:
        return own, own, ()
    frames = card.stride.pixel_frames(card.stride.latent_frames(clip.frames))
    note = (
        ()
        if frames == clip.frames
        else (f"{frames} of the clip's {clip.frames} frames are used, a legal length.",)
    )
    return frames, frames, note
