"""Clips that are pictures: animated GIF, WebP, PNG and AVIF; a still as one frame; a folder of stills."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from kinema.core.errors import MediaError
from kinema.io.image import FORMATS, check_pixels, decoding, flatten, read_image
from kinema.io.reader import VideoReader
from kinema.io.sniff import MAX_BYTES_IMAGE, PICTURES, Stamp, is_folder, open_regular, sniff

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
_MAX_FRAMES = 100_000
_MAX_PIXELS_ALL = 4_000_000_000  # Pillow decodes about 30 million a second
_LOST_MS = 2  # by which ffmpeg's WebP ends too early
_RATE_ERROR = 0.05
_DEFAULT_MS = 100  # what browsers make of a frame that names no duration


class AnimationReader(VideoReader):
    """An animated GIF, WebP, PNG or AVIF."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = Stamp.of(path)
        with self._open() as image:
            self.size = image.size
            step = 10 if image.format == "GIF" else 1
        self.fps = _likely_rate(self._durations, step)

    @property
    def times(self) -> np.ndarray:
        """Start of every frame in seconds."""
        return np.concatenate([[0.0], np.cumsum(self._durations)[:-1]]) / 1000

    @property
    def duration(self) -> float:
        """Seconds in all."""
        return sum(self._durations) / 1000

    def __iter__(self) -> Iterator[np.ndarray]:
        with self._open() as image:
            for index, picture in enumerate(_moving(image)):
                frame = np.asarray(picture.convert("RGBA"))
                yield self._one_size(frame if self._transparent else flatten(frame), index)
        self._stamp.check()

    @cached_property
    def _transparent(self) -> bool:
        """Whether a frame lets something through, and that is to be kept."""
        if not self.keeps_alpha:
            return False
        with self._open() as image:
            return any(_lets_through(np.asarray(picture.convert("RGBA"))) for picture in _moving(image))

    @cached_property
    def _durations(self) -> list[float]:
        durations: list[float] = []
        with self._open() as image:
            count = getattr(image, "n_frames", 1)
            if count > _MAX_FRAMES:
                raise MediaError(f"{str(self.path)!r} has {count} frames; the limit is {_MAX_FRAMES}.")
            if count * image.width * image.height > _MAX_PIXELS_ALL:
                raise MediaError(
                    f"{str(self.path)!r} has {count} frames of {image.width}x{image.height}, above "
                    f"{_MAX_PIXELS_ALL:,} pixels in all; convert it to MP4."
                )
            for picture in _moving(image):
                picture.load()
                durations.append(float(picture.info.get("duration") or _DEFAULT_MS))
        if not durations:
            raise MediaError(f"{str(self.path)!r} has no frames; get it again.")
        return durations

    @contextmanager
    def _open(self) -> Iterator[Image.Image]:
        with open_regular(self.path, limit=MAX_BYTES_IMAGE) as file, decoding(self.path):
            image = Image.open(file, formats=ANIMATED)
            check_pixels(self.path, image.size)
            yield image


def _lets_through(picture: np.ndarray) -> bool:
    """Whether a pixel of `[H, W, 3 or 4]` is less than opaque."""
    return picture.shape[2] == 4 and bool((picture[..., 3] < 255).any())


def _moving(image: Image.Image) -> Iterator[Image.Image]:
    """The frames of an animation; a PNG's stand-in for programs that show no animations is none of them."""
    frames = ImageSequence.Iterator(image)
    if getattr(image, "default_image", False):
        next(frames)
    return frames


class StillsReader(VideoReader):
    """Still pictures, one frame each."""

    def __init__(self, path: Path, files: list[Path], fps: Fraction) -> None:
        self.path = path
        self.fps = fps
        self._files = files
        height, width = read_image(files[0]).shape[:2]
        self.size = (width, height)

    @staticmethod
    def of_folder(path: Path, fps: Fraction) -> StillsReader:
        """The stills of a folder, in the order of the numbers in their names."""
        entries = [
            entry for entry in path.iterdir() if entry.suffix.lower() in FRAME_SUFFIXES and entry.is_file()
        ]
        if not entries:
            raise MediaError(
                f"the folder {str(path)!r} holds no pictures; give a video or a folder of frames."
            )
        return StillsReader(path, sorted(entries, key=natural_order), fps)

    @property
    def times(self) -> np.ndarray:
        """Start of every frame in seconds."""
        return np.arange(len(self._files)) / float(self.fps)

    @property
    def duration(self) -> float:
        """Seconds in all."""
        return len(self._files) / float(self.fps)

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(len(self._files)):
            yield self._frame(index, transparent=self._transparent)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames with these indices, `[N, H, W, 3]`; only those files are opened."""
        wanted = self._checked(indices)
        width, height = self.size
        return np.array([self._frame(index) for index in wanted], np.uint8).reshape(-1, height, width, 3)

    @cached_property
    def _transparent(self) -> bool:
        """Whether a picture lets something through, and that is to be kept."""
        return self.keeps_alpha and any(_lets_through(read_image(file)) for file in self._files)

    def _frame(self, index: int, *, transparent: bool = False) -> np.ndarray:
        picture = read_image(self._files[index])
        if transparent and picture.shape[2] == 3:
            picture = np.dstack((picture, np.full(picture.shape[:2], 255, np.uint8)))
        return self._one_size(picture if transparent else flatten(picture), index)


def open_pictures(path: Path, still_fps: Fraction) -> VideoReader:
    """The reader of a picture file or a folder of stills."""
    if is_folder(path):
        return StillsReader.of_folder(path, still_fps)
    timed = _moves(path) or _lasts(path)
    return AnimationReader(path) if timed else StillsReader(path, [path], still_fps)


def stands_still(path: Path) -> bool:
    """Whether a file is a picture that does not move, by its content; by its name where that is unknown.

    Raises:
        MediaError: missing, or no picture although it is called one.
    """
    with open_regular(path) as file:
        kind = sniff(file.read(4096))
    if kind in PICTURES or (kind is None and path.suffix.lower() in FRAME_SUFFIXES):
        return not _moves(path)
    return False


def _moves(path: Path) -> bool:
    with (
        open_regular(path, limit=MAX_BYTES_IMAGE) as file,
        decoding(path),
        Image.open(file, formats=FORMATS) as image,
    ):
        return image.format in ANIMATED and bool(getattr(image, "is_animated", False))


def _lasts(path: Path) -> bool:
    """Whether a file is a WebP animation of one frame that says how long it is shown."""
    with open_regular(path, limit=MAX_BYTES_IMAGE) as file:
        head = file.read(21)
        if head[:4] + head[8:16] != b"RIFFWEBPVP8X" or not head[20] & 0x02:
            return False
        file.seek(0)
        with decoding(path), Image.open(file, formats=("WEBP",)) as image:
            check_pixels(path, image.size)
            image.load()
            return bool(image.info.get("duration"))


def _likely_rate(durations: list[float], step: int) -> Fraction:
    """Frames per second: the whole number that explains the rounded times best, else the mean.

    Each frame has to begin within the file's time step of where that rate has it, and the last to end so, or
    within what encoders lose there; and the rate differs little from the mean. Of several it is the one that
    is nearest to all beginnings, but a mean that is whole and has them where rounding puts them stands.

    Args:
        durations: of every frame in milliseconds.
        step: milliseconds to which the file rounds its times.
    """
    count, total = len(durations), sum(durations)
    mean, slack = 1000 * count / total, max(step, _LOST_MS)
    low, high = mean * (1 - _RATE_ERROR), mean * (1 + _RATE_ERROR)
    starts = np.cumsum([0.0, *durations[:-1]])
    off = {
        rate: float(np.abs(starts - 1000 * np.arange(count) / rate).max())
        for rate in range(max(1, math.ceil(low)), math.floor(high) + 1)
        if abs(1000 * count / rate - total) <= slack
    }
    whole = min(off, key=lambda rate: (round(off[rate], 3), abs(rate - mean)), default=0)
    if off.get(round(mean), math.inf) <= step / 2 and abs(round(mean) - mean) < 1e-9:
        whole = round(mean)
    if whole and off[whole] <= step:
        return Fraction(whole)
    return Fraction(mean).limit_denominator(1001) if mean > 1 / 1001 else Fraction(1, round(1 / mean))


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A sort key in which `frame2` stands before `frame10`."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts)]
