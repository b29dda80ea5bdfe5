"""Ranges of bytes as RFC 9110 (section 14) has them: what is wrong is ignored, what lies outside refused."""

from __future__ import annotations

import re

MOST = 100
"""Ranges of one request; whoever asks for more gets the whole."""
_BYTES = re.compile(r"bytes=(?P<specs>[-\d, \t]*)", re.ASCII | re.IGNORECASE)
_SPEC = re.compile(r"(?P<first>\d*)-(?P<last>\d*)", re.ASCII)
_MOST_DIGITS = 30

Range = tuple[int, int]


def parse_range(written: str, size: int) -> tuple[Range, ...] | None:
    """First and last byte of each range.

    Args:
        written: the header's value.
        size: bytes of the whole.

    Returns:
        Those that there is something of, in their order; None where the header is to be ignored; nothing
        where it is well formed and asks for what is not there: 416.
    """
    match = _BYTES.fullmatch(written.strip())
    specs = [] if match is None else [spec.strip() for spec in match["specs"].split(",")]
    specs = [spec for spec in specs if spec]  # a list may have empty places
    if not specs or len(specs) > MOST:
        return None
    found: list[Range] = []
    for spec in specs:
        one = _SPEC.fullmatch(spec)
        if one is None or spec == "-" or len(spec) > 2 * _MOST_DIGITS:
            return None
        if one["first"] and one["last"] and int(one["last"]) < int(one["first"]):
            return None
        first, last = _inside(one["first"], one["last"], size)
        if first <= last:
            found.append((first, last))
    return tuple(found)


def _inside(first: str, last: str, size: int) -> Range:
    """The part that is there; the last byte before the first where there is none."""
    if not first:
        return max(size - int(last), 0), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
