"""Paths of pictures and clips as settings."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from kinema.core.errors import ConfigError

MOST_BYTES = 255  # of one name in a path


def _as_text(path: Any) -> Any:
    """A `pathlib.Path` as the text that a record keeps."""
    return os.fspath(path) if isinstance(path, os.PathLike) else path


def _checked_path(path: str) -> str:
    if "\0" in path:
        raise ConfigError(f"{path[:40]!r} has a NUL character; no file has that in its name.")
    if any(len(name.encode("utf-8", "surrogatepass")) > MOST_BYTES for name in re.split(r"[/\\]", path)):
        raise ConfigError(f"{path[:40]!r}... is longer than the {MOST_BYTES} bytes that a file's name has.")
    return path


MediaPath = Annotated[
    str, BeforeValidator(_as_text), Field(min_length=1, max_length=4096), AfterValidator(_checked_path)
]
