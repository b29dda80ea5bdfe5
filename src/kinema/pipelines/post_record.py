"""What a clip remembers that was changed after it was made: the shot with the change, and what it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kinema.core.contracts import Record

Values = Mapping[str, Any]
Change = Callable[[Values], Values | None]


def with_post(record: Record | None, path: Path, done: Values, change: Change) -> Record:
    """The record of a clip that was changed; of one that kinema did not make, only what was done.

    Args:
        record: of the clip as it was.
        path: of it.
        done: what was done, JSON values.
        change: gives the shot that would make the clip as it is, from the one that made it as it was; None
            where no shot would. The record keeps the shot of before then, and `post` alone tells of the rest.
    """
    done = {"of": path.name, "sha256": _hash(path), **done}
    if record is not None and record.post:
        done["before"] = dict(record.post)
    if record is None or not record.shot:
        return Record({}, post=done)
    return replace(record, shot=_changed(record.shot, change) or record.shot, post=done)


def _changed(whole: Values, change: Change) -> Values | None:
    """The shot, or the storyboard with all of its shots; None where one of them cannot be changed."""
    if "shots" not in whole:
        return change(whole)
    shots = whole["shots"]
    if not isinstance(shots, list) or not all(isinstance(shot, Mapping) for shot in shots):
        return None  # nothing that kinema writes
    changed = [change(shot) for shot in shots]
    return None if None in changed else {**whole, "shots": changed}


def _hash(path: Path) -> str:
    if not path.is_file():  # a folder of pictures, or a pattern of numbered ones
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
