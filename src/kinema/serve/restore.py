"""The request that a dropped file was made by: kinema's own record, or what other tools left in a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.core.errors import ConfigError, MediaError
from kinema.io.record import read_record
from kinema.story.storyboard import from_mapping

_UPLOAD = re.compile(r"(?:.*[\\/])?media[\\/:](?P<sha256>[0-9a-f]{64})")


def restore_file(path: Path) -> dict[str, Any]:
    """`request`, the tool it is of, and notes about what has no counterpart here.

    Raises:
        MediaError: the file tells nothing about its making.
    """
    record = read_record(path)
    if record is not None and record.shot:
        return _of_record(record.shot)
    raise MediaError("the file does not tell how it was made; only files of kinema do.")


def _of_record(shot: Mapping[str, Any]) -> dict[str, Any]:
    notes: list[str] = []
    values = _with_uploads(dict(shot), "", notes)
    try:
        request = from_mapping(values).to_mapping()
    except ConfigError as error:
        raise ConfigError(f"the record is not one that this version reads: {error}") from None
    return {"request": request, "source": "kinema", "notes": notes}


def _with_uploads(value: Any, place: str, notes: list[str]) -> Any:
    """Paths of uploads as `media:`; other paths stay, with a note that the file has to be given again."""
    if isinstance(value, Mapping):
        return {
            name: _with_uploads(part, f"{place}.{name}" if place else name, notes)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_with_uploads(part, f"{place}[{i}]", notes) for i, part in enumerate(value)]
    if isinstance(value, str) and (match := _UPLOAD.fullmatch(value)):
        return f"media:{match['sha256']}"
    if (
        isinstance(value, str)
        and place.endswith((".image", ".path", "audio", ".mask"))
        and value != "previous"
    ):
        notes.append(
            f"{place}: {re.split(r'[/]', value.replace(chr(92), '/'))[-1]} was a file; give it again."
        )
    return value
