"""Sizes of pictures as they are written."""

from __future__ import annotations

import re

from kinema.core.errors import ConfigError

_SIZE = re.compile(r"\s*(\d{1,6})\s*[xX*×]\s*(\d{1,6})\s*")


def parse_size(size: object) -> tuple[int, int]:
    """Width and height from `"832x480"`, `"832*480"` or `[832, 480]`; `ConfigError` for anything else."""
    if isinstance(size, str) and (match := _SIZE.fullmatch(size)):
        return int(match[1]), int(match[2])
    if isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size):
        return size[0], size[1]
    raise ConfigError(f"size={str(size)[:40]!r} is not a size; write WIDTHxHEIGHT, such as 832x480.")
