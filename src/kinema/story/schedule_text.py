"""How a schedule is written, in our notation: a value, a mapping of places to values, or a keyed string.

    0:(1), 2s:(2 + sin(t)), 50%:(3, ease=in_out), 8b..12b:(4), -1:(0)

Commas and colons in parentheses belong to the value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from kinema.core.errors import ConfigError
from kinema.story.caret import Place
from kinema.story.easing import Easing
from kinema.story.expressions import VARIABLES, Expression
from kinema.story.keyed import Key, ease_name, entries, read_place

Value = float | Expression | Callable[[int], float]

LINEAR = "linear"
MAX_TEXT = 100_000
MAX_FORMULAS = 1000

_PLAIN = re.compile(r"\(?[+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][+-]?\d{1,2})?\)?", re.ASCII)


def read_value(value: object, where: str, key: str | None = None) -> Value:
    """A finite number, an expression from text, or a function.

    Args:
        value: what was written.
        where: what a message begins with.
        key: the key it belongs to, for messages with a caret.
    """
    if isinstance(value, str):
        return Expression(value, VARIABLES, Place(value, 0, key))
    if callable(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = " ".join(repr(value).split())  # an array's has line breaks
        shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
        raise ConfigError(f"{where}{shown} is not a number or an expression in quotes.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{where}{number} is not finite; write a number.")
    return number


def number_keys(source: Mapping[Any, Any]) -> Iterator[Key[Value]]:
    """The keys of a mapping."""
    default = _easing(source.get("ease", LINEAR))
    for place, written in source.items():
        if place == "ease":
            continue
        position, until = read_place(place)
        value, ease = written, default
        if isinstance(written, Mapping):
            entry = entries(written, ("value", "ease"), place)
            value, ease = entry["value"], _easing(entry.get("ease", default))
        yield Key(position, read_value(value, f"key {place}: ", str(place)), ease, until)


def _easing(value: object) -> str | Easing:
    return value if callable(value) else ease_name(value)


def is_keyed(text: str) -> bool:
    """Whether a string has keys, `0:(1)`; the colon of `a ? b : c` makes none."""
    before, colon, _ = text.partition(":")
    return bool(colon) and "?" not in before


def keyed_text(text: str) -> Iterator[Key[Value]]:
    """The keys of a string; `ConfigError` names key and column, with a caret."""
    if len(text) > MAX_TEXT:
        raise Place(text).error(f"a schedule of {len(text)} characters; the most is {MAX_TEXT}")
    formulas: dict[str, Expression] = {}
    for start, part in _split_at_commas(text):
        place, colon, written = part.partition(":")
        spot = Place(text, start)
        if not colon:
            raise spot.error("missing ':' between a frame and its value, as in 30:(2)")
        try:
            position, until = read_place(place.strip().strip("\"'").strip())
        except ConfigError as error:
            raise spot.error(str(error).rstrip(".")) from None
        key = place.strip()
        column = start + len(place) + 1 + len(written) - len(written.lstrip())
        if not written.strip():
            raise Place(text, column, key).error("there is no value; write one, such as (1)")
        value, ease = _value_and_ease(written.strip(), Place(text, column, key), formulas)
        yield Key(position, value, ease, until)


def _value_and_ease(written: str, spot: Place, formulas: dict[str, Expression]) -> tuple[Value, str]:
    ease = LINEAR
    if (found := _ease(written)) is not None:
        comma, start = found
        ease = written[start:-1].strip()
        try:
            Key(read_place(0)[0], 0.0, ease)
        except ConfigError as error:
            raise spot.error(str(error).rstrip("."), start) from None
        written = written[:comma] + ")"
    if _PLAIN.fullmatch(written) and written.startswith("(") == written.endswith(")"):
        return float(written.strip("()")), ease
    known = formulas.get(written)
    if known is not None:
        return known.at(spot), ease
    if len(formulas) >= MAX_FORMULAS:
        raise spot.error(f"more than {MAX_FORMULAS} different formulas in one schedule; use numbers")
    formulas[written] = Expression(written, VARIABLES, spot)
    return formulas[written], ease


def _ease(written: str) -> tuple[int, int] | None:
    """Of `(3, ease=in_out)` where the comma is and where the easing's name begins; None without an easing.

    The comma stands in the last parenthesis and in none within it.
    """
    if not written.endswith(")"):
        return None
    found, depth, end = None, 0, len(written)
    for match in reversed(list(re.finditer(r"[(),]", written))):
        depth += {"(": -1, ")": 1, ",": 0}[match[0]]
        if depth == 0:
            break
        if match[0] == "," and depth == 1:
            name, equals, value = written[match.end() : end].partition("=")
            if equals and name.strip() == "ease":
                found = match.start(), end - len(value.lstrip())
        end = match.start()
    return found


def _split_at_commas(text: str) -> Iterator[tuple[int, str]]:
    """The parts between commas outside parentheses, each with its column; a trailing comma is fine."""
    cuts, depth = [-1], 0
    for match in re.finditer(r"[(),]", text):
        depth += {"(": 1, ")": -1, ",": 0}[match[0]]
        if match[0] == "," and depth <= 0:
            cuts.append(match.start())
    for a, b in pairwise([*cuts, len(text)]):
        part = text[a + 1 : b]
        if part.strip() or b < len(text):
            yield a + 1 + len(part) - len(part.lstrip()), part.strip()
