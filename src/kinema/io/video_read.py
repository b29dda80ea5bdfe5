"""Frames out of video files: count, rational rate, upright size, and uint8 `[H, W, 3]` RGB frames by index.

A file is first judged by its bytes (`kinema.io.sniff`), then by what ffmpeg makes of its beginning
(`kinema.io.probe`). decord reads the frames where it gives the same pictures; ffmpeg does for rotated,
anamorphic, interlaced, transparent, wide-gamut and HDR clips, AV1 and rare containers; Pillow does for GIF,
WebP, APNG, AVIF and stills.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.clock import clock
from kinema.io.image import flatten
from kinema.io.picture_read import open_pictures
from kinema.io.probe import FASTEST, SLOWEST, VideoFile
from kinema.io.reader import MAX_FRAMES, VideoReader
from kinema.io.sniff import PICTURES, Stamp, is_folder, known_as, open_regular, sniff

_DECORD_KINDS = ("mov", "matroska")
_NOT_DECORD = ("av1", "prores")  # its FFmpeg 4 lacks the one and drops the depth of the other


def open_video(path: str | Path, *, still_fps: Fraction = Fraction(24)) -> VideoReader:
    """Open a clip for reading.

    Args:
        path: a video file, an animated picture, a still, or a folder of stills.
        still_fps: the rate of what has none: a still, a folder.

    Raises:
        MediaError: missing, not a regular file or folder, no known video by its content (so no playlist or
            script in disguise), without a picture stream, above 100 megapixels, of colours without a
            conversion, below 0.1 or above 1000 frames a second, or damaged.
    """
    path = Path(path)
    if is_folder(path):
        return open_pictures(path, still_fps)
    with open_regular(path) as file:
        head = file.read(4096)
    kind, other = sniff(head), known_as(head)
    if kind in PICTURES:
        return open_pictures(path, still_fps)
    if kind is None or other is not None:
        what = f"it is {other}." if other else "give MP4, MOV, WebM, MKV or GIF."
        raise MediaError(f"{str(path)!r} is no video by its content; {what}")
    stamp = Stamp.of(path)
    video = VideoFile.probe(path, kind)
    if kind in _DECORD_KINDS and video.plain and video.stream.codec not in _NOT_DECORD:
        try:
            return _DecordReader(video, stamp)
        except _DecordUnfit:
            pass
    return _FFmpegReader(video, stamp)


def _mean_rate(nominal: Fraction, frames: int, seconds: float) -> Fraction:
    """The nominal rate where the clip's length agrees with it; else (variable rate) the mean."""
    if seconds <= 0 or abs(frames / nominal - seconds) <= max(seconds / 100, 1.5 / nominal):
        return nominal
    mean = Fraction(frames / seconds).limit_denominator(1001)
    return min(max(mean, SLOWEST), FASTEST)


class _FFmpegReader(VideoReader):
    """Frames through a pipe from ffmpeg, which rotates and decodes everything it knows."""

    def __init__(self, video: VideoFile, stamp: Stamp) -> None:
        self.path = video.path
        self.size = video.size
        self.has_sound = video.has_sound
        self._video = video
        self._stamp = stamp

    @cached_property
    def fps(self) -> Fraction:  # type: ignore[override]
        """The nominal rate; for a variable rate the mean."""
        return _mean_rate(self._video.fps, self.frames, self.duration)

    @property
    def times(self) -> np.ndarray:
        return self._clock[0]

    @property
    def duration(self) -> float:
        return self._clock[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        stream, (width, height) = self._video.stream, self.size
        convert = stream.colour.convert
        shape = (height, width, 4 if stream.alpha else 3)
        dtype = np.uint8 if convert is None else np.uint16
        for frame in ffmpeg.frames(self._video.arguments(), shape, dtype, self.path):
            picture = frame if convert is None else convert(frame)
            yield picture if self.keeps_alpha else flatten(picture)
        self._stamp.check()

    def check(self) -> None:
        """Refuse a clip that is cut off or damaged."""
        self._clock  # noqa: B018 (which looks)

    @cached_property
    def _clock(self) -> tuple[np.ndarray, float]:
        """Start times and the whole duration."""
        return clock(self._video, self._stamp)


class _DecordUnfit(Exception):
    """decord cannot read this file, or sees it otherwise than ffmpeg does."""


class _DecordReader(VideoReader):
    """Frames by decord, which seeks."""

    def __init__(self, source: VideoFile, stamp: Stamp) -> None:
        self.path = source.path
        self.size = source.size
        self.has_sound = source.has_sound
        self._stamp = stamp
        self._source = source
        self._video = _decord(source.path)
        try:
            shape = self._video.get_batch([0]).asnumpy().shape[1:]  # fails for widths below 17
            self._spans = np.asarray(self._video.get_frame_timestamp(range(len(self._video))), np.float64)
        except Exception as error:  # decord raises its own class, IndexError and RuntimeError alike
            raise _DecordUnfit from error
        # decord knows no edit lists and no cut-off files, and passes over damage: a length of its own, or a
        # number of frames that is not that of the rate, betrays them
        if not len(self._spans) or not np.isfinite(self._spans).all():
            raise _DecordUnfit
        off_by = abs(self.duration - source.seconds) if source.seconds else 0.0
        if shape[1::-1] != self.size or len(self._spans) > MAX_FRAMES or off_by > 1.5 / source.fps + 0.01:
            raise _DecordUnfit
        self.fps = source.fps
        if _mean_rate(source.fps, len(self._spans), self.duration) != source.fps:
            raise _DecordUnfit

    @property
    def times(self) -> np.ndarray:
        """Start of every frame in seconds."""
        starts: np.ndarray = self._spans[:, 0] - self._spans[0, 0]
        return starts

    @property
    def duration(self) -> float:
        """Seconds in all."""
        return float(self._spans[-1, 1] - self._spans[0, 0])

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(self.frames):
            yield self._take([index])[0]
        self._stamp.check()

    @cached_property
    def _checked_by_ffmpeg(self) -> bool:
        times, _ = clock(self._source, self._stamp)
        if len(times) != self.frames:
            raise MediaError(
                f"{str(self.path)!r} is damaged: {len(times)} or {self.frames} frames, as one decodes it; "
                "re-encode or replace it."
            )
        return True

    def check(self) -> None:
        """Refuse a clip in which the decoder guesses at pictures, of which decord does not say a word."""
        self._checked_by_ffmpeg  # noqa: B018 (which looks, once)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames with these indices, `[N, H, W, 3]`; decord seeks to them."""
        frames = self._take(self._checked(indices))
        self._stamp.check()
        return frames

    def _take(self, indices: list[int]) -> np.ndarray:
        try:
            frames: np.ndarray = self._video.get_batch(indices).asnumpy()
            return frames
        except Exception as error:  # decord raises its own class, IndexError and RuntimeError alike
            where = f"near frame {indices[0]}"
            raise MediaError(f"{str(self.path)!r} is damaged {where}; re-encode or replace it.") from error


def _decord(path: Path) -> Any:
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        return decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
    except Exception as error:  # missing, broken for this platform, or a codec that its FFmpeg 4 lacks
        raise _DecordUnfit from error
