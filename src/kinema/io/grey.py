"""Grey values at full precision, such as depth: 16-bit PNG and TIFF keep their 65,536 steps.

A picture, a folder of pictures, or a clip; values are 0..1 of what the file could hold at most, never of what
it happens to hold, so that they mean the same in every frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kinema.core.errors import MediaError
from kinema.io.image import FORMATS, check_pixels, decoding
from kinema.io.picture_read import FRAME_SUFFIXES, natural_order, stands_still
from kinema.io.reader import nearest_frames
from kinema.io.sniff import MAX_BYTES_IMAGE, open_regular
from kinema.io.video_read import open_video

Grey = NDArray[np.float32]


def read_grey(path: str | Path) -> Grey:
    """A picture's brightness, float32 `[H, W]` in 0..1; of a colour picture its luma.

    Raises:
        MediaError: missing, no picture, damaged, or above the limits of `read_image`.
    """
    path = Path(path)
    with (
        open_regular(path, limit=MAX_BYTES_IMAGE) as file,
        decoding(path),
        Image.open(file, formats=FORMATS) as opened,
    ):
        check_pixels(path, opened.size)
        opened.load()
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits; Pillow gives some files of them as 32
            return (np.asarray(image).clip(0, 65535) / 65535).astype(np.float32)
        if image.mode == "F":
            return np.asarray(image).clip(0, 1).astype(np.float32)
        return (np.asarray(image.convert("L")) / 255).astype(np.float32)


class GreyClip:
    """Grey frames by time: of a picture, a folder of pictures, or a clip.

    Attributes:
        still: there is one frame only.
    """

    def __init__(self, path: str | Path, fps: Fraction) -> None:
        """Open it; `fps` is the rate at which a folder's pictures follow one another.

        Raises:
            MediaError: nothing is there, or it cannot be read.
        """
        self._path, self._fps = Path(path), fps
        self._files = _pictures(self._path)
        for file in self._files[:1]:
            read_grey(file)
        self._clip = None if self._files else open_video(self._path, still_fps=fps)
        self._count = len(self._files) or (len(self._clip) if self._clip is not None else 0)
        self.still = self._count == 1
        self._place = -1
        self._frames: Iterator[np.ndarray] = iter(())

    def frame(self, index: int) -> Grey:
        """What it shows when the shot is at frame `index`; the last one after its end.

        Frames of a clip that are asked for in rising order are each decoded once.
        """
        if self._clip is None:
            return read_grey(self._files[min(index, self._count - 1)])
        place = int(self._places[index]) if index < len(self._places) else self._count - 1
        red, green, blue = np.moveaxis(self._drawn(place).astype(np.float32) / 255, 2, 0)
        luma: Grey = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        return luma

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """The clip's frame at each frame of the shot."""
        assert self._clip is not None
        return nearest_frames(self._clip.times, self._clip.duration, self._fps)

    def _drawn(self, place: int) -> NDArray[np.uint8]:
        """A frame of the clip, `[H, W, 3]`; those before it are passed over, and begun again to go back."""
        assert self._clip is not None
        if place < self._place or self._place < 0:
            self._place, self._frames = -1, iter(self._clip)
        while self._place < place:
            following = next(self._frames, None)
            if following is None:
                raise MediaError(f"{str(self._path)!r} ends before frame {place}; re-encode or replace it.")
            self._current, self._place = following, self._place + 1
        return self._current


def _pictures(path: Path) -> list[Path]:
    """The still pictures that a path names; empty for a clip."""
    if path.is_dir():
        files = [f for f in path.iterdir() if f.is_file() and f.suffix.lower() in FRAME_SUFFIXES]
        if not files:
            raise MediaError(
                f"the folder {str(path)!r} holds no pictures; give a picture, a clip or a folder."
            )
        return sorted(files, key=natural_order)
    return [path] if stands_still(path) else []
