"""Paths of pictures and clips as settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from kinema.core.errors import ConfigError


def _checked_path(path: str) -> str:
    if "\0" in path:
        raise ConfigError(f"{path[:40]!r} has a NUL character; no file has that in its name.")
    return path


MediaPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_checked_path)]
