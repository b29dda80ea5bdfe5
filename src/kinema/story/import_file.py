"""Files of other animation tools as shots: which tool a file is of, and who reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kinema.core.errors import ConfigError
from kinema.story import import_animatediff, import_deforum, import_parseq
from kinema.story.files import parse_json, read_text
from kinema.story.imported import Imported

MAX_BYTES = 64_000_000

_READERS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Imported]], ...] = (
    (("rendered_frames", "managedFields"), import_parseq.read),
    (("animation_mode", "strength_schedule", "animation_prompts"), import_deforum.read),
    (("prompt_map", "n_prompt", "motion_module"), import_animatediff.read),
)
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|#[^\n]*')


def import_file(path: str | Path) -> Imported:
    """Read a Deforum settings file, a Parseq export or an animatediff-cli configuration.

    Raises:
        ConfigError: not readable, not JSON, or of no tool that is known; or with a value in it that the tool
            itself could not use.
    """
    path = Path(path)
    values = _read(path)
    try:
        found = import_values(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if found is not None:
        return found
    raise ConfigError(
        f"{path} is no Deforum settings file, Parseq export or animatediff-cli configuration "
        f"(its entries begin with {', '.join(str(name) for name in list(values)[:4]) or 'nothing'})."
    )


def import_values(values: Mapping[str, Any]) -> Imported | None:
    """The same from the file's values; None when they are of no tool that is known."""
    for signs, read in _READERS:
        if any(sign in values for sign in signs):
            return read(values)
    return None


def _read(path: Path) -> Mapping[str, Any]:
    text = read_text(path, MAX_BYTES)
    try:
        values = parse_json(text)
    except ConfigError as first:
        try:  # the animatediff-cli examples have comments
            values = parse_json(_COMMENT.sub(lambda match: match[1] or "", text))
        except ConfigError:
            raise ConfigError(f"{path}: {first}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} holds no settings; it is a {type(values).__name__}.")
    return values
