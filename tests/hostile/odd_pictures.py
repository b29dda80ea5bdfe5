"""Picture files made byte by byte: what Pillow itself would not write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from patch_clips import patches
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG of these (unfiltered) rows, with more chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body


def pixel(*chunks: bytes) -> bytes:
    """A PNG of one pixel (1, 2, 3) with more chunks."""
    return png(1, 1, 8, 2, b"\0\1\2\3", *chunks)


def webp(width: int, height: int) -> bytes:
    """An animated WebP whose header claims a canvas of this size; its two frames are one pixel."""
    still = io.BytesIO()
    Image.new("RGB", (1, 1)).save(still, "WEBP", lossless=True)
    frame = bytes(12) + (100).to_bytes(3, "little") + b"\0" + still.getvalue()[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = struct.pack("<4sIB3x", b"VP8X", 10, 2) + canvas + struct.pack("<4sIIH", b"ANIM", 6, 0, 0)
    data = b"WEBP" + body + 2 * (struct.pack("<4sI", b"ANMF", len(frame)) + frame)
    return b"RIFF" + struct.pack("<I", len(data)) + data


def gif(frames: int, width: int, height: int) -> bytes:
    """A black GIF."""
    buffer = io.BytesIO()
    Image.new("P", (width, height)).save(buffer, "GIF")
    data = buffer.getvalue()
    at = data.index(b"\x2c")
    return data[:at] + (b"\x21\xf9\x04\0\x0a\0\0\0" + data[at:-1]) * frames + b";"


def jpeg(**options: object) -> bytes:
    """A JPEG of `patches`."""
    buffer = io.BytesIO()
    Image.fromarray(next(patches(1))).save(buffer, "JPEG", quality=95, subsampling=0, **options)
    return buffer.getvalue()


def many_scans(times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = jpeg(progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * times + data[-2:]


def apng_with_stand_in() -> bytes:
    """An APNG of two frames (red, green); its first picture (blue) is for programs without animation."""

    def rows(colour: tuple[int, int, int]) -> bytes:
        return zlib.compress((b"\0" + bytes(colour) * 4) * 4)

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 4, 4, 0, 0, 1, 5, 0, 0))

    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)),
        chunk(b"acTL", struct.pack(">II", 2, 0)),
        chunk(b"IDAT", rows((0, 0, 255))),
        control(0),
        chunk(b"fdAT", struct.pack(">I", 1) + rows((255, 0, 0))),
        control(2),
        chunk(b"fdAT", struct.pack(">I", 3) + rows((0, 255, 0))),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sixteen_bit_rgb(values: list[int]) -> bytes:
    """A PNG of one row of 16-bit RGB pixels."""
    return png(len(values) // 3, 1, 16, 2, b"\0" + np.array(values, ">u2").tobytes())
