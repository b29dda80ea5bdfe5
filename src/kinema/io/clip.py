"""A clip: frames, their rate, and the record of how they were made."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from kinema.core.contracts import Record
from kinema.core.errors import MediaError
from kinema.io.formats import STILLS, Quality
from kinema.io.mux import AudioPart, sound_of
from kinema.io.names import frames_of, is_numbered
from kinema.io.picture_read import StillsReader
from kinema.io.reader import VideoReader
from kinema.io.steady import shown_for, steady_rate
from kinema.io.video_read import open_video
from kinema.io.video_write import FrameRate, OnNote, OnReady, fastest, parse_fps, write_video

_log = logging.getLogger("kinema.io")


class SaveOptions(TypedDict, total=False):
    """What `Clip.save` passes on to `write_video`."""

    overwrite: bool
    sidecar: bool
    quality: Quality
    codec: str | None
    on_note: OnNote | None
    on_ready: OnReady | None
    claimed: bool


@dataclass(eq=False)
class Clip:
    """Frames in memory, or a stream of frames that can be drawn once.

    Attributes:
        frames: uint8 `[F, H, W, 3 or 4]`, or an iterable of uint8 `[H, W, 3 or 4]`.
        fps: frames per second; anything that `parse_fps` takes, a Fraction afterwards.
        record: what the file will remember; None for clips that kinema did not make.
        latents: the latents behind the frames, when they were kept.
        count: number of frames; needed for a stream, else taken from the array.
        size: (width, height); needed for a stream, else taken from the array.
        audio: what is heard when it is saved.
        notes: what is told when it is saved: of its file, that sound had to be left out.
    """

    frames: np.ndarray | Iterable[np.ndarray]
    fps: FrameRate
    record: Record | None = None
    latents: Any = field(default=None, repr=False)
    count: int | None = None
    size: tuple[int, int] | None = None
    audio: Sequence[AudioPart] = field(default=(), repr=False)
    notes: Sequence[str] = field(default=(), repr=False)
    _drawn: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.fps = parse_fps(self.fps)
        if isinstance(self.frames, np.ndarray):
            self._take_array(self.frames)

    @staticmethod
    def open(path: str | Path, *, still_fps: FrameRate = 24, alpha: bool = False) -> Clip:
        """A clip on disk as a stream of RGB frames, with its record and its sound.

        Args:
            path: a video file, an animated picture, a still, a folder of stills, or `frames/%04d.png`.
            still_fps: the rate of what has none: a still, a folder, a sequence.
            alpha: RGBA frames of a file that has transparency, which is laid on black otherwise.
        """
        from kinema.io.record import read_record

        reader = _reader(Path(path), parse_fps(still_fps))
        reader.keeps_alpha = alpha
        clip = Clip(reader, reader.fps, read_record(path), count=reader.frames, size=reader.size)
        if reader.has_sound:  # looked into only then: that costs another start of ffmpeg
            try:
                clip.audio = sound_of(path, len(clip) / reader.fps)
            except MediaError as error:
                clip.notes = (f"the sound is left out: {error}",)
        return clip

    def __repr__(self) -> str:
        """What it is; its frames would be a wall of numbers in a notebook."""
        count = "frames that are not counted yet" if self.count is None else f"{self.count} frames"
        size = "" if self.size is None else f" of {self.size[0]}x{self.size[1]}"
        return f"Clip({count}{size} at {self.fps} fps)"

    def __len__(self) -> int:
        if self.count is None:
            # TypeError, as a generator's: list() asks for the length first and passes over this error only
            raise TypeError("the length of this stream of frames is not known; draw it with array() first.")
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames in order; of a one-pass stream, once; of a file that is damaged, none."""
        if isinstance(self.frames, VideoReader):
            self.frames.check()
        if self.is_stream:
            if self._drawn:
                raise MediaError(
                    "the frames of this stream were drawn already; call array() first to keep them."
                )
            self._drawn = True
        return iter(self.frames)

    @property
    def is_stream(self) -> bool:
        """Whether the frames can be drawn only once."""
        return isinstance(self.frames, Iterator)

    def array(self) -> np.ndarray:
        """All frames, uint8 `[F, H, W, 3 or 4]`; a stream is drawn and kept."""
        if not isinstance(self.frames, np.ndarray):
            frames = list(self)
            if not frames:
                raise MediaError("the clip has no frames.")
            self._take_array(np.stack(frames))
        assert isinstance(self.frames, np.ndarray)
        return self.frames

    def save(self, path: str | Path, **options: Unpack[SaveOptions]) -> Path:
        """Write the clip; see `write_video` for formats, options and errors.

        A clip on disk of variable rate, at its own rate, becomes one of a steady rate in which each frame is
        repeated for as long as it lasts, with a note; numbered pictures, which have no times, are each
        written once.
        """
        path, note = Path(path), options.get("on_note") or _log.warning
        for text in self.notes:
            note(text)
        held = self._held(path, note)
        frames, fps = (self, self.fps) if held is None else (held, held.fps)
        return write_video(
            path, frames, fps=fps, size=self.size, record=self.record, audio=self.audio, **options
        )

    def _held(self, path: Path, note: OnNote) -> _Held | None:
        """What shows frames of variable rate at their times in a file; None for a steady rate."""
        reader = self.frames
        timed = path.suffix.lower() not in STILLS  # of which numbered pictures are
        if not timed or not isinstance(reader, VideoReader) or reader.fps != self.fps:
            return None
        fps = steady_rate(reader, fastest(path))
        if fps is None:
            return None
        counts = shown_for(reader, fps)
        lost = f"; {n} begin too close to others for that" if (n := int((counts == 0).sum())) else ""
        note(f"{path.name}: {len(counts)} frames of variable rate become {counts.sum()} at {fps} fps{lost}.")
        return _Held(self, counts, fps)

    def _take_array(self, frames: np.ndarray) -> None:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] not in (3, 4) or 0 in frames.shape:
            found = f"{frames.dtype} {list(frames.shape)}"
            raise MediaError(f"frames are {found}; a clip is a uint8 array [F, H, W, 3] or [F, H, W, 4].")
        self.frames = frames
        self.count = len(frames)
        self.size = (frames.shape[2], frames.shape[1])


@dataclass(frozen=True)
class _Held:
    """Frames that are each repeated so many times, at a steady rate; drawn anew each time."""

    clip: Clip
    counts: np.ndarray
    fps: Fraction

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame, count in zip(self.clip, self.counts, strict=True):
            for _ in range(count):
                yield frame


def _reader(path: Path, still_fps: Fraction) -> VideoReader:
    """The reader of a file or folder, or of the pictures that a numbered name stands for."""
    pictures = frames_of(path) if is_numbered(path) else []
    return StillsReader(path, pictures, still_fps) if pictures else open_video(path, still_fps=still_fps)
