"""Frame rates as exact fractions: 24, `30000/1001`, or 23.976, which is meant to be 24000/1001."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kinema.core.errors import ConfigError

MIN_FPS, MAX_FPS = Fraction(1, 10), Fraction(1000)

_NTSC = tuple(Fraction(rate * 1000, 1001) for rate in (12, 15, 24, 30, 48, 60, 120, 240))
_RATIO = re.compile(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*")
_DECIMAL = re.compile(r"\s*\d{1,9}(?:\.\d{0,12})?\s*")
_SLACK = 0.005  # frames per second: 29.97, 23.98 and 23.976 are all within it


def parse_fps(value: object) -> Fraction:
    """Frames per second, 0.1 to 1000, as a fraction.

    A decimal within 0.005 of a television rate (24000/1001, 30000/1001, ...) is that rate.

    Raises:
        ConfigError: not a number or a ratio of whole numbers, or out of range.
    """
    fps = _read(value)
    if fps is None:
        raise ConfigError(f"fps={str(value)[:40]!r} is not a frame rate; write 24, 29.97 or 30000/1001.")
    if not MIN_FPS <= fps <= MAX_FPS:
        raise ConfigError(f"fps={str(value)[:40]} is out of range; write {float(MIN_FPS)} to {MAX_FPS}.")
    return fps


def _read(value: object) -> Fraction | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Fraction):
        return Fraction(value)
    if isinstance(value, str):
        if match := _RATIO.fullmatch(value):
            return Fraction(int(match[1]), int(match[2])) if int(match[2]) else None
        value = float(value) if _DECIMAL.fullmatch(value) else None
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    for rate in _NTSC:
        if abs(value - float(rate)) < _SLACK:
            return rate
    return Fraction(value).limit_denominator(1001)


def write_fps(fps: Fraction) -> int | str:
    """24, or `30000/1001`: what `parse_fps` reads back exactly."""
    return fps.numerator if fps.denominator == 1 else f"{fps.numerator}/{fps.denominator}"


class _FrameRate:
    """The pydantic face of `parse_fps` and `write_fps`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            parse_fps,
            serialization=core_schema.plain_serializer_function_ser_schema(write_fps, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "number", "minimum": float(MIN_FPS), "maximum": float(MAX_FPS)},
                {"type": "string", "pattern": r"^\d{1,9}(\.\d{1,12}|/\d{1,9})?$"},
            ]
        }


FrameRate = Annotated[Fraction, _FrameRate]
