"""Where in a clip: a frame `24`, seconds `2s`, a share `50%`, or a frame from the end, `-1` being the last.

frame = n | frames + n for n < 0 | round(seconds * fps) | round(share * (frames - 1))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kinema.core.errors import ConfigError

POSITION_PATTERN = r"^([+-]?\d{1,9}|\d{1,9}(\.\d{1,9})?(s|%))$"
_POSITION = re.compile(r"([+-]?\d{1,9})|(\d{1,9}(?:\.\d{1,9})?)(s|%)")


def _nearest(x: Fraction) -> int:
    """Rounded, halves up."""
    return (2 * x + 1) // 2


@dataclass(frozen=True, slots=True)
class FramePosition:
    """A place in a clip whose length is not known yet; a pydantic type.

    Attributes:
        unit: what `value` counts.
        value: frames (negative: from the end), seconds, or percent.
        source: what the user wrote, a frame as an integer.
    """

    unit: Literal["frame", "s", "%"]
    value: Fraction
    source: int | str

    @staticmethod
    def parse(source: object) -> FramePosition:
        """Read `24`, `"24"`, `-1`, `"2s"`, `"1.5s"` or `"50%"`; `ConfigError` for anything else."""
        if isinstance(source, FramePosition):
            return source
        match = None
        if isinstance(source, int | str) and not isinstance(source, bool):
            match = _POSITION.fullmatch(str(source).strip()) if len(str(source)[:32]) < 32 else None
        if match is None:
            raise ConfigError(
                f"{str(source)[:40]!r} is not a place in a clip; write a frame (24), seconds (2s), "
                "a share (50%) or a frame from the end (-1)."
            )
        frame, number, unit = match.groups()
        if unit == "%" and Fraction(number) > 100:
            raise ConfigError(f"{source!r} is past the end; a share runs from 0% to 100%.")
        if frame is not None:
            return FramePosition("frame", Fraction(frame), int(frame))
        return FramePosition("s" if unit == "s" else "%", Fraction(number), match[0])

    def resolve(self, frames: int, fps: float | Fraction) -> int:
        """The frame, 0..frames - 1; `ConfigError` naming the last frame when it lies outside."""
        last = frames - 1
        if self.unit == "s":
            frame = _nearest(self.value * Fraction(fps))
        elif self.unit == "%":
            frame = _nearest(self.value * last / 100)
        else:
            frame = int(self.value) + (frames if self.value < 0 else 0)
        if not 0 <= frame <= last:
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
