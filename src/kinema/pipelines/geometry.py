"""Sizes and lengths: what was asked for against what a model's latent grid can hold.

    T = 1 + (F - 1) / time        rows, columns = pixels / space

A clip that is extended adds whole groups, and a loop has no first frame: T = F / time.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from kinema.core.contracts import Stride
from kinema.core.errors import GeometryError
from kinema.io.image import read_image
from kinema.io.reader import VideoReader, leading_up, nearest_frames
from kinema.io.video_read import open_video
from kinema.pipelines.card import ModelCard
from kinema.story.shot import MAX_FRAMES, Extend, Shot

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
        first: place in the whole clip of the first latent frame that is sampled.
        shown: pixel frames of the clip on disk that is extended, at this rate; they come first.
        time: pixel frames of a latent group.
        fps: frames per second, as a fraction's text.
        carried: latent frames of the earlier clip that go on to the decoder, those held among them.
        loop: the last frame is followed by the first.
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
    first: int
    shown: int
    time: int
    fps: str
    carried: int = 0
    loop: bool = False
    notes: tuple[str, ...] = ()

    @property
    def lone(self) -> bool:
        """The first latent frame stands for one pixel frame: the clip begins with it."""
        return not (self.context or self.loop)

    def group_of(self, frame: int) -> int:
        """The sampled latent frame that pixel frame `frame` lands in."""
        return Stride(self.time, 1).group_of(frame) if self.lone else frame // self.time

    def group_starts(self) -> list[int]:
        """First pixel frame of every sampled latent frame."""
        if not self.lone:
            return [self.time * t for t in range(self.latent_frames)]
        return [0, *(1 + self.time * t for t in range(self.latent_frames - 1))]

    @property
    def latents(self) -> int:
        """Latent positions that the transformer sees."""
        return (self.latent_frames + self.context) * self.rows * self.columns


def per_latent(values_F: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float64]:
    """Values per pixel frame `[F, ...]` as means over each latent frame's group `[T, ...]`.

    Frames beyond the last value (a length that was rounded up) repeat it.
    """
    starts = geometry.group_starts()
    rows = [
        values_F[min(a, len(values_F) - 1) : max(b, a + 1)]
        for a, b in zip(starts, [*starts[1:], geometry.frames], strict=True)
    ]
    return np.stack([row.mean(axis=0) if len(row) else values_F[-1] for row in rows])


def plan_geometry(shot: Shot, card: ModelCard, after: Geometry | None = None) -> Geometry:
    """The geometry of a shot on a model.

    Args:
        shot: what was asked for.
        card: of the model.
        after: geometry of the shot before in a storyboard, whose size and rate this one takes over.

    Raises:
        GeometryError: size or length do not fit; the message names the nearest that do.
        MediaError: a clip or picture whose size is asked for cannot be read.
    """
    clip = _clip_of(shot, card, after)
    fps = _rate(shot, card, clip, after)
    width, height = _size(shot, card, clip, after)
    frames, keep, notes = _length(shot, card, fps, clip)
    if shot.source is not None and clip is not None:
        notes += _stands_still(clip, fps, keep)
    extend = shot.extend
    shown = 0
    if extend is not None and clip is not None:
        shown, more = _shown(extend, clip, fps)
        notes += more
    have = 0 if extend is None else _there(card, shown, after)
    context = 0 if extend is None else _context(extend, card, have, shown)
    geometry = Geometry(
        width=width,
        height=height,
        frames=frames,
        keep=keep,
        latent_frames=frames // card.stride.time
        if context or shot.loop
        else card.stride.latent_frames(frames),
        rows=height // card.stride.space,
        columns=width // card.stride.space,
        context=context,
        carried=min(2 * context, have),
        first=0 if extend is None else _frames_before(card, shown, after),
        shown=shown,
        time=card.stride.time,
        fps=str(fps),
        loop=shot.loop,
        notes=notes,
    )
    # frames with latents of their own are drawn one by one: memory does not grow with their number
    together = geometry.latents if geometry.time > 1 else geometry.rows * geometry.columns
    if together > MOST_LATENTS:
        raise GeometryError(
            f"{width}x{height} with {frames} frames is {together:,} latents, above {MOST_LATENTS:,}; "
            "ask for a smaller size or a shorter clip."
        )
    return geometry


def _shown(extend: Extend, clip: VideoReader, fps: Fraction) -> tuple[int, tuple[str, ...]]:
    """Frames of the clip on disk at the rate it goes on at, and a note where these are not its own."""
    indices = leading_up(clip, fps)
    if fps != clip.fps:
        note = f"{extend.path} plays at {clip.fps} fps; the new frames are made at {fps}."
    elif np.array_equal(indices, np.arange(clip.frames)):
        return len(indices), ()
    else:
        note = f"{extend.path} has a variable rate; it is brought to {fps} fps, each frame at its time."
    return len(indices), (note,)


def _there(card: ModelCard, shown: int, after: Geometry | None) -> int:
    """Latent frames of the clip that is extended which can be held."""
    if shown:
        return card.stride.latent_frames(shown)
    assert after is not None, "a storyboard's first shot extends no other"
    return _left_by(after, card)


def _context(extend: Extend, card: ModelCard, have: int, shown: int) -> int:
    """Latent frames of the earlier clip that are held: what was asked for, or as many as is usual."""
    if shown:
        # its first latent frame stands for one frame, the others for a group; only groups are asked for
        most, what = max(have - 1, 1), f"the clip's {have - 1} whole latent frames"
    else:
        most, what = have, f"the {have} latent frames that the shot before leaves"
    if extend.context is None:
        return 1 if card.family == "foreign" else min(CONTEXT, have)
    if extend.context > most:
        raise GeometryError(f"context={extend.context} is more than {what}; write at most {most}.")
    return extend.context


def _left_by(after: Geometry, card: ModelCard) -> int:
    """Latent frames of the shot before: its own after those it carried on, or those of its pictures."""
    if card.family == "foreign" or 1 in (after.time, card.stride.time):  # these leave only pictures
        return card.stride.latent_frames(after.shown + after.keep)
    return after.carried + after.latent_frames


def _frames_before(card: ModelCard, shown: int, after: Geometry | None) -> int:
    """Latent frames of the clip that is extended."""
    if shown:
        return card.stride.latent_frames(shown)
    assert after is not None, "a storyboard's first shot extends no other"
    return after.first + after.latent_frames


def _clip_of(shot: Shot, card: ModelCard, after: Geometry | None) -> VideoReader | None:
    """The clip on disk that the shot starts or goes on from; stills have the rate that is asked for."""
    rate = Fraction(shot.fps or (after.fps if after is not None else card.defaults.fps))
    if shot.source is not None:
        return open_video(shot.source.path, still_fps=rate)
    if shot.extend is not None and not shot.extend.previous:
        return open_video(shot.extend.path, still_fps=rate)
    return None


def _rate(shot: Shot, card: ModelCard, clip: VideoReader | None, after: Geometry | None) -> Fraction:
    """What was asked for; else that of the shot before or of the clip; else the model's."""
    own = after.fps if after is not None else clip.fps if clip is not None else card.defaults.fps
    if shot.fps is None:
        return Fraction(own)
    asked = Fraction(shot.fps)
    if after is not None and asked == Fraction(after.fps):  # what the shot has too where it says nothing
        return asked
    if shot.extend is not None and clip is not None and asked != clip.fps:
        drawn = None if shot.interpolate is None else Fraction(shot.interpolate.fps)
        if drawn == clip.fps and asked < drawn:
            return asked
        way = f", or add interpolate: {clip.fps}, which draws frames in between" * (asked < clip.fps)
        raise GeometryError(
            f"fps={asked} is not the rate of {shot.extend.path} ({clip.fps}), and a clip that goes on "
            f"keeps its own; leave fps out{way}."
        )
    return asked


def _size(shot: Shot, card: ModelCard, clip: VideoReader | None, after: Geometry | None) -> tuple[int, int]:
    """What was asked for; a side that was left out follows from the shape that the shot has by itself."""
    if shot.extend is not None and clip is not None:
        return _kept_size(shot, shot.extend.path, clip, card)
    width, height = shot.width, shot.height
    if width is None or height is None:
        own = (after.width, after.height) if after is not None else _own_size(shot, card, clip)
        if width is not None:
            height = _on_grid(width * own[1] / own[0], card.multiple)
        elif height is not None:
            width = _on_grid(height * own[0] / own[1], card.multiple)
        else:
            width, height = own
    check_multiple(width, height, card.multiple)
    return width, height


def _kept_size(shot: Shot, path: str, clip: VideoReader, card: ModelCard) -> tuple[int, int]:
    """The size of a clip that is extended; another cannot be asked for."""
    width, height = clip.size
    if (shot.width or width, shot.height or height) != clip.size:
        raise GeometryError(
            f"{shot.width or width}x{shot.height or height} is not the size of {path} ({width}x{height}), "
            "and a clip that goes on keeps its own; leave the size out."
        )
    check_multiple(width, height, card.multiple)
    return clip.size


def _own_size(shot: Shot, card: ModelCard, clip: VideoReader | None) -> tuple[int, int]:
    """The clip's or first picture's shape at the model's own area where it takes any; else the default."""
    own = card.defaults
    like = (clip.size if clip else _picture_size(shot)) if card.any_aspect else None
    if like is None:
        return own.width, own.height
    return ROUNDINGS[card.rounding](like, own.width * own.height, card.multiple)


def _each_rounded(like: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """Each side by itself, as in diffusers' examples."""
    aspect = like[1] / like[0]
    return _on_grid((area / aspect) ** 0.5, multiple), _on_grid((area * aspect) ** 0.5, multiple)


def _each_floored(like: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """The same without rounding to whole pixels first, as Wan's `image2video.py` does."""
    aspect = like[1] / like[0]
    width, height = (area / aspect) ** 0.5, (area * aspect) ** 0.5
    return int(width // multiple) * multiple, int(height // multiple) * multiple


def _nearest_ratio(like: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """One side floored, the other from the area that is left; of both ways the one that keeps the shape
    better, as Wan 2.2's `best_output_size` does."""
    ratio = like[0] / like[1]
    width = (area * ratio) ** 0.5
    height = area / width
    wide = int(width // multiple) * multiple
    high = int(height // multiple) * multiple
    by_width = wide, int(area / wide // multiple) * multiple
    by_height = int(area / high // multiple) * multiple, high

    def off(size: tuple[int, int]) -> float:
        found = size[0] / size[1]
        return max(ratio / found, found / ratio)

    return by_width if off(by_width) < off(by_height) else by_height


ROUNDINGS = {"diffusers": _each_rounded, "wan": _each_floored, "wan-ratio": _nearest_ratio}


def _on_grid(pixels: float, multiple: int) -> int:
    """The largest legal side that is not longer, as diffusers' Wan examples round it."""
    return max(1, round(pixels) // multiple) * multiple


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
    rest = 0 if shot.extend is not None or shot.loop else 1
    if shot.seconds is not None:
        return _from_seconds(shot.seconds, fps, rest, time)
    if shot.frames is None:
        return _default_length(shot, card, fps, clip)
    over = (shot.frames - rest) % time
    if not over and shot.frames > 0:
        return shot.frames, shot.frames, ()
    low, high = shot.frames - over, shot.frames - over + time
    if shot.length_fit and not shot.loop:
        return high, shot.frames, (f"{high} frames are made and {shot.frames} kept.",)
    rule = f"1 + a multiple of {time}" if rest else f"a multiple of {time}"
    legal = [length for length in (low, high) if max(1, rest) <= length <= MAX_FRAMES]
    near = f"nearest length{'s are' * (len(legal) > 1) or ' is'} {' and '.join(map(str, legal))}"
    if shot.loop:
        raise GeometryError(f"frames={shot.frames} is not {rule}, as a loop's; the {near}.")
    raise GeometryError(
        f"frames={shot.frames} is not {rule}; the {near} (or let kinema round up and trim: length_fit)."
    )


def _from_seconds(seconds: float, fps: Fraction, rest: int, time: int) -> tuple[int, int, tuple[str, ...]]:
    wanted = Fraction(seconds) * fps
    frames = max(rest or time, rest + time * round((wanted - rest) / time))
    rounded = f"{seconds:g} s at {fps} fps is rounded to {frames} frame{'s' * (frames > 1)}, a legal length."
    return frames, frames, () if frames == wanted else (rounded,)


def _default_length(
    shot: Shot, card: ModelCard, fps: Fraction, clip: VideoReader | None
) -> tuple[int, int, tuple[str, ...]]:
    time, own = card.stride.time, card.defaults.frames
    if shot.source is None or clip is None:
        own = own // time * time if shot.extend is not None or shot.loop else own
        return own, own, ()
    there = _frames_at(clip, fps)
    frames = card.stride.pixel_frames(card.stride.latent_frames(there))
    if shot.loop:
        frames = max(there // time, 1) * time
    cut = f"{frames} of the clip's {there} frames at {fps} fps are used, a legal length."
    return frames, frames, (cut,) if frames < there else ()


def _frames_at(clip: VideoReader, fps: Fraction) -> int:
    """How many frames the clip has when it plays at this rate."""
    return len(nearest_frames(clip.times, clip.duration, fps))


def _stands_still(clip: VideoReader, fps: Fraction, keep: int) -> tuple[str, ...]:
    """A note when a clip that is made over ends before the frames do."""
    there = _frames_at(clip, fps)
    if there >= keep:
        return ()
    return (f"the source ends before frame {there}; from there on its last picture stands still.",)
