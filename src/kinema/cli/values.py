"""What options say in texts of their own, as values of a shot."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from kinema.core.errors import ConfigError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


def from_yaml(text: str, option: str) -> Any:
    """`{fps: 24, method: flow}` as the values that it is in a shot file; any other text as it is.

    Raises:
        ConfigError: it begins with a brace and is not YAML; the message names the option.
    """
    if not text.lstrip().startswith("{"):
        return text
    from kinema.story.files import parse_yaml

    try:
        return parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{option} {text[:40]!r}: {error}") from None


def read_vars(texts: Sequence[str] | None) -> dict[str, Any]:
    """`["subject=a wolf", "pace=2"]` as a mapping, values read as in a shot file."""
    from kinema.story.files import scalar

    return _named(texts or (), "--var", "subject=a wolf", scalar)


def _named(texts: Sequence[str], option: str, example: str, read: Callable[[str], Any]) -> dict[str, Any]:
    """What texts of NAME=VALUE say together, or of `{name: value}`; each name once."""
    found: dict[str, Any] = {}
    for text in texts:
        values = from_yaml(text, option)
        if not isinstance(values, dict):
            name, equals, value = (part.strip() for part in text.partition("="))
            values = {name: read(value)} if name and equals and value else {"": None}
        if not all(isinstance(name, str) and name for name in values):
            raise ConfigError(f"{option} {text!r} is not NAME=VALUE; write for example {option} {example!r}.")
        if twice := found.keys() & values:
            raise ConfigError(f"{option} {min(twice)} is said twice; say it once.")
        found |= values
    return found


def two_levels(text: str) -> list[str]:
    """`0.1,0.9` as its two ends; `ConfigError` for anything but two."""
    levels = text.split(",")
    if len(levels) != 2:
        raise ConfigError(f"guidance_interval={text!r} is not two noise levels; write LOW,HIGH: 0.1,0.9.")
    return levels


def named_values(texts: Sequence[str]) -> dict[str, Any]:
    """`["strength=0.5", "seed=fixed"]` as a mapping; names and ranges are checked by the shot."""

    def read(value: str) -> Any:
        return float(value) if _NUMBER.fullmatch(value) else from_yaml(value, "--redraw")

    return _named(texts, "--redraw", "strength=0.5", read)


def option_values(texts: Sequence[str]) -> dict[str, Any]:
    """`["motion_bucket_id=180"]` as a mapping, values read as in a shot file."""
    from kinema.story.files import scalar

    return _named(texts, "--option", "motion_bucket_id=180", scalar)
