"""The request that a dropped file was made by: kinema's own record, or what other tools left in theirs.

Whoever asks gets `request` (a shot or storyboard), `source` (the tool), and `notes`: what has no counterpart
here, or has to be given again. The file is a stranger's: it is read in the inspector's process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.core.errors import ConfigError, MediaError
from kinema.io.record import read_record
from kinema.io.sniff import open_regular, sniff
from kinema.serve.restore_a1111 import read_parameters
from kinema.serve.restore_comfyui import read_graphs
from kinema.serve.restore_texts import texts_in
from kinema.story.files import MAX_BYTES, parse_json, parse_yaml, read_text
from kinema.story.import_file import import_values
from kinema.story.imported import Imported
from kinema.story.storyboard import from_mapping

_UPLOAD = re.compile(r"(?:.*[\\/])?media[\\/:](?P<sha256>[0-9a-f]{64})")
_FILES = (".image", ".path", ".mask", "upscale.model")


def restore_file(path: Path) -> dict[str, Any]:
    """`request`, `source` and `notes`.

    Raises:
        MediaError: the file tells nothing about its making.
        ConfigError: what it tells cannot be read.
    """
    with open_regular(path) as file:
        kind = sniff(file.read(4096))
    if kind is None:
        return _of_text(path)
    record = read_record(path)
    if record is not None and record.shot:
        return _answer("kinema", record.shot, [])
    texts = texts_in(path, kind)
    if "prompt" in texts or "workflow" in texts:
        return _imported(read_graphs(texts))
    if "parameters" in texts:
        return _imported(read_parameters(texts["parameters"]))
    raise MediaError(
        "the file does not tell how it was made; drop one of kinema, or of A1111 or ComfyUI with its data."
    )


def _of_text(path: Path) -> dict[str, Any]:
    """A shot file, a record, or a project of another tool."""
    text = read_text(path, 8 * MAX_BYTES)
    try:
        values = parse_json(text) if text.lstrip().startswith("{") else parse_yaml(text[: MAX_BYTES + 1])
    except ConfigError as error:
        raise MediaError(f"the file is neither a picture, a clip nor a shot: {error}") from None
    if not isinstance(values, Mapping):
        raise MediaError("the file is neither a picture, a clip nor a shot.")
    if "kinema" in values and isinstance(values.get("shot"), Mapping):
        return _answer("kinema", values["shot"], [])
    found = import_values(values)
    return _answer("kinema", values, []) if found is None else _imported(found)


def _imported(found: Imported) -> dict[str, Any]:
    return _answer(found.kind, found.values, list(found.lost))


def _answer(source: str, values: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    try:
        request = from_mapping(_with_uploads(dict(values), "", notes)).to_mapping()
    except ConfigError as error:
        raise ConfigError(f"what the file tells is not a shot that this version reads: {error}") from None
    return {"request": request, "source": source, "notes": notes}


def _with_uploads(value: Any, place: str, notes: list[str]) -> Any:
    """Paths of uploads as `media:`; other paths stay, with a note that the file has to be given again."""
    if isinstance(value, Mapping):
        inner = {name: f"{place}.{name}" if place else str(name) for name in value}
        return {name: _with_uploads(part, inner[name], notes) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_uploads(part, f"{place}[{i}]", notes) for i, part in enumerate(value)]
    if not isinstance(value, str):
        return value
    if match := _UPLOAD.fullmatch(value):
        return f"media:{match['sha256']}"
    if (place.endswith(_FILES) or place.split(".")[-1] == "audio") and value != "previous":
        name = re.split(r"[/\\]", value)[-1]
        notes.append(f"{place}: {name} was a file; give it again")
    return value
