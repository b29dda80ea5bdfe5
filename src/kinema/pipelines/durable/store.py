"""Snapshots and facts as files that are whole, unchanged and of this very render, or not taken at all.

    snapshot = magic, sha256 of the rest, safetensors (its header holds the facts and the render's key)

Nothing is pickled, and numbers keep their type: float32 latents rounded to bfloat16 would be another clip.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from kinema.core.errors import ConfigError
from kinema.io.atomic import write_whole
from kinema.pipelines.memory import Snapshot

_MAGIC = b"kinema snapshot 1\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size


def write_snapshot(path: Path, snapshot: Snapshot, key: str, *, point: str, durable: bool) -> None:
    """Replace the snapshot at `path`; see `io.atomic.write_whole`."""
    # History and latents may share memory, which safetensors refuses.
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in snapshot.tensors.items()}
    header = {"key": key, "facts": json.dumps(dict(snapshot.facts))}
    body = safetensors.torch.save(tensors, metadata=header)
    write_whole(path, _MAGIC + hashlib.sha256(body).digest() + body, point=point, durable=durable)


def read_snapshot(path: Path, key: str) -> Snapshot | None:
    """What `write_snapshot` wrote; None when nothing is there.

    Raises:
        ConfigError: it is damaged, or belongs to another render.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    body = data[_HEAD:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[len(_MAGIC) : _HEAD]:
        raise ConfigError(f"the kept state {str(path)!r} is damaged.")
    header = _metadata(body)
    if header.get("key") != key:
        raise ConfigError(f"the kept state {str(path)!r} belongs to another render.")
    tensors: dict[str, torch.Tensor] = safetensors.torch.load(body)
    return Snapshot(tensors, json.loads(header["facts"]))


def _metadata(body: bytes) -> dict[str, str]:
    size = int.from_bytes(body[:8], "little")
    header: dict[str, str] = json.loads(body[8 : 8 + size]).get("__metadata__", {})
    return header


def write_facts(path: Path, facts: dict[str, Any], *, point: str, durable: bool) -> None:
    """JSON values with their checksum, whole or not at all."""
    text = json.dumps(facts, ensure_ascii=True, sort_keys=True)
    whole = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "facts": facts}
    data = json.dumps(whole, ensure_ascii=True, indent=1).encode()
    write_whole(path, data, point=point, durable=durable)


def read_facts(path: Path) -> dict[str, Any] | None:
    """What `write_facts` wrote; None when nothing is there; `ConfigError` when it is damaged."""
    try:
        whole = json.loads(path.read_bytes())
        facts: dict[str, Any] = whole["facts"]
        text = json.dumps(facts, ensure_ascii=True, sort_keys=True)
        if whole["sha256"] == hashlib.sha256(text.encode()).hexdigest():
            return facts
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ConfigError(f"the kept state {str(path)!r} is damaged.")
