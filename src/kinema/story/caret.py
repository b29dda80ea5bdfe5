"""Errors about a place in a text: a line that says what is wrong, the text, and a caret under the place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

from kinema.core.errors import ConfigError

_Error = TypeVar("_Error", bound=ConfigError)
_BEFORE, _AFTER = 48, 24  # characters of context shown on each side of the caret


def at_caret(kind: type[_Error], message: str, text: str, column: int) -> _Error:
    """A `kind` that reads `message`, then the surroundings of `column` (from 0) in `text`, then a caret."""
    column = min(max(column, 0), len(text))
    start, end = max(0, column - _BEFORE), column + _AFTER
    flat = "".join(c if c.isprintable() else " " for c in text[start:end])
    head = "…" if start else ""
    tail = "…" if end < len(text) else ""
    return kind(f"{message}\n  {head}{flat}{tail}\n  {' ' * (len(head) + column - start)}^")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part of a text stands, for errors about it.

    Attributes:
        text: everything that the user wrote.
        start: the column in it, from 0, where the part begins.
        key: the key that the part belongs to.
    """

    text: str
    start: int = 0
    key: str | None = None

    def error(self, message: str, column: int = 0) -> ConfigError:
        """`key 30, column 17: message`, columns counted from 1, and the caret under `column` of the part."""
        at = min(self.start + column, len(self.text))
        key = "" if self.key is None else f"key {self.key}, "
        return at_caret(ConfigError, f"{key}column {at + 1}: {message}", self.text, at)


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """What to say about a name that is none of `choices`: the nearest, or else all of them."""
    choices = sorted(choices)
    close = get_close_matches(name, choices, n=1)
    way_out = f"Did you mean {close[0]!r}?" if close else f"Available: {', '.join(choices)}"
    return f"unknown {kind} {name!r}. {way_out}"
