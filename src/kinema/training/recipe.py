"""Recipes: YAML files that say how something was made, and makes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kinema.core.errors import ConfigError


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; `ConfigError` when there is none."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not readable YAML ({error}); name a file of configs/.") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no settings; name a file of configs/.")
    return document


def read_cast(path: str | Path) -> tuple[str, ...]:
    """Names of identities, one a line; `ConfigError` when there are none."""
    try:
        names = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable text ({error}); name a file of configs/casts/.") from None
    found = tuple(name.strip() for name in names if name.strip())
    if not found:
        raise ConfigError(f"{path} names nobody; write one name of the sprite bank a line.")
    return found
