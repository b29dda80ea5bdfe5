"""A clip on disk made larger, as a stream that keeps its sound, its times and its transparency."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.contracts import OnProgress, Progress
from kinema.io.clip import Clip
from kinema.io.reader import VideoReader
from kinema.io.steady import shown_for, steady_rate
from kinema.io.video_write import MAX_FPS
from kinema.pipelines.post_record import Change, with_post
from kinema.pipelines.upscale import Enlargement, enlargement, upscaled
from kinema.story.upscale import Upscale

_log = logging.getLogger("kinema")


def upscale_clip(
    path: str | Path,
    wanted: Upscale,
    *,
    device: str = "auto",
    most_fps: int = MAX_FPS,
    keep_for: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Clip:
    """A clip on disk, larger, as a stream; its record says what was done.

    Args:
        path: the clip.
        wanted: how large, and by what.
        device: where a network runs.
        most_fps: frames a second to which a clip of variable rate is brought at most; see `fastest`.
        keep_for: the file that it becomes: frames of a network are kept beside that; see `keeping`.
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

    def note(text: str) -> None:
        _log.warning(text) if on_progress is None else on_progress(Progress("upscale", 0, total, note=text))

    if lost := int((counts == 0).sum()):
        note(f"{lost} of {len(clip)} frames begin too close to others for {fps} fps and are left out.")
    done: dict[str, Any] = {
        "size": f"{how.size[0]}x{how.size[1]}",
        "upscale": wanted.model_dump(mode="json"),
        **({} if how.network is None else {"weights": how.weights()}),
    }
    by = Fraction(how.new_size[0], how.size[0])
    post = {} if clip.record is None else clip.record.post
    record = with_post(clip.record, Path(path), done, _change(wanted, by, enlarged=not _never_enlarged(post)))
    made = _made(Path(path), clip.frames, counts, how, device, keep_for, note)

    def draw() -> Iterator[np.ndarray]:
        return _told(_held(iter(made), counts[counts > 0]), total, on_progress or (lambda _: None))

    drawn = draw() if isinstance(made, Iterator) else _Again(draw)
    audio = tuple(replace(part, seconds=total / fps) for part in clip.audio)
    return replace(clip, frames=drawn, fps=fps, record=record, count=total, size=how.new_size, audio=audio)


def _made(
    path: Path,
    clip: VideoReader,
    counts: np.ndarray,
    how: Enlargement,
    device: str,
    keep_for: Path | None,
    note: Callable[[str], None],
) -> Iterable[np.ndarray]:
    """The frames that are shown, each once: as a stream, or kept for an output if a network makes them."""

    def source() -> Iterator[np.ndarray]:
        clip.check()
        return compress(clip, counts > 0)

    def make(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        return upscaled(frames, how, device)

    if keep_for is None or how.network is None:
        return make(source())
    from kinema.pipelines.upscale_kept import KeptFrames, frames_key, has_room, kept_path

    kept = kept_path(keep_for, frames_key(path, how, counts, device))
    size = 4 * math.prod(how.new_size) * int((counts > 0).sum())
    if not has_room(kept, size):
        note(f"frames are not kept: up to {size / 1e9:.0f} GB would take over half of what is free.")
        return make(source())
    return KeptFrames(kept, source, make, device=device, note=note)


@dataclass(frozen=True)
class _Again:
    """Frames that are drawn anew each time."""

    draw: Callable[[], Iterator[np.ndarray]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.draw()


def _held(frames: Iterator[np.ndarray], counts: np.ndarray) -> Iterator[np.ndarray]:
    for frame, count in zip(frames, counts, strict=False):
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
