"""Averaged weights as a few small files: what comes back from a machine that sends only small files.

A run that goes on from them has lost its optimiser's moments, which a short rise of the rates makes up for.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.core.errors import ModelError

LIMIT = 15_500_000  # bytes; some transports end at 16 MiB


def save_shards(tensors: dict[str, Tensor], folder: Path, stem: str, **facts: float | int | str) -> int:
    """Write tensors in float16 as `STEM-1.safetensors`, ...; old shards of that stem go; returns how many.

    Args:
        tensors: what to keep.
        folder: where to.
        stem: the files' common name.
        facts: kept in every file's header.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if shards[-1] and filled + half.nbytes > LIMIT:
            shards.append({})
            filled = 0
        shards[-1][name] = half
        filled += half.nbytes
    for old in folder.glob(f"{stem}-*.safetensors"):
        old.unlink()
    for number, shard in enumerate(shards, 1):
        path = folder / f"{stem}-{number}.safetensors"
        save_file(shard, path, {"facts": json.dumps({"shards": len(shards), **facts})})
        path.chmod(0o644)  # safetensors leaves the file private to its writer
    return len(shards)


def load_shards(folder: Path, stem: str) -> tuple[dict[str, Tensor], dict[str, float | int | str]]:
    """What `save_shards` wrote, in float32, and its facts.

    Raises:
        ModelError: there are none, one is missing, or one is damaged.
    """
    paths = sorted(folder.glob(f"{stem}-*.safetensors"))
    tensors: dict[str, Tensor] = {}
    facts: dict[str, float | int | str] = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["facts"])
                tensors |= {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path} is not a shard of a run ({error}); fetch it again.") from None
    if not paths or facts.pop("shards") != len(paths):
        raise ModelError(f"{folder} holds {len(paths)} shards of {stem!r}, and not all; fetch the rest.")
    return tensors, facts
