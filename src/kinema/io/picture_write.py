"""Frames as pictures: one, or a numbered sequence in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kinema.core.contracts import Record
from kinema.core.errors import MediaError
from kinema.io.atomic import check_target, sync
from kinema.io.formats import Quality
from kinema.io.image import encode_image

_NUMBERED = re.compile(r"%(0[1-9])?d")


def is_numbered(path: Path) -> bool:
    """Whether a name stands for a sequence, as `frames/%04d.png` does and `100%.png` does not."""
    return path.suffix.lower() == ".png" and _NUMBERED.search(path.name) is not None


class Still:
    """A single picture."""

    def __init__(self, path: Path, record: Record | None, quality: Quality) -> None:
        self.path = path
        self._record = record
        self._quality = quality

    def clear(self) -> None:
        """Nothing is in the way that the new file does not replace."""

    def write(self, frames: Iterator[np.ndarray], work: Path) -> list[tuple[Path, Path]]:
        """Make the picture in `work`: where it is, and where it belongs."""
        frame = next(frames)
        if next(frames, None) is not None:
            raise MediaError(
                f"{self.path.name} holds one frame and the clip has more; use .mp4 or a folder/%04d.png."
            )
        (work / "image").write_bytes(
            encode_image(frame, self.path.suffix.lower(), self._record, self._quality)
        )
        return [(work / "image", self.path)]


class PictureSequence:
    """One PNG per frame, numbered from 1; the first carries the record."""

    def __init__(self, path: Path, record: Record | None) -> None:
        self.path = path
        self._record = record

    def clear(self) -> None:
        """Remove an older sequence; a longer one must not continue the new one."""
        if self.path.parent.exists():
            for old in numbered(self.path):
                old.unlink()

    def write(self, frames: Iterator[np.ndarray], work: Path) -> list[tuple[Path, Path]]:
        """Make the pictures in `work`: where they are, and where they belong."""
        folder = work / "frames"
        folder.mkdir()
        for index, frame in enumerate(frames, start=1):
            target = folder / (self.path.name % index)
            target.write_bytes(encode_image(frame, ".png", self._record if index == 1 else None))
            sync(target)
        if not self.path.parent.exists():
            return [(folder, self.path.parent)]
        return [(new, self.path.parent / new.name) for new in sorted(folder.iterdir())]


def numbered(pattern: Path) -> list[Path]:
    """The files that match `folder/name%04d.png`, in the order of their numbers."""
    before, after = (re.escape(part) for part in re.split(_NUMBERED, pattern.name)[::2])
    name = re.compile(f"{before}([0-9]+){after}")
    found = ((name.fullmatch(entry.name), entry) for entry in pattern.parent.iterdir())
    return [entry for _, entry in sorted((int(match[1]), entry) for match, entry in found if match)]


def check_sequence(path: Path, *, overwrite: bool) -> None:
    """Refuse a name that cannot be numbered, and a folder that holds other frames already."""
    if len(_NUMBERED.findall(path.name)) != 1 or path.name.count("%") != 1:
        raise MediaError(f"{path.name!r} is no numbered name; write one %d or %04d, as in frames/%04d.png.")
    if not path.parent.exists():
        check_target(path.parent, overwrite=True)
    elif not path.parent.is_dir():
        raise MediaError(f"cannot write in {str(path.parent)!r}: it is not a folder.")
    elif numbered(path) and not overwrite:
        raise MediaError(
            f"{str(path.parent)!r} already holds frames; choose another folder or allow overwriting."
        )
