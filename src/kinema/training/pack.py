"""One file that carries a sprite bank: a zip of WebP strips, a fortieth of the size of the decoded table.

Each sprite is one lossy RGBA WebP whose frames lie side by side. Pixels are stored with straight alpha, as
WebP wants them, and decoded to the premultiplied table that `SpriteBank` maps:

    write_pack(frames, sprites)  ->  emoji.zip  ->  unpack  ->  frames.npy, sprites.json
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from kinema.core.errors import ConfigError, ModelError
from kinema.training.data import FRAMES_FILE, INDEX_FILE
from kinema.training.files import whole

LONGEST = 127  # frames of a strip: WebP is at most 16,383 pixels wide


@dataclass(frozen=True, kw_only=True, slots=True)
class PackSettings:
    """How strongly strips are compressed.

    Attributes:
        quality: of the colours, 0..100.
        alpha_quality: of the coverage, 0..100.
        method: effort, 0..6.
    """

    quality: int = 40
    alpha_quality: int = 30
    method: int = 5


def straight(frames_FHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Premultiplied RGBA as RGBA with colours of their own; clear pixels are black."""
    alpha = frames_FHWC[..., 3:].astype(np.float32)
    colour = np.where(alpha > 0, frames_FHWC[..., :3] * (255 / np.maximum(alpha, 1)), 0).clip(0, 255)
    return np.concatenate([colour, alpha], axis=-1).round().astype(np.uint8)


def encode_strip(frames_FHWC: NDArray[np.uint8], settings: PackSettings) -> bytes:
    """Premultiplied frames `[F, H, W, 4]` as one WebP, frames from left to right."""
    if len(frames_FHWC) * frames_FHWC.shape[2] > LONGEST * 128:
        raise ConfigError(f"{len(frames_FHWC)} frames are too long for a strip; use at most {LONGEST}.")
    strip = np.ascontiguousarray(rearrange(straight(frames_FHWC), "F H W C -> H (F W) C"))
    target = io.BytesIO()
    Image.fromarray(strip, "RGBA").save(
        target,
        "WEBP",
        quality=settings.quality,
        alpha_quality=settings.alpha_quality,
        method=settings.method,
    )
    return target.getvalue()


def decode_strip(data: bytes, frames: int) -> NDArray[np.uint8]:
    """The premultiplied frames `[F, H, W, 4]` of a strip."""
    with Image.open(io.BytesIO(data)) as image:
        strip = np.asarray(image.convert("RGBA").convert("RGBa"), dtype=np.uint8)
    return rearrange(strip, "H (F W) C -> F H W C", F=frames)


def write_pack(path: Path, strips: Sequence[bytes], index: Mapping[str, Any]) -> str:
    """Write strips and their index (`sprites.json` without its hash); returns the pack's hash."""
    digest = hashlib.sha256(json.dumps(index, sort_keys=True).encode())
    for strip in strips:
        digest.update(strip)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        text = json.dumps({"sha256": digest.hexdigest(), **index}, ensure_ascii=False)
        archive.writestr(zipfile.ZipInfo(INDEX_FILE), text, zipfile.ZIP_DEFLATED)
        for number, strip in enumerate(strips):
            archive.writestr(zipfile.ZipInfo(_member(number)), strip)
    part.replace(path)
    return digest.hexdigest()


def unpack(pack: Path, folder: Path, *, workers: int = 1) -> None:
    """Decode a pack into a folder for `SpriteBank.open`; nothing is done when that folder holds it already.

    Args:
        pack: what `write_pack` wrote.
        folder: gets `frames.npy` and `sprites.json`, the latter last.
        workers: processes that decode.

    Raises:
        ModelError: the pack is missing or damaged.
    """
    try:
        with zipfile.ZipFile(pack) as archive:
            index = json.loads(archive.read(INDEX_FILE))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{pack} is not a sprite pack ({error}); make it with scripts/prepare_emoji.py --pack."
        ) from None
    done = folder / INDEX_FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # half an index is none
        if json.loads(done.read_text("utf-8"))["sha256"] == index["sha256"]:
            return
    folder.mkdir(parents=True, exist_ok=True)
    counts, size = [sprite["frames"] for sprite in index["sprites"]], index["size"]
    part = folder / f"{FRAMES_FILE}.part"
    table = np.lib.format.open_memmap(part, "w+", np.uint8, (sum(counts), size, size, 4))
    table.flush()
    shares = [range(k, len(counts), 4 * workers) for k in range(4 * workers)]
    jobs = [(pack, part, [(n, index["sprites"][n]) for n in share]) for share in shares]
    if workers > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            list(pool.map(_decode_share, jobs))
    else:
        list(map(_decode_share, jobs))
    done.unlink(missing_ok=True)  # an earlier bank's, whose rows are others
    part.replace(folder / FRAMES_FILE)
    with whole(done) as new:
        new.write_text(json.dumps(index, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _decode_share(job: tuple[Path, Path, list[tuple[int, dict[str, Any]]]]) -> None:
    """Decode some sprites into their rows of the table on disk."""
    pack, table_path, share = job
    table = np.lib.format.open_memmap(table_path, "r+")
    with zipfile.ZipFile(pack) as archive:
        for number, sprite in share:
            start, count = sprite["offset"], sprite["frames"]
            table[start : start + count] = decode_strip(archive.read(_member(number)), count)
    table.flush()


def _member(number: int) -> str:
    return f"{number:04d}.webp"
