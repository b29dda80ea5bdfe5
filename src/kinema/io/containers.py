"""Text inside PNG, GIF, WebP and JPEG files, put in and taken out by their own chunk rules.

PNG: an iTXt chunk. GIF: a comment extension before the first frame. WebP: the `XMP ` chunk of RIFF. JPEG:
XMP in APP1 segments, continued as ExtendedXMP where 64 kB are not enough. The readers walk headers and
skip everything else; they decompress nothing and hold at most `LIMIT` bytes, so a hostile file costs no
more than its reading.
"""

from __future__ import annotations

import hashlib
import html
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

LIMIT = 4 << 20
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_XMP_MAGIC = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION_MAGIC = b"http://ns.adobe.com/xmp/extension/\0"
_SEGMENT = 65_000  # a JPEG segment holds 65533 bytes, headers included
_MAX_CHUNKS = 200_000

_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" {}/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def xmp_packet(text: str) -> bytes:
    """An XMP packet whose property `kinema:record` is `text`."""
    return _PACKET.format(f'xmlns:kinema="urn:kinema:1" kinema:record="{html.escape(text)}"').encode()


def xmp_text(packet: bytes) -> str | None:
    """The property `kinema:record` of an XMP packet; no XML parser sees the untrusted bytes."""
    found = re.search(rb'kinema:record="([^"]*)"', packet)
    return html.unescape(found[1].decode("utf-8", "replace")) if found else None


def png_text(file: BinaryIO, key: str) -> str | None:
    """The uncompressed iTXt chunk with this key."""
    file.seek(8)
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return None
        length, kind = struct.unpack(">I4s", head)
        if kind == b"iTXt" and length <= LIMIT:
            data = file.read(length)
            prefix = key.encode() + b"\0\0\0"
            if data.startswith(prefix):  # then two empty strings: language, translated key
                return data[len(prefix) :].split(b"\0", 2)[-1].decode("utf-8", "replace")
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)
    return None


def gif_comments(file: BinaryIO) -> Iterator[str]:
    """The comments that stand before the first frame."""
    file.seek(_gif_header_bytes(file))
    for _ in range(_MAX_CHUNKS):
        mark = file.read(2)
        if len(mark) < 2 or mark[:1] != b"!":
            return
        data = _gif_blocks(file)
        if mark[1] == 0xFE:
            yield data.decode("utf-8", "replace")


def add_gif_comment(source: Path, target: Path, text: str) -> None:
    """Copy a GIF with a comment put before its first frame; `text` is ASCII, as GIF demands."""
    data = text.encode("ascii")
    with source.open("rb") as file, target.open("wb") as out:
        header_bytes = _gif_header_bytes(file)
        file.seek(0)
        out.write(file.read(header_bytes) + b"!\xfe")
        for start in range(0, len(data), 255):
            block = data[start : start + 255]
            out.write(bytes([len(block)]) + block)
        out.write(b"\0")
        while piece := file.read(1 << 20):
            out.write(piece)


def _gif_header_bytes(file: BinaryIO) -> int:
    file.seek(10)
    flags = file.read(1) or b"\0"
    return 13 + (3 << ((flags[0] & 7) + 1) if flags[0] & 0x80 else 0)


def _gif_blocks(file: BinaryIO) -> bytes:
    parts, total = [], 0
    while (length := file.read(1)) not in (b"", b"\0") and total <= LIMIT:
        parts.append(file.read(length[0]))
        total += length[0]
    return b"".join(parts)


def webp_xmp(file: BinaryIO) -> bytes | None:
    """The `XMP ` chunk."""
    file.seek(12)
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return None
        kind, length = struct.unpack("<4sI", head)
        if kind == b"XMP ":
            return file.read(min(length, 2 * LIMIT))
        file.seek(length + length % 2, 1)
    return None


def add_webp_xmp(path: Path, packet: bytes, size: tuple[int, int]) -> None:
    """Append the `XMP ` chunk to a WebP, in place, and announce it in the file's header.

    A still that has only the simple header gets the extended one.
    """
    with path.open("r+b") as file:
        head = file.read(21)
        if head[12:16] != b"VP8X":
            body = head[12:] + file.read()
            alpha = 0x10 if body[:4] == b"VP8L" else 0
            width, height = size
            extended = struct.pack("<4sIB3x", b"VP8X", 10, alpha | 0x04)
            file.seek(12)
            file.write(
                extended + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + body
            )
        else:
            file.seek(20)
            file.write(bytes([head[20] | 0x04]))
        file.seek(0, 2)
        file.write(struct.pack("<4sI", b"XMP ", len(packet)) + packet + b"\0" * (len(packet) % 2))
        total = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", total - 8))


def time_webp_still(path: Path, size: tuple[int, int], seconds: Fraction) -> None:
    """Make a WebP that is a still an animation of one frame that lasts; one that moves stays as it is.

    Encoders merge equal neighbours, and of a clip in which all are equal they leave a still without a length.
    """
    data = path.read_bytes()
    extended = data[12:16] == b"VP8X"
    if extended and data[20] & 0x02:
        return
    alpha = data[20] & 0x10 if extended else 0x10 if data[12:16] == b"VP8L" else 0
    picture = data[30:] if extended else data[12:]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    body = _riff(b"VP8X", bytes([alpha | 0x02, 0, 0, 0]) + sides) + _riff(b"ANIM", bytes(6))
    left = max(1, round(seconds * 1000))
    while left:  # a frame lasts 24 bits of milliseconds at most
        now = min(left, (1 << 24) - 1)
        left -= now
        body += _riff(b"ANMF", bytes(6) + sides + now.to_bytes(3, "little") + b"\x02" + picture)
    path.write_bytes(_riff(b"RIFF", b"WEBP" + body))


def _riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def jpeg_xmp(file: BinaryIO) -> Iterator[bytes]:
    """The XMP packets of a JPEG: the main one, then the extended one put together."""
    extension: dict[int, bytes] = {}
    for marker, data in _jpeg_segments(file):
        if marker == 0xE1 and data.startswith(_XMP_MAGIC):
            yield data[len(_XMP_MAGIC) :]
        elif marker == 0xE1 and data.startswith(_EXTENSION_MAGIC) and len(extension) * _SEGMENT <= 2 * LIMIT:
            body = data[len(_EXTENSION_MAGIC) :]
            extension[int.from_bytes(body[36:40], "big")] = body[40:]
    yield b"".join(extension[offset] for offset in sorted(extension))


def add_jpeg_xmp(jpeg: bytes, text: str) -> bytes:
    """The same JPEG with `text` as XMP behind its first marker."""
    packet = xmp_packet(text)
    if len(packet) <= _SEGMENT:
        return jpeg[:2] + _segment(_XMP_MAGIC + packet) + jpeg[2:]
    digest = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()
    note = f'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{digest}"'
    segments = [_segment(_XMP_MAGIC + _PACKET.format(note).encode())]
    for start in range(0, len(packet), _SEGMENT):
        head = _EXTENSION_MAGIC + digest.encode() + struct.pack(">II", len(packet), start)
        segments.append(_segment(head + packet[start : start + _SEGMENT]))
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def _segment(data: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data


def _jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker and data of each segment before the picture begins."""
    file.seek(2)
    for _ in range(_MAX_CHUNKS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:
            return
        length = int.from_bytes(head[2:], "big")
        yield head[1], file.read(max(length - 2, 0))
