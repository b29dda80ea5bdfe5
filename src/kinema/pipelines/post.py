"""A step between the shots and their file: the clip's frames brought to another rate.

file <- upscale <- interpolate <- compose <- the shots

A clip on disk of the file's rate that the first shot goes on from comes first as it is, all of its frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import ConfigError
from kinema.io.clip import Clip
from kinema.io.reader import VideoReader, nearest_frames, resample
from kinema.io.video_read import open_video
from kinema.pipelines.plan import Plan
from kinema.pipelines.post_record import with_post
from kinema.story.post import Interpolate, Method
from kinema.story.shot import Shot

Starts = Sequence[Fraction] | None
"""Of every frame of a clip of variable rate, in frames of its mean rate; None for a steady rate."""


@dataclass(frozen=True, slots=True)
class Head:
    """A clip on disk of the file's rate, which comes first as it is.

    Attributes:
        path: of the clip.
        frames: that it has at the file's rate.
        shown: frames at the rate of the shots that stand for it there; the last of them is its last.
    """

    path: str
    frames: int
    shown: int

    def late(self, old: Fraction, new: Fraction) -> Fraction:
        """Seconds from where its last frame is by the shots' rate to where it is by the file's."""
        return (self.frames - 1) / new - (self.shown - 1) / old


@dataclass(frozen=True, kw_only=True, slots=True)
class Post:
    """What is done to the frames of a clip.

    Attributes:
        old_fps, new_fps: frames per second, as fractions' texts.
        method: how frames in between are drawn.
        loop: the last frame goes on into the first.
        head: what comes first as it is; None for nothing.
    """

    old_fps: str
    new_fps: str
    method: Method
    loop: bool
    head: Head | None = None

    @property
    def ratio(self) -> Fraction:
        """New frames for an old one."""
        return Fraction(self.new_fps) / Fraction(self.old_fps)

    @property
    def late(self) -> Fraction:
        """Seconds by which new frames are seen later than by a count of all frames at the old rate."""
        if self.head is None:
            return Fraction(0)
        return self.head.late(Fraction(self.old_fps), Fraction(self.new_fps))

    def count(self, frames: int, starts: Starts = None) -> int:
        """Frames of the file; a clip keeps its first and last times, a loop its duration."""
        from kinema.animation.interpolate import count

        if self.head is None:
            return count(frames, self.ratio, loop=self.loop, starts=starts)
        return self.head.frames + self.made(frames - self.head.shown)

    def made(self, frames: int) -> int:
        """Frames of the file that are drawn from new ones; after a clip they begin beyond its last."""
        if self.head is None:
            return self.count(frames)
        return replace(self, head=None).count(frames + 1) - 1


def plan_post(shots: Sequence[Shot], fps: str, *, loop: bool) -> Post | None:
    """What the shots of one file ask for, None where it is nothing.

    Args:
        shots: of the file; all ask for the same.
        fps: at which their frames are made.
        loop: the file is one loop.

    Raises:
        ConfigError: shots that ask for different things.
    """
    asked = {shot.interpolate for shot in shots}
    if len(asked) > 1:
        raise ConfigError("one clip has one rate: write interpolate beside the shots, for all of them.")
    (wanted,) = asked
    return None if wanted is None else _post(wanted, fps, loop=loop)


def _post(wanted: Interpolate, fps: str, *, loop: bool) -> Post:
    return Post(old_fps=fps, new_fps=str(Fraction(str(wanted.fps))), method=wanted.method, loop=loop)


def after_clip(post: Post, first: Plan, leaving: int) -> Post:
    """The same, with the clip that the first plan goes on from as it is, where it has the file's rate.

    Args:
        post: what is done to the frames.
        first: plan of the first shot, which begins with a cut.
        leaving: frames at its end that the next transition takes part in.
    """
    path = first.given.extend
    if path is None or post.ratio <= 1 or leaving > first.geometry.keep:
        return post
    clip, rate = open_video(path), Fraction(post.new_fps)
    if clip.fps != rate:
        return post
    frames = len(nearest_frames(clip.times, clip.duration, rate))
    return replace(post, head=Head(path, frames, first.geometry.shown))


def finished(
    frames: Iterator[np.ndarray], post: Post | None, length: int, device: str, starts: Starts = None
) -> Iterator[np.ndarray]:
    """The frames of the file.

    Args:
        frames: uint8 `[H, W, 3 or 4]` as they are made; drawn two at a time.
        post: what is done to them.
        length: how many there are.
        device: as the shot asks for it.
        starts: of frames of a variable rate; `minterpolate` takes steady ones only.
    """
    if post is None or (post.ratio == 1 and starts is None):
        return frames
    if post.head is not None:
        return _after(post.head, frames, replace(post, head=None), length, device)
    if post.method == "minterpolate":
        from kinema.io.minterpolate import minterpolated

        around = _around(frames) if post.loop else frames
        old, new = Fraction(post.old_fps), Fraction(post.new_fps)
        return minterpolated(around, old, new, post.count(length))
    from kinema.animation.interpolate import interpolated
    from kinema.core.runtime import resolve_device

    where = resolve_device(device)
    return interpolated(frames, post.ratio, post.method, loop=post.loop, starts=starts, device=where)


def _after(
    head: Head, frames: Iterator[np.ndarray], post: Post, length: int, device: str
) -> Iterator[np.ndarray]:
    """A clip's own frames, then those drawn from its last one on."""
    yield from resample(open_video(head.path), Fraction(post.new_fps))
    onward = islice(frames, head.shown - 1, None)
    yield from islice(finished(onward, post, length - head.shown + 1, device), 1, None)


def _around(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """A loop's frames, then its first ones again, for a filter that looks ahead."""
    first = list(islice(frames, 3))
    return chain(first, frames, first)


def interpolate_clip(
    path: str | Path,
    wanted: Interpolate,
    *,
    loop: bool = False,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> Clip:
    """A clip on disk at another rate, as a stream; its record says what was done.

    Args:
        path: the clip.
        wanted: rate and method.
        loop: the last frame goes on into the first; a clip that was made as a loop stays one.
        device: where flow is computed.
        on_progress: called with events; raise from it to stop.
    """
    clip = Clip.open(path)
    loop = loop or (clip.record is not None and bool(clip.record.shot.get("loop")))
    post = _post(wanted, str(clip.fps), loop=loop)
    assert isinstance(clip.frames, VideoReader), "a clip on disk"
    starts, source = _starts(clip.frames), iter(clip)
    if post.method == "minterpolate":
        starts, source = None, resample(clip.frames, clip.frames.fps)
    total = post.count(len(clip), starts)
    setting = wanted.model_dump(mode="json")
    done = {"fps": post.old_fps, "interpolate": setting, "loop": post.loop}
    record = with_post(clip.record, Path(path), done, lambda shot: {**shot, "interpolate": setting})
    frames = finished(source, post, len(clip), device, starts)
    told = _told(frames, total, on_progress or (lambda _: None))
    fps = Fraction(post.new_fps)
    audio = tuple(replace(part, seconds=total / fps) for part in clip.audio)
    return replace(clip, frames=told, fps=fps, record=record, count=total, audio=audio)


def _starts(clip: VideoReader) -> Starts:
    """Where frames begin, if some begin half a frame or more from where a steady rate has them."""
    at_F = clip.times * float(clip.fps)
    if len(at_F) < 2 or float(np.abs(at_F - np.arange(len(at_F))).max()) < 0.5:
        return None
    return [Fraction(float(at)).limit_denominator(1_000_000) for at in at_F]


def _told(frames: Iterator[np.ndarray], total: int, on_progress: OnProgress) -> Iterator[np.ndarray]:
    for done, frame in enumerate(frames, start=1):
        on_progress(Progress("interpolate", done, total))
        yield frame
