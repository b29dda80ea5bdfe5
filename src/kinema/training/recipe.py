"""Recipes: YAML files that say how something was made, and makes it again."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from kinema.core.errors import ConfigError, about, unknown_name

T = TypeVar("T")


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; `ConfigError` when there is none."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())  # YAML's own takes several lines
        raise ConfigError(f"{path} is not readable YAML ({reason}); name a file of configs/.") from None
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


def entry(values: Mapping[str, Any], key: str) -> Any:
    """An entry that must be there; `ConfigError` when it is not."""
    if key not in values:
        raise ConfigError(f"it has no {key!r}; add it, as in configs/dry-run.yaml.")
    return values[key]


def made(kind: type[T], values: Any, what: str) -> T:
    """The dataclass `kind` from a recipe's mapping: known keys only, of their fields' types, finite.

    Args:
        kind: a dataclass, whose own checks of ranges follow.
        values: by field name.
        what: how the recipe calls it, for messages.

    Raises:
        ConfigError: an entry is unknown, missing, of another type, not finite or out of range.
    """
    with about(what):
        if not isinstance(values, Mapping):
            raise ConfigError(f"{values!r} is no mapping of settings.")
        known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
        hints = get_type_hints(kind)
        for key, value in values.items():
            if key not in known:
                raise unknown_name("setting", key, known)
            if not _fits(value, hints[key]):
                raise ConfigError(f"{key}={value!r} is not what belongs there; see configs/dry-run.yaml.")
        for name, field in known.items():
            if name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise ConfigError(f"it has no {name!r}; add it, as in configs/dry-run.yaml.")
        return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint in (int, bool, str):
        return type(value) is hint
    if get_origin(hint) is Mapping:
        return isinstance(value, Mapping)
    if get_origin(hint) is Sequence:
        return isinstance(value, list | tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    return value is None if hint is type(None) else isinstance(value, hint)
