"""Animated pictures with transparency, read as looping sprites and kept as a bank that `SpriteBank` maps."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kinema.core.errors import ConfigError
from kinema.training.data import FRAMES_FILE, INDEX_FILE
from kinema.training.files import whole

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for pictures that are damaged, far too large or none."""
SHORTEST = 42.0  # milliseconds of a frame that does not say how long it stays on show


def decode(path: Path, size: int, fps: float, most: int) -> NDArray[np.uint8]:
    """One loop as premultiplied RGBA `[F, size, size, 4]`; a picture that is not square gets clear borders.

    Args:
        path: WebP, GIF, PNG or APNG.
        size: height and width in pixels.
        fps: frames per second.
        most: frames of a loop. The loop is sampled evenly, so that it closes; a longer one plays faster.

    Raises:
        ConfigError: it is no picture.
    """
    try:
        with Image.open(path) as image:
            total = getattr(image, "n_frames", 1)
            ends = np.cumsum([_duration(image, i) for i in range(total)]) if total > 1 else np.array([1.0])
            count = min(most, max(2, round(ends[-1] * fps / 1000))) if total > 1 else 1
            # The first frame that ends after the sampled moment is the one on show.
            wanted = np.searchsorted(ends, np.arange(count) * ends[-1] / count, side="right")
            frames = [_resized(image, int(i), size) for i in wanted]
    except UNREADABLE as error:
        raise ConfigError(f"{path} is not a readable picture ({error}); use PNG, WebP or GIF.") from None
    clip = np.stack(frames)
    return clip[:1] if (clip == clip[:1]).all() else clip


def check_outline(path: Path, clip_FHWC: NDArray[np.uint8]) -> None:
    """Refuse what has no outline: `ConfigError` when all of it is clear, or nothing."""
    alpha_FHW = clip_FHWC[..., 3]
    if not alpha_FHW.any():
        raise ConfigError(f"{path} is clear everywhere; draw something on it.")
    if (alpha_FHW == 255).all():
        raise ConfigError(f"{path} has no clear ground, so its outline is not known; cut the drawing out.")


def is_animated(path: Path) -> bool:
    """Whether a picture has several frames."""
    with Image.open(path) as image:
        return bool(getattr(image, "is_animated", False))


def write_bank(out: Path, clips: Sequence[NDArray[np.uint8]], index: Mapping[str, Any]) -> str:
    """Write a bank's folder, the index last.

    Args:
        out: gets `frames.npy` and `sprites.json`.
        clips: premultiplied frames `[F, H, W, 4]` of each sprite.
        index: what `sprites.json` says, without its hash: size, fps, and each sprite's words and rows.

    Returns:
        The bank's hash.

    Raises:
        MediaError: it cannot be written.
    """
    frames = np.concatenate(list(clips))
    digest = hashlib.sha256(frames.tobytes() + json.dumps(index, sort_keys=True).encode()).hexdigest()
    (out / INDEX_FILE).unlink(missing_ok=True)  # an earlier bank's, whose rows are others
    with whole(out / FRAMES_FILE) as part, part.open("wb") as file:
        np.save(file, frames)  # a run that has the old table mapped keeps it
    with whole(out / INDEX_FILE) as part:
        text = json.dumps({"sha256": digest, **index}, ensure_ascii=False, indent=1)
        part.write_text(text + "\n", encoding="utf-8")
    return digest


def _duration(image: Image.Image, index: int) -> float:
    """Milliseconds that frame `index` stays on show; Pillow knows only after loading it."""
    image.seek(index)
    image.load()
    return float(image.info.get("duration") or SHORTEST)


def _resized(image: Image.Image, index: int, size: int) -> NDArray[np.uint8]:
    """Frame `index`, premultiplied before it is resized: transparent pixels must not lend their colour."""
    image.seek(index)
    upright = ImageOps.exif_transpose(image)
    premultiplied = upright.convert("RGBA").convert("RGBa")
    side = max(premultiplied.size)
    if premultiplied.size != (side, side):
        square = Image.new("RGBa", (side, side))
        square.paste(premultiplied, ((side - premultiplied.width) // 2, (side - premultiplied.height) // 2))
        premultiplied = square
    return np.asarray(premultiplied.resize((size, size), Image.Resampling.BOX), dtype=np.uint8)
