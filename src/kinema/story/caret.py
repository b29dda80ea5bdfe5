"""Errors about a place in a text: a line that says what is wrong, the text, and a caret under the place."""

from __future__ import annotations

from typing import TypeVar

from kinema.core.errors import ConfigError

_Error = TypeVar("_Error", bound=ConfigError)
_BEFORE, _AFTER = 48, 24  # characters of context shown on each side of the caret


def at_caret(kind: type[_Error], message: str, text: str, column: int) -> _Error:
    """A `kind` that reads `message`, then the surroundings of `column` (from 0) in `text`, then a caret."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    column = min(max(column, 0), len(flat))
    start, end = max(0, column - _BEFORE), column + _AFTER
    head = "…" if start else ""
    tail = "…" if end < len(flat) else ""
    return kind(f"{message}\n  {head}{flat[start:end]}{tail}\n  {' ' * (len(head) + column - start)}^")
