"""Frames as pictures: one, or a numbered sequence in a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from kinema.core.contracts import Record
from kinema.core.errors import MediaError
from kinema.io.atomic import check_target, sync
from kinema.io.formats import STILLS, Quality
from kinema.io.image import encode_image
from kinema.io.names import is_numbered, is_one_sequence, numbered


def is_still(path: Path) -> bool:
    """Whether a name is of a single picture."""
    return path.suffix.lower() in STILLS and not is_numbered(path)


def not_one(path: Path) -> MediaError:
    """What is said where a clip should become a single picture."""
    return MediaError(
        f"{path.name} holds one frame and the clip has more; use .mp4, .webp or a folder/%04d.png."
    )


class Still:
    """A single picture."""

    def __init__(self, path: Path, record: Record | None, quality: Quality) -> None:
        self.path = path
        self._record = record
        self._quality = quality

    def clear(self, published: Collection[Path]) -> None:
        """Nothing is left that the new file does not replace."""

    def write(self, frames: Iterator[np.ndarray], work: Path) -> list[tuple[Path, Path]]:
        """Make the picture in `work`: where it is, and where it belongs."""
        frame = next(frames)
        if next(frames, None) is not None:
            raise not_one(self.path)
        (work / "image").write_bytes(
            encode_image(frame, self.path.suffix.lower(), self._record, self._quality)
        )
        return [(work / "image", self.path)]


class PictureSequence:
    """One PNG per frame, numbered from 1; the first carries the record."""

    def __init__(self, path: Path, record: Record | None) -> None:
        self.path = path
        self._record = record

    def clear(self, published: Collection[Path]) -> None:
        """Remove what an older sequence has more; it must not continue the new one."""
        if self.path.parent in published:  # a new folder
            return
        for old in numbered(self.path):
            if old not in published:
                old.unlink()

    def write(self, frames: Iterator[np.ndarray], work: Path) -> list[tuple[Path, Path]]:
        """Make the pictures in `work`: where they are, and where they belong.

        The first is made last: its record tells what happened until then. It also gets its name last, so that
        an older sequence keeps its record until the new one is whole.
        """
        folder = work / "frames"
        folder.mkdir()
        first = next(frames)
        for index, frame in enumerate(frames, start=2):
            self._picture(folder, index, frame, None)
        self._picture(folder, 1, first, self._record)
        if not self.path.parent.exists():
            return [(folder, self.path.parent)]
        made = reversed(numbered(folder / self.path.name))
        return [(new, self.path.parent / new.name) for new in made]

    def _picture(self, folder: Path, index: int, frame: np.ndarray, record: Record | None) -> None:
        target = folder / (self.path.name % index)
        target.write_bytes(encode_image(frame, ".png", record))
        sync(target)


def check_sequence(path: Path, *, overwrite: bool) -> None:
    """Refuse a name that cannot be numbered, and a folder that holds other frames already."""
    if not is_one_sequence(path):
        raise MediaError(f"{path.name!r} is no numbered name; write one %d or %04d, as in frames/%04d.png.")
    if not path.parent.exists():
        check_target(path.parent, overwrite=True)
    elif not path.parent.is_dir():
        raise MediaError(f"cannot write in {str(path.parent)!r}: it is not a folder.")
    elif (there := numbered(path)) and not overwrite:
        raise MediaError(
            f"{str(path.parent)!r} already holds frames; choose another folder, or add --overwrite "
            "(overwrite=True)."
        )
    else:
        for old in there:
            check_target(old, overwrite=True)
