"""Names of files that stand for others: a numbered sequence of pictures, and the record beside a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kinema.io.formats import CONTAINERS, STILLS
from kinema.io.sniff import is_folder

_NUMBERED = re.compile(r"%(0[1-9])?d")


def is_numbered(path: Path) -> bool:
    """Whether a name stands for a sequence, as `frames/%04d.png` does and `100%.png` does not."""
    return path.suffix.lower() == ".png" and _NUMBERED.search(path.name) is not None


def is_one_sequence(path: Path) -> bool:
    """Whether each number gives another name, and nothing else in it is taken for one."""
    return len(_NUMBERED.findall(path.name)) == 1 and path.name.count("%") == 1


def numbered(pattern: Path) -> list[Path]:
    """The files that match `folder/name%04d.png`, in the order of their numbers."""
    before, after = (re.escape(part) for part in re.split(_NUMBERED, pattern.name)[::2])
    name = re.compile(f"{before}([0-9]+){after}")
    found = ((name.fullmatch(entry.name), entry) for entry in pattern.parent.iterdir())
    return [entry for _, entry in sorted((int(match[1]), entry) for match, entry in found if match)]


def frames_of(path: Path) -> list[Path]:
    """The pictures that a name stands for: of a folder all, of a pattern those that match it, else none."""
    if is_folder(path):
        return sorted(path.glob("*.png"))
    if os.path.lexists(path) or not is_folder(path.parent):
        return []
    return numbered(path) if is_numbered(path) and is_one_sequence(path) else []


def sidecar_path(path: Path) -> Path:
    """Where the record beside a file lies: `clip.mp4.json`; of a sequence, beside its first picture."""
    name = _NUMBERED.sub(lambda number: number[0] % 1, path.name) if is_numbered(path) else path.name
    return path.with_name(f"{name}.json")


def clip_stem(path: Path) -> str:
    """The name without its suffix, and without the clip's where it is a record beside one."""
    inner = Path(path.stem)
    return inner.stem if inner.suffix.lower() in (*CONTAINERS, *STILLS) else inner.name
