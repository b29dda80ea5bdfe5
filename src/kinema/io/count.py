"""How many frames a video file that we have just written holds, read from its own index.

MP4 and MOV say it in one number; Matroska and WebM have a block per frame. Nothing is decoded, and pictures
are skipped, not read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_ISO = {"mp4", "mov"}
_EBML = {"matroska", "webm"}
_SEGMENT, _CLUSTER, _SIMPLE_BLOCK, _BLOCK_GROUP = 0x18538067, 0x1F43B675, 0xA3, 0xA0


def count_frames(path: Path, muxer: str) -> int | None:
    """Frames of the one video track; None for formats that merge or pack frames, or do not say.

    Args:
        path: a whole file.
        muxer: ffmpeg's name of its format.
    """
    if muxer not in _ISO | _EBML:
        return None
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            return _samples(file, end) if muxer in _ISO else _blocks(file, end)
    except (FileNotFoundError, struct.error, IndexError):  # not there, or cut off
        return 0


def _samples(file: BinaryIO, end: int) -> int:
    """The sample count in moov/trak/mdia/minf/stbl/stsz of the first track that has samples; 0 if cut off."""
    if any(stop > end for _, _, stop in _boxes(file, 0, end)):  # the index may be in front of what is missing
        return 0
    spans = [(0, end)]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz"):
        spans = [(a, b) for at in spans for kind, a, b in _boxes(file, *at) if kind == name]
    counts = []
    for start, _ in spans:
        file.seek(start + 8)
        counts.append(int(struct.unpack(">I", file.read(4))[0]))
    return next((count for count in counts if count), 0)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, and begin and end of the content, of each box between two places."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", file.read(8))[0], 16
        size = size or end - start
        yield kind, start + head, start + size
        start += max(size, head)


def _blocks(file: BinaryIO, end: int) -> int | None:
    """Blocks in all clusters; None where an element does not say its size, as in live files."""
    count = 0
    for kind, start, stop in _elements(file, 0, end):
        if stop > end:
            return 0
        if kind != _SEGMENT:
            continue
        for part, first, last in _elements(file, start, min(stop, end)):
            if part == _CLUSTER:
                inside = (name for name, *_ in _elements(file, first, min(last, end)))
                count += sum(name in (_SIMPLE_BLOCK, _BLOCK_GROUP) for name in inside)
    return count


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Identity, and begin and end of the content, of each EBML element between two places."""
    while start < end:
        file.seek(start)
        head = file.read(12)
        length = 9 - head[0].bit_length()
        kind = int.from_bytes(head[:length], "big")
        width = 9 - head[length].bit_length()
        size = int.from_bytes(head[length : length + width], "big") & ((1 << 7 * width) - 1)
        begin = start + length + width
        stop = end if size == (1 << 7 * width) - 1 else begin + size
        yield kind, begin, stop
        start = stop
