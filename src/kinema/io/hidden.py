"""What lies hidden beside an output while it is made: the claim on it, and the folder of its state."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from kinema.io.locks import LOCK_END, STATE_END, Lock
from kinema.io.names import is_numbered

_LONGEST = 200  # bytes of an output's name that still fit into a file name with ours around


def state_folder(out: Path) -> Path:
    """Where the state of an output is kept: hidden, beside it."""
    if is_numbered(out):  # a sequence; its folder may not be there yet
        around = out.parent.parent / _hidden(f"{out.parent.name}-{out.name}")
        if around.exists() or not out.parent.is_dir():
            return around
    return out.parent / _hidden(out.name)


def lock_of(out: Path) -> Lock:
    """The claim on an output."""
    folder = state_folder(out)
    return Lock(folder.with_name(folder.name.removesuffix(STATE_END) + LOCK_END), str(out))


def _hidden(name: str) -> str:
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}{STATE_END}"
