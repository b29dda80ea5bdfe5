"""Frames on disk as they are made: one file, appended to, every frame with its own checksum.

    record = head (magic, index, height, width, channels, coding, bytes, crc32) + pixels, plain or deflated

Whatever ends the writer, the frames before the first damaged or torn record are whole, and appending goes on
behind them. Reading changes nothing.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from kinema.core.errors import MediaError
from kinema.core.failpoints import reach

_HEAD = struct.Struct("<4sIIIBBII")
_MAGIC = b"knF1"
_PLAIN, _DEFLATED = 0, 1
_MOST_BYTES = 1 << 31


class FrameJournal:
    """An ordered, growing store of uint8 frames `[H, W, C]`; iterating reads all that are whole.

    Args:
        path: the file; it need not exist.

    Attributes:
        count: how many whole frames there are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends = list(_scan(path))
        self._file: BinaryIO | None = None

    @property
    def count(self) -> int:
        """How many frames are whole."""
        return len(self._ends)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.read()

    def read(self, stop: int | None = None) -> Iterator[np.ndarray]:
        """The first `stop` frames, all by default; `MediaError` when one was damaged since it was opened."""
        stop = self.count if stop is None else min(stop, self.count)
        if stop == 0:
            return
        with self.path.open("rb") as file:
            for index in range(stop):
                frame = _read_record(file, index)
                if frame is None:
                    raise MediaError(
                        f"frame {index} in {str(self.path)!r} is damaged; start the render again."
                    )
                yield frame

    def append(self, frame_HWC: np.ndarray, *, deflate: bool = False) -> None:
        """Add one frame; it survives the end of the process, and a power cut after `sync`."""
        if self._file is None:
            self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
            end = self._ends[-1] if self._ends else 0
            self._file.truncate(end)
            self._file.seek(end)
        record = _record(frame_HWC, self.count, deflate=deflate)
        start = self._file.tell()
        try:
            _write_all(self._file, record[: len(record) // 2])
            reach("frame.half")
            _write_all(self._file, record[len(record) // 2 :])
        except OSError:
            self._file.truncate(start)  # a full disk takes a part of it; the part would be in the way
            self._file.seek(start)
            raise
        self._ends.append(start + len(record))
        reach("frame.written")

    def truncate(self, count: int) -> None:
        """Drop the frames from index `count` on."""
        if count >= self.count:
            return
        self.close()
        self._ends = self._ends[:count]
        os.truncate(self.path, self._ends[-1] if self._ends else 0)

    def sync(self) -> None:
        """Wait until every frame is on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; appending opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> FrameJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _record(frame_HWC: np.ndarray, index: int, *, deflate: bool) -> bytes:
    pixels = np.ascontiguousarray(frame_HWC).tobytes()
    data = zlib.compress(pixels, 1) if deflate else pixels
    coding = _DEFLATED if deflate else _PLAIN
    fields = (_MAGIC, index, *frame_HWC.shape, coding, len(data))
    return _HEAD.pack(*fields, _checksum(fields, data)) + data


def _checksum(fields: tuple[object, ...], data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(repr(fields).encode()))


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _scan(path: Path) -> Iterator[int]:
    """Where each whole frame ends, up to the first that is not."""
    if not path.exists():
        return
    with path.open("rb") as file:
        index = 0
        while _read_record(file, index) is not None:
            yield file.tell()
            index += 1


def _read_record(file: BinaryIO, index: int) -> np.ndarray | None:
    """The next frame; None when it is not there, not whole, or not the one expected."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    *fields, checksum = _HEAD.unpack(head)
    magic, found, height, width, channels, coding, size = fields
    if magic != _MAGIC or found != index or size > _MOST_BYTES:
        return None
    data = file.read(size)
    if len(data) != size or _checksum(tuple(fields), data) != checksum:
        return None
    pixels = zlib.decompress(data) if coding == _DEFLATED else data
    return np.frombuffer(pixels, np.uint8).reshape(height, width, channels)
