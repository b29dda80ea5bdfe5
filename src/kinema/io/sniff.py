"""What a file is, judged by its first bytes and never by its name.

A text file of type `ffconcat` or HLS that is called `clip.mp4` would make ffmpeg open other files, or
hosts. So a file is handed to a decoder only when its magic bytes are those of a container that holds its
own pictures, and ffmpeg is then told to use that demuxer and no other.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kinema.core.errors import MediaError

MAX_BYTES_IMAGE = 500_000_000

_DEMUXERS = {
    "mov": "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska": "matroska,webm",
    "avi": "avi",
    "mpegts": "mpegts",
    "mpeg": "mpeg",
    "flv": "flv",
    "ogg": "ogg",
    "asf": "asf",
    "ivf": "ivf",
    "y4m": "yuv4mpegpipe",
}
PICTURES = ("png", "gif", "webp", "jpeg", "bmp", "tiff", "avif", "jpeg2000", "ico", "ppm")
_PREFIXES = {
    b"\0\0\0\x0cjP  \r\n\x87\n": "jpeg2000",
    b"\xff\x4f\xff\x51": "jpeg2000",
    b"\0\0\1\0": "ico",
    b"P4\n": "ppm",
    b"P5\n": "ppm",
    b"P6\n": "ppm",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"\xff\xd8\xff": "jpeg",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"\x1aE\xdf\xa3": "matroska",
    b"FLV\x01": "flv",
    b"OggS": "ogg",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"DKIF": "ivf",
    b"YUV4MPEG2 ": "y4m",
    b"\0\0\x01\xba": "mpeg",
}
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_AVIF_BRANDS = (b"avif", b"avis")
# What people try that has a name and no decoder here, and what to do about it.
_REFUSED = {
    b"%!PS": "PostScript; export it as PNG",
    b"%PDF": "PDF; export the page as PNG",
    b"<svg": "SVG; export it as PNG",
    b"<?xml": "XML (perhaps SVG); export it as PNG",
    b"8BPS": "a Photoshop document; export it as PNG",
    b"\x76\x2f\x31\x01": "OpenEXR; export it as PNG",
    b"#EXTM3U": "a playlist, which would open other files; give the clip itself",
    b"ffconcat": "a list of files for ffmpeg; give the clips themselves",
    b"<MPD": "a streaming manifest, which would open other files; give the clip itself",
    b"[playlist]": "a playlist, which would open other files; give the clip itself",
    b"v=0\n": "a session description, which would open network streams; give the clip itself",
    b"v=0\r": "a session description, which would open network streams; give the clip itself",
    b"version https://git-lfs": "a Git LFS pointer and not the file itself; run git lfs pull",
    b"PK\3\4": "a zip archive; unpack it first",
    b"ID3": "sound; give a file with video",
    b"fLaC": "sound; give a file with video",
}
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def sniff(head: bytes) -> str | None:
    """The kind of file that begins with these bytes (4096 are enough); None when it is none we read."""
    for prefix, kind in _PREFIXES.items():
        if head.startswith(prefix):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "avi"}.get(head[8:12])
    if head[4:8] in _MOV_BOXES:
        return "avif" if head[4:8] == b"ftyp" and head[8:12] in _AVIF_BRANDS else "mov"
    if len(head) > 376 and all(head[at] == 0x47 for at in (0, 188, 376)):
        return "mpegts"
    return None


def known_as(head: bytes) -> str | None:
    """What a file that nothing here reads is, by its first bytes; None when that is not known."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIC; export it as JPEG, PNG or AVIF"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((name for prefix, name in _REFUSED.items() if start.startswith(prefix)), None)


def demuxers(kind: str) -> str | None:
    """ffmpeg's demuxers for this kind of file; None when ffmpeg must not open it."""
    return _DEMUXERS.get(kind)


def open_regular(path: Path, *, limit: int | None = None) -> BinaryIO:
    """Open a regular, non-empty file of at most `limit` bytes; anything else is a one-line `MediaError`.

    The check is made on the open file, and opening never waits for a FIFO's writer.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"cannot read {str(path)!r}: {reason}; check the path.") from None
    status = os.fstat(handle)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = "it is not a regular file"
    elif status.st_size == 0:
        problem = "it is empty"
    elif limit is not None and status.st_size > limit:
        problem = f"it has {status.st_size} bytes and the limit is {limit}"
    if problem:
        os.close(handle)
        raise MediaError(f"cannot read {str(path)!r}: {problem}; give a picture or video file.")
    return os.fdopen(handle, "rb")


def is_folder(path: Path) -> bool:
    """Whether a folder lies there; a name that the system cannot have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which file lay under a name, and in what state, when it was opened."""

    path: Path
    state: tuple[int, int, int, int]

    @staticmethod
    def of(path: Path) -> Stamp:
        """The stamp of a file now."""
        return Stamp(path, _state(path))

    def check(self) -> None:
        """`MediaError` when the file is another one by now, or was written to."""
        if _state(self.path) != self.state:
            raise MediaError(f"{str(self.path)!r} changed while it was read; wait until it is finished.")


def _state(path: Path) -> tuple[int, int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
