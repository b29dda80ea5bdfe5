"""Frames out of video files: count, rational rate, upright size, and uint8 `[H, W, 3]` RGB frames by index.

A file is first judged by its bytes (`kinema.io.sniff`). Then ffmpeg decodes the beginning of it, which
tells the size after rotation, the rate and the codec, and proves that it can be decoded. decord reads the
frames where it gives the same pictures; ffmpeg does for rotated or anamorphic clips, AV1 and rare
containers; Pillow does for GIF, WebP, APNG and stills.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.picture_read import open_pictures
from kinema.io.reader import MAX_FRAMES, VideoReader
from kinema.io.sniff import demuxers, open_regular, sniff

MAX_PIXELS = 100_000_000
MAX_SIDE = 16_384
_DECORD_KINDS = ("mov", "matroska")
_NOT_DECORD = ("av1", "prores")  # its FFmpeg 4 lacks the one and drops the depth of the other
_HDR = ("smpte2084", "arib-std-b67")


def open_video(path: str | Path, *, still_fps: Fraction = Fraction(24)) -> VideoReader:
    """Open a clip for reading.

    Args:
        path: a video file, an animated picture, a still, or a folder of stills.
        still_fps: the rate of what has none: a still, a folder.

    Raises:
        MediaError: missing, not a regular file or folder, no known video by its content (so no playlist or
            script in disguise), without a picture stream, above 100 megapixels, HDR, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return open_pictures(path, still_fps)
    with open_regular(path) as file:
        kind = sniff(file.read(4096))
    if kind in ("gif", "webp", "png", "jpeg", "bmp", "tiff", "avif"):
        return open_pictures(path, still_fps)
    if kind is None:
        raise MediaError(f"{str(path)!r} is no video by its content; give MP4, MOV, WebM, MKV or GIF.")
    source = _Source.probe(path, kind)
    if kind in _DECORD_KINDS and source.plain and source.codec not in _NOT_DECORD:
        try:
            return _DecordReader(source)
        except _DecordUnfit:
            pass
    return _FFmpegReader(source)


@dataclass(frozen=True, slots=True)
class _Source:
    """A video file that ffmpeg can decode.

    Attributes:
        path: the file.
        kind: what its bytes say it is.
        size: (width, height) as shown: rotated, with square pixels.
        fps: nominal rate.
        codec: ffmpeg's name of it.
        seconds: the length that the container states; 0 when it states none.
        plain: whether the stored frames are the shown ones (no rotation, square pixels).
        filters: ffmpeg's video filter that makes pixels square; empty when they are.
    """

    path: Path
    kind: str
    size: tuple[int, int]
    fps: Fraction
    codec: str
    seconds: float
    plain: bool
    filters: tuple[str, ...]

    @staticmethod
    def probe(path: Path, kind: str) -> _Source:
        """Let ffmpeg decode the beginning; a YUV4MPEG2 header gives exact size, rate and pixel shape."""
        arguments = [
            *_input(path, kind),
            "-frames:v",
            "1",
            "-pix_fmt",
            "yuv444p",
            "-f",
            "yuv4mpegpipe",
            "pipe:1",
        ]
        result = ffmpeg.run(arguments, loglevel="info", limit=512, seconds=60)
        stream = re.search(r"^ *Stream #0:\d+.*?: Video: (\w+).*$", result.log, re.MULTILINE)
        header = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+) .*?A(\d+):(\d+)", result.output)
        if header is None or stream is None:
            raise MediaError(f"cannot read {str(path)!r}: {_why_not(result.log, stream is not None)}")
        if any(transfer in stream[0] for transfer in _HDR):
            raise MediaError(f"cannot read {str(path)!r}: it is HDR; convert it to SDR (BT.709) first.")
        width, height, top, bottom, across, down = (int(number) for number in header.groups())
        square = across == down or not across or not down
        size = (width if square else max(1, round(width * across / down)), height)
        if max(size) > MAX_SIDE:
            raise MediaError(
                f"cannot read {str(path)!r}: {size[0]}x{size[1]} is above {MAX_SIDE} pixels a side."
            )
        turned = re.search(r"(?i)display ?matrix: rotation of", result.log) is not None
        filters = () if square else ("-vf", f"scale={size[0]}:{size[1]},setsar=1")
        rate = _rate(Fraction(top, bottom or 1), stream[0])
        return _Source(
            path, kind, size, rate, stream[1], _seconds(result.log), square and not turned, filters
        )


def _input(path: Path, kind: str) -> list[str]:
    """ffmpeg's input options: this file, this kind of container, no other file or host, its pictures."""
    guard = ["-protocol_whitelist", "file,pipe", "-format_whitelist", str(demuxers(kind))]
    return [*guard, "-max_pixels", str(MAX_PIXELS), "-i", ffmpeg.url(path), "-map", "0:V:0"]


def _rate(nominal: Fraction, stream: str) -> Fraction:
    """The nominal rate where it agrees with the mean that ffmpeg prints; else (variable rate) the mean."""
    printed = re.search(r"([\d.]+)(k?) fps", stream)
    mean = Fraction(printed[1]) * (1000 if printed[2] else 1) if printed else nominal
    if mean <= 0 or abs(nominal - mean) <= mean / 100:
        return nominal
    return mean.limit_denominator(1001)


def _mean_rate(nominal: Fraction, frames: int, seconds: float) -> Fraction:
    """The nominal rate where the clip's length agrees with it; else (variable rate) the mean."""
    if seconds <= 0 or abs(frames / nominal - seconds) <= max(seconds / 100, 1.5 / nominal):
        return nominal
    return Fraction(frames / seconds).limit_denominator(1001)


def _seconds(log: str) -> float:
    """The length that the container states; 0 when it states none."""
    found = re.search(r"^ *Duration: (\d+):(\d+):([\d.]+)", log, re.MULTILINE)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0.0


def _why_not(log: str, has_picture: bool) -> str:
    if "matches no streams" in log or not has_picture:
        return (
            "it has no picture stream; give a file with video."
            if "Audio:" in log
            else ffmpeg.reason(log, last=True)
        )
    if "max_pixels" in log or "Picture size" in log:
        return "its frames are above 100 megapixels; scale it down first."
    return f"no frame can be decoded ({ffmpeg.reason(log, last=True)})."


class _FFmpegReader(VideoReader):
    """Frames through a pipe from ffmpeg, which rotates and decodes everything it knows."""

    def __init__(self, source: _Source) -> None:
        self.path = source.path
        self.size = source.size
        self.fps = source.fps
        self._source = source

    @property
    def times(self) -> np.ndarray:
        return self._clock[0]

    @property
    def duration(self) -> float:
        return self._clock[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        arguments = [*_input(self.path, self._source.kind), *self._source.filters, "-fps_mode", "passthrough"]
        arguments += ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"]
        yield from ffmpeg.frames(
            [*arguments, "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"], self.size, self.path
        )

    @cached_property
    def _clock(self) -> tuple[np.ndarray, float]:
        """Start times and the whole duration, from one decoding pass that keeps no pictures."""
        arguments = [
            *_input(self.path, self._source.kind),
            "-fps_mode",
            "passthrough",
            "-f",
            "framecrc",
            "pipe:1",
        ]
        result = ffmpeg.run(arguments, limit=1 << 27).check(f"cannot read {str(self.path)!r}")
        text = result.output.decode("ascii", "replace")
        base = re.search(r"^#tb 0: (\d+)/(\d+)", text, re.MULTILINE)
        rows = [line.split(",") for line in text.splitlines() if line[:2] == "0,"]
        if base is None or not rows or len(rows) > MAX_FRAMES:
            raise MediaError(
                f"cannot read {str(self.path)!r}: it has {len(rows)} frames, not 1 to {MAX_FRAMES}."
            )
        if ffmpeg.cut_off(result.log):
            raise MediaError(
                f"{str(self.path)!r} is cut off after {len(rows)} frames; re-encode or replace it."
            )
        tick = int(base[1]) / int(base[2])
        starts = np.array([int(row[2]) for row in rows], np.float64) * tick
        last = int(rows[-1][3]) * tick or 1 / float(self.fps)
        return starts - starts[0], float(starts[-1] - starts[0] + last)


class _DecordUnfit(Exception):
    """decord cannot read this file, or sees it otherwise than ffmpeg does."""


class _DecordReader(VideoReader):
    """Frames by decord, which seeks."""

    def __init__(self, source: _Source) -> None:
        self.path = source.path
        self.size = source.size
        self._video = _decord(source.path)
        try:
            shape = self._video.get_batch([0]).asnumpy().shape[1:]  # fails for widths below 17
            self._spans = np.asarray(self._video.get_frame_timestamp(range(len(self._video))), np.float64)
        except Exception as error:  # decord raises its own class, IndexError and RuntimeError alike
            raise _DecordUnfit from error
        # decord knows no edit lists and no cut-off files: a length of its own betrays both
        off_by = abs(self.duration - source.seconds) if source.seconds else 0.0
        if shape[1::-1] != self.size or len(self._spans) > MAX_FRAMES or off_by > 1.5 / source.fps + 0.01:
            raise _DecordUnfit
        self.fps = _mean_rate(source.fps, len(self._spans), self.duration)

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

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames with these indices, `[N, H, W, 3]`; decord seeks to them."""
        return self._take(self._checked(indices))

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
