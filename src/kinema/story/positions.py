"""Where in a clip: a frame `24`, seconds `2s`, beats `8b`, a share `50%`, or `-1`, `-2`, ... from the end.

    frame = n | frames + n for n < 0 | round(seconds * fps) | round(share * (frames - 1))

`max_f`, `max_f-2` and `max_f/2`, as Deforum's users write them, are `-1`, `-3` and `50%`. A beat is where the
shot's music has it; without any, half a second long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kinema.core.errors import ConfigError
from kinema.story.music import Music

_PLACE = r"([+-]?\d{1,9}|\d{1,9}(\.\d{1,9})?(s|b|%)|max_f( ?[-/] ?\d{1,9})?)"
POSITION_PATTERN = rf"^{_PLACE}$"
RANGE_PATTERN = rf"^{_PLACE}(\.\.{_PLACE})?$"
_POSITION = re.compile(r"([+-]?\d{1,9})|(\d{1,9}(?:\.\d{1,9})?)(s|b|%)")
_UNITS: Mapping[str, Literal["s", "b", "%"]] = {"s": "s", "b": "b", "%": "%"}
_LAST = re.compile(r"max_f\s*(?:([-/])\s*(\d{1,9}))?")


def _nearest(x: Fraction) -> int:
    """Rounded, halves up."""
    return (2 * x + 1) // 2


def _from_the_end(source: str) -> str:
    """`max_f-2` as `-3`, `max_f/2` as `50%`; anything else as it is."""
    match = _LAST.fullmatch(source)
    if match is None or (match[1] == "/" and int(match[2]) == 0):
        return source
    if match[1] == "/":
        share = Fraction(100, int(match[2]))
        return f"{float(share):.9f}%"
    return str(-1 - int(match[2] or 0))


@dataclass(frozen=True, slots=True)
class FramePosition:
    """A place in a clip whose length is not known yet; a pydantic type.

    Attributes:
        unit: what `value` counts.
        value: frames (negative: from the end), seconds, beats, or percent.
        source: what the user wrote, a frame as an integer.
    """

    unit: Literal["frame", "s", "b", "%"]
    value: Fraction
    source: int | str

    @staticmethod
    def parse(source: object) -> FramePosition:
        """Read `24`, `"24"`, `-1`, `"2s"`, `"1.5s"`, `"8b"` or `"50%"`; `ConfigError` for anything else."""
        if isinstance(source, FramePosition):
            return source
        match = None
        if isinstance(source, str) and source.strip().startswith("max_f"):
            source = _from_the_end(source.strip())
        if isinstance(source, Integral) and not isinstance(source, bool):
            source = int(source)  # numpy's whole numbers are Integral too
        if isinstance(source, int | str) and not isinstance(source, bool):
            match = _POSITION.fullmatch(str(source).strip()) if len(str(source)[:32]) < 32 else None
        if match is None:
            raise ConfigError(
                f"{str(source)[:40]!r} is not a place in a clip; write a frame (24), seconds (2s), "
                "beats (8b), a share (50%) or a frame from the end (-1)."
            )
        frame, number, unit = match.groups()
        if unit == "%" and Fraction(number) > 100:
            raise ConfigError(f"{source!r} is past the end; a share runs from 0% to 100%.")
        if frame is not None:
            return FramePosition("frame", Fraction(frame), int(frame))
        return FramePosition(_UNITS[unit], Fraction(number), match[0])

    def heard(self, music: Music) -> FramePosition:
        """The same place, with beats as the seconds at which this music has them."""
        if self.unit != "b":
            return self
        return FramePosition("s", music.seconds_of(self.value), self.source)

    def resolve(self, frames: int, fps: float | Fraction, *, beyond: bool = False) -> int:
        """The frame, 0..frames - 1; `ConfigError` naming the last frame when it lies outside.

        Args:
            frames: of the clip.
            fps: frames per second.
            beyond: a frame past the end is given as it is.
        """
        last = frames - 1
        if self.unit in ("s", "b"):
            seconds = self.value if self.unit == "s" else Music().seconds_of(self.value)
            frame = _nearest(seconds * Fraction(fps))
        elif self.unit == "%":
            frame = _nearest(self.value * last / 100)
        else:
            frame = int(self.value) + (frames if self.value < 0 else 0)
        if frame < 0 or (frame > last and not beyond):
            which = "" if self.unit == "frame" else f" (frame {frame})"
            side = "past the end" if frame > last else "before the start"
            raise ConfigError(f"{self.source}{which} is {side}: the last of {frames} frames is {last}.")
        return frame

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.source),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": POSITION_PATTERN}]}
