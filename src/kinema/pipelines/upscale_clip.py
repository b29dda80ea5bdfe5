"""A clip on disk made larger, as a stream that keeps its sound, its times and its transparency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.contracts import OnProgress, Progress
from kinema.io.clip import Clip
from kinema.io.reader import VideoReader
from kinema.pipelines.post_record import Change, with_post
from kinema.pipelines.upscale import enlargement, upscaled
from kinema.story.upscale import Upscale

FASTEST = 60  # frames a second to which a clip of variable rate is brought at most
_SLACK = 2.0  # milliseconds by which a container may have rounded a time


def upscale_clip(
    path: str | Path, wanted: Upscale, *, device: str = "auto", on_progress: OnProgress | None = None
) -> Clip:
    """A clip on disk, larger, as a stream; its record says what was done.

    Args:
        path: the clip.
        wanted: how large, and by what.
        device: where a network runs.
        on_progress: called with events; raise from it to stop.

    Raises:
        GeometryError, ModelError: as in `enlargement`, before a frame is read.
    """
    clip = Clip.open(path, alpha=True)
    assert isinstance(clip.frames, VideoReader), "a clip on disk"
    assert clip.size is not None
    how = enlargement(wanted, clip.size)
    counts, fps = np.ones(len(clip), int), Fraction(clip.fps)
    if (steady := steady_rate(clip.frames)) is not None:
        counts, fps = shown_for(clip.frames, steady), steady
    total = int(counts.sum())
    done: dict[str, Any] = {
        "size": f"{how.size[0]}x{how.size[1]}",
        "upscale": wanted.model_dump(mode="json"),
        **({} if how.network is None else {"weights": how.weights()}),
    }
    by = Fraction(how.new_size[0], how.size[0])
    post = {} if clip.record is None else clip.record.post
    record = with_post(clip.record, Path(path), done, _change(wanted, by, enlarged=not _never_enlarged(post)))
    made = _told(upscaled(_held(clip.frames, counts), how, device), total, on_progress or (lambda _: None))
    audio = tuple(replace(part, seconds=total / fps) for part in clip.audio)
    return replace(clip, frames=made, fps=fps, record=record, count=total, size=how.new_size, audio=audio)


def steady_rate(clip: VideoReader) -> Fraction | None:
    """The rate at which frames of a variable one can be repeated so that each begins at its time.

    None for a steady clip: every frame begins within half a frame of where its mean rate has it. The lowest
    whole rate that has all beginnings is taken, and 60 frames a second where there is none up to that.
    """
    starts, fps = clip.times, float(clip.fps)
    if len(starts) < 2 or float(np.abs(starts * fps - np.arange(len(starts))).max()) < 0.5:
        return None
    for rate in range(1, FASTEST):
        off = np.abs(starts * rate - np.round(starts * rate)) / rate
        apart = np.diff(np.round(starts * rate)).min()
        if float(off.max()) * 1000 <= _SLACK and apart >= 1:
            return Fraction(rate)
    return Fraction(FASTEST)


def shown_for(clip: VideoReader, fps: Fraction) -> np.ndarray:
    """How many frames of a steady rate each frame of a clip lasts: until the next begins; int64 `[F]`."""
    ends = np.append(clip.times[1:], clip.duration)
    counts = np.diff(np.round(ends * float(fps)).astype(int), prepend=0)
    if not counts.any():
        counts[0] = 1
    return counts


def _held(clip: VideoReader, counts: np.ndarray) -> Iterator[np.ndarray]:
    for frame, count in zip(clip, counts, strict=False):
        for _ in range(count):
            yield frame


def _told(frames: Iterator[np.ndarray], total: int, on_progress: OnProgress) -> Iterator[np.ndarray]:
    for done, frame in enumerate(frames, start=1):
        on_progress(Progress("upscale", done, total))
        yield frame


def _never_enlarged(post: Any) -> bool:
    """Whether frames were never made larger: those of a render that was cancelled before that."""
    while isinstance(post, Mapping) and "upscale" not in post:
        if "partial" in post:
            return True
        post = post.get("before")
    return False


def _change(wanted: Upscale, by: Fraction, *, enlarged: bool) -> Change:
    """Gives a shot whose file is `by` times as large; its own setting counts if that `enlarged` it.

    Where no single setting says both, or the shot's own is none, there is no such shot.
    """

    def changed(shot: Mapping[str, Any]) -> Mapping[str, Any] | None:
        after = wanted
        if enlarged and shot.get("upscale"):
            try:
                before = Upscale.model_validate(shot["upscale"])
                if before.scale is None:  # a network's own, which only its file tells
                    return None
                model = wanted.model or before.model
                after = Upscale(scale=before.scale * by, method=wanted.method, model=model)
                if Upscale(**after.model_dump(mode="json")) != after:
                    return None
            except ValueError:
                return None
        return {**shot, "upscale": after.model_dump(mode="json")}

    return changed
