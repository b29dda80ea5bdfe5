"""Video files as phones, cameras, editors and screen recorders leave them, drawn with `patch_clips`.

Each maker writes one file and returns its path. The frames are those of `patches`, so a test can say which
frame it sees and how far its colours are off.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
from patch_clips import patches

from kinema.io import ffmpeg

SIZE = (192, 64)


def tool(*arguments: object) -> None:
    """ffmpeg, which must succeed."""
    line = [ffmpeg.executable(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    subprocess.run([*line, *map(str, arguments)], check=True)


@cache
def raw(count: int = 8, width: int = SIZE[0], height: int = SIZE[1]) -> bytes:
    """`count` frames of `patches` as rgb24 bytes."""
    return b"".join(frame.tobytes() for frame in patches(count, width, height))


def encode(
    path: Path,
    *output: object,
    count: int = 8,
    rate: object = 24,
    size: tuple[int, int] = SIZE,
    data: bytes | None = None,
    pixels: str = "rgb24",
) -> Path:
    """`count` frames of `patches` (or `data`) through ffmpeg with these output options."""
    source = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{size[0]}x{size[1]}", "-r", rate, "-i", "pipe:0"]
    line = [ffmpeg.executable(), "-hide_banner", "-loglevel", "error", "-y"]
    data = raw(count, *size) if data is None else data
    subprocess.run([*line, *map(str, [*source, *output, path])], input=data, check=True)
    return path


def tagged(pixels: str, matrix: str, *, full: bool = False) -> str:
    """A filter chain to `pixels` by this matrix and range, with the stream tagged so."""
    side = "pc" if full else "tv"
    space = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}[matrix]
    flags = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    return (
        f"scale=out_color_matrix={matrix}:out_range={side}:{flags},format={pixels},"
        f"setparams=colorspace={space}:range={side}"
    )


X264 = ("-c:v", "libx264", "-crf", "4", "-preset", "ultrafast")
UNTAGGED = "setparams=colorspace=unknown:color_primaries=unknown:color_trc=unknown:range=unknown"


def half_transparent(count: int = 4) -> bytes:
    """`patches` as rgba, the lower half transparent."""
    opaque = np.repeat(np.arange(SIZE[1])[:, None] < SIZE[1] // 2, SIZE[0], axis=1)
    alpha = np.where(opaque, 255, 0).astype(np.uint8)
    return b"".join(np.dstack([frame, alpha]).tobytes() for frame in patches(count))


def combed(count: int = 6, width: int = 64, height: int = 32) -> bytes:
    """A white bar that moves four pixels per field, two fields woven into each frame, upper one first."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    for field in range(2 * count):
        left = 4 + 4 * field
        frames[field // 2, field % 2 :: 2, left : left + 8] = 255
    return frames.tobytes()


def flat(colours: np.ndarray, side: int = 16, count: int = 2) -> tuple[bytes, tuple[int, int]]:
    """rgb48le frames of flat squares, one per colour in 0..1, side by side; with their size."""
    row = np.repeat((np.asarray(colours) * 65535).round().astype("<u2"), side, axis=0)
    return np.broadcast_to(row, (count, side, *row.shape)).tobytes(), (side * len(colours), side)


def y4m(path: Path, header: bytes, *, frames: int = 2) -> Path:
    """A YUV4MPEG2 file with this header and 16 x 16 frames."""
    path.write_bytes(b"YUV4MPEG2 " + header + b"\n" + (b"FRAME\n" + bytes(16 * 16 * 3)) * frames)
    return path
