"""The weight files of a component's folder: safetensors, beside their config, complete, and what they seem.

A file is judged by its first bytes before a parser sees it: a pickle, a zip of pickles, an LFS pointer or a
web page that is called `.safetensors` is named as what it is. Links may lead to the hub's own store of blobs
and to files in the folder, nowhere else.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SCALE_SUFFIX = "_scale"  # beside a matrix of int8 rows: one scale for each row
MOST_HEADER = 100_000_000
MOST_JSON = 64 << 20
_NOT_SAFETENSORS = {
    b"version https://git-lfs": "a Git LFS pointer and not the weights; run git lfs pull, or download it",
    b"PK\x03\x04": "a zip of pickles (torch.save), which can run code when opened; convert it to safetensors",
    b"\x80": "a pickle, which can run code when opened; convert it to safetensors",
    b"GGUF": "a GGUF file; get the safetensors of the model",
    b"<": "a web page (a download that failed?); download it again",
    b"\x89HDF": "an HDF5 file; get the safetensors of the model",
}


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The files that hold a component, a single one first of all; all of them exist and begin rightly.

    Raises:
        ModelError: a file is missing, leads out of the folder, or is no safetensors file.
    """
    paths = _named(folder, stem)
    for path in paths:
        _check_place(path, folder)
        check_start(path)
    return paths


def _named(folder: Path, stem: str) -> list[Path]:
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        require_safetensors(folder)  # the better message when there are only pickles
        require_files(folder, single.name)
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(_is_file_name(s) for s in shards.values()):
        raise ModelError(f"{index} has no weight_map from tensors to files beside it; fetch it again.")
    names = sorted(set(shards.values()))
    require_files(folder, *names)
    return [folder / name for name in names]


def _is_file_name(name: object) -> bool:
    """A safetensors file in the same folder; an index must not point anywhere else."""
    return isinstance(name, str) and name.endswith(".safetensors") and not set("/\\") & set(name)


def _check_place(path: Path, folder: Path) -> None:
    if not path.is_symlink():
        return
    target, root = path.resolve(), folder.resolve()
    if not target.is_relative_to(root) and target.parent.name != "blobs":
        raise ModelError(
            f"{path} is a link out of its folder, to {target}; put the file there, or link the folder."
        )


def check_start(path: Path) -> None:
    """Refuse what cannot be safetensors by its first bytes and its size.

    Raises:
        ModelError: what it is, and what to do.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    for prefix, name in _NOT_SAFETENSORS.items():
        # a header of 0x80 bytes begins like a pickle, and has its brace at the ninth byte
        if head.startswith(prefix) and head[8:9] != b"{":
            raise ModelError(f"{path} is {name}.")
    if size < 10:
        raise ModelError(f"{path} is damaged: it has {size} bytes; fetch it again.")
    (length,) = struct.unpack("<Q", head[:8])
    if length > min(MOST_HEADER, size - 8):
        raise ModelError(
            f"{path} is damaged or not safetensors: its header claims {length} bytes of "
            f"{size}; fetch it again."
        )
    _check_header(path, length)


def _check_header(path: Path, length: int) -> None:
    """A tensor named twice would be read as either."""
    with path.open("rb") as file:
        file.seek(8)
        text = file.read(length)
    try:
        json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _TwiceError) else "its header is no JSON"
        raise ModelError(f"{path} is damaged or not safetensors: {reason}; fetch it again.") from None


class _TwiceError(ValueError):
    """A name that stands twice in an object."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise _TwiceError(f"{twice[:60]!r} is named twice")
    return names


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `ModelError` when it is none."""
    try:
        if path.stat().st_size > MOST_JSON:
            raise ModelError(f"{path} is larger than 64 MB, which no configuration file is; fetch it again.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} is not readable JSON ({reason}); fetch it again.") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds a JSON {type(data).__name__}, not an object; fetch it again.")
    return data


def require_files(folder: Path, *names: str) -> None:
    """`ModelError` that names what is missing."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {', '.join(missing)}; it must be a component folder in diffusers' layout."
        )


def require_safetensors(folder: Path) -> None:
    """`ModelError` when a folder has no safetensors, with another word for pickles."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"{folder} holds pickled weights ({pickles[0]}), which can run code when opened and are refused; "
            "convert them to safetensors."
        )
    raise ModelError(f"{folder} lacks model.safetensors; download the component's weights.")
