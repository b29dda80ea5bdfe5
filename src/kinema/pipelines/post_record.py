"""What a clip remembers that was changed after it was made: the shot with the change, and what it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kinema.core.contracts import Record

Values = Mapping[str, Any]


def with_post(record: Record | None, path: Path, done: Values, change: Callable[[Values], Values]) -> Record:
    """The record of a clip that was changed; of one that kinema did not make, only what was done.

    Args:
        record: of the clip as it was.
        path: of it.
        done: what was done, JSON values.
        change: gives the shot that would make the clip as it is, from the one that made it as it was.
    """
    done = {"of": path.name, "sha256": _hash(path), **done}
    if record is not None and record.post:
        done["before"] = dict(record.post)
    if record is None or not record.shot:
        return Record({}, post=done)
    whole = dict(record.shot)
    if "shots" in whole:
        whole["shots"] = [dict(change(shot)) for shot in whole["shots"]]
    else:
        whole = dict(change(whole))
    return replace(record, shot=whole, post=done)


def _hash(path: Path) -> str:
    if not path.is_file():  # a folder of pictures, or a pattern of numbered ones
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
