"""Options of another program, by that program's own names: checked where its own list of names is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from kinema.core.errors import ConfigError

MOST = 64
Value = bool | int | float | str


def _pairs(options: Any) -> Any:
    """A mapping, or pairs, in the order of the names."""
    pairs = list(options.items()) if isinstance(options, Mapping) else options
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(p, list | tuple) and len(p) == 2 for p in pairs
    ):
        raise ConfigError(f"{str(options)[:40]!r} is not a mapping of names to values.")
    if not all(isinstance(name, str) for name, _ in pairs):
        raise ConfigError("options are a mapping of names to values: motion_bucket_id: 180.")
    return tuple(sorted(map(tuple, pairs)))


Options = Annotated[
    tuple[tuple[Annotated[str, Field(min_length=1, max_length=100)], Value], ...],
    Field(max_length=MOST),
    BeforeValidator(_pairs),
    PlainSerializer(dict),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MOST,
            "propertyNames": {"minLength": 1, "maxLength": 100},
            "additionalProperties": {"type": ["boolean", "number", "string"]},
        }
    ),
]
"""Pairs of name and value; written as a mapping."""
