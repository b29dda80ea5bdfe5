"""A clip on disk made larger, as a stream that keeps its sound, its times and its transparency."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.contracts import OnProgress, Progress
from kinema.io.clip import Clip
from kinema.io.reader import VideoReader
from kinema.io.video_write import MAX_FPS
from kinema.pipelines.post_record import Change, with_post
from kinema.pipelines.steady import shown_for, steady_rate
from kinema.pipelines.upscale import enlargement, upscaled
from kinema.story.upscale import Upscale

_log = logging.getLogger("kinema")


def upscale_clip(
    path: str | Path,
    wanted: Upscale,
    *,
    device: str = "auto",
    most_fps: int = MAX_FPS,
    on_progress: OnProgress | None = None,
) -> Clip:
    """A clip on disk, larger, as a stream; its record says what was done.

    Args:
        path: the clip.
        wanted: how large, and by what.
        device: where a network runs.
        most_fps: frames a second to which a clip of variable rate is brought at most; see `fastest`.
        on_progress: called with events; raise from it to stop.

    Raises:
        GeometryError, ModelError: as in `enlargement`, before a frame is read.
    """
    clip = Clip.open(path, alpha=True)
    assert isinstance(clip.frames, VideoReader), "a clip on disk"
    assert clip.size is not None
    how = enlargement(wanted, clip.size)
    counts, fps = np.ones(len(clip), int), Fraction(clip.fps)
    if (steady := steady_rate(clip.frames, most_fps)) is not None:
        counts, fps = shown_for(clip.frames, steady), steady
    total = int(counts.sum())
    if lost := int((counts == 0).sum()):
        few = f"{lost} of {len(clip)} frames begin too close to others for {fps} fps and are left out."
        _log.warning(few) if on_progress is None else on_progress(Progress("upscale", 0, total, note=few))
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
