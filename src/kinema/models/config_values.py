"""Values of a checkpoint's `config.json`, checked before anything is built from them.

A configuration comes from a stranger. A size of 10^9 would fill the memory before the weights could disagree;
a name of code (`auto_map`, `_target_`) asks to be run. Both are refused here by name; nothing of a
configuration is ever imported or called.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from kinema.core.errors import ModelError

MOST_LAYERS = 512
MOST_WIDTH = 1 << 20
MOST_WORDS = 1 << 23
_CODE = ("auto_map", "custom_pipelines", "custom_pipeline", "_target_", "trust_remote_code")
_INTERNAL = "_attn_implementation"
_LAYERS = ("layers", "blocks", "depth")
_WORDS = ("vocab", "positions", "position_embeddings", "seq_len", "length", "distance", "token_id")


def check_values(values: Any, origin: object) -> None:
    """Refuse a configuration that names code, or sizes that no model has.

    Args:
        values: what the file holds.
        origin: its path, for the message.

    Raises:
        ModelError: the entry, the rule, the way out.
    """
    check_code(values, origin)
    for name, value in _entries(values, ""):
        key = name.rsplit(".", 1)[-1]
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"{origin}: {name}={value} is not finite; get the file again.")
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > (most := _most(key)):
            raise ModelError(f"{origin}: {name}={str(value)[:24]} is above {most}; get the file again.")


def check_code(values: Any, origin: object) -> None:
    """Refuse a configuration that names code of its own.

    Raises:
        ModelError: the entry, the rule, the way out.
    """
    for name, value in _entries(values, ""):
        key = name.rsplit(".", 1)[-1]
        if value and (key in _CODE or key.startswith(_INTERNAL)):
            raise ModelError(
                f"{origin} asks for code to be run ({name[:60]}), which kinema never does; "
                "use a checkpoint without it."
            )


def _most(key: str) -> int:
    if any(part in key for part in _LAYERS):
        return MOST_LAYERS
    return MOST_WORDS if any(part in key for part in _WORDS) else MOST_WIDTH


def _entries(values: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every entry with its dotted name, mappings and lists before what they hold."""
    if depth > 16:
        raise ModelError(f"the configuration is nested more than 16 deep at {name[:60]}; get it again.")
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(values, Mapping):
        items = list(values.items())
    elif isinstance(values, list | tuple):
        items = [(name.rsplit(".", 1)[-1], value) for value in values]
    for key, value in items:
        inner = f"{name}.{key}" if name and isinstance(values, Mapping) else str(key)
        yield inner, value
        yield from _entries(value, inner, depth + 1)


def typed(kind: type, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """`values` for the dataclass `kind`: of its fields' types, lists as tuples, whole numbers above 0.

    Args:
        kind: a dataclass whose fields are numbers, flags, or tuples of numbers.
        values: by field name; unknown ones are refused.
        what: the model's part, for the message.

    Raises:
        ModelError: an entry is unknown, of another type, or a size below 1.
    """
    hints = get_type_hints(kind)
    if unknown := sorted(set(values) - {field.name for field in fields(kind)}):
        raise ModelError(f"config.json of the {what} has unknown entries: {', '.join(unknown)[:200]}.")
    checked = {}
    for field in fields(kind):
        if (name := field.name) not in values:
            continue
        value = values[name]
        least = 0 if field.default == 0 else 1  # a size that is 0 unless said otherwise may be 0
        value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, hints[name], least):
            raise ModelError(
                f"config.json of the {what}: {name}={str(value)[:60]!r} is not what belongs there; "
                "get the file again."
            )
        checked[name] = value
    check_values(checked, f"config.json of the {what}")
    return checked


def _fits(value: Any, hint: Any, least: int) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option, least) for option in get_args(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if not isinstance(value, tuple) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            return False
        return all(_fits(entry, inner[0], least) for entry in value)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return value is None if hint is type(None) else isinstance(value, hint)
