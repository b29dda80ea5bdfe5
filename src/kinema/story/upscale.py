"""`Upscale`: a clip's frames made larger, the last thing before its file.

As text `4`, `1.5:bicubic`, `2:nearest`, or with a network `4x.safetensors`, `2:4x.safetensors`.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from kinema.core.errors import ConfigError, unknown_name
from kinema.story.media import MediaPath
from kinema.story.settings import Settings

Resampling = Literal["lanczos", "bicubic", "nearest"]
METHODS: tuple[Resampling, ...] = ("lanczos", "bicubic", "nearest")
MIN_SCALE, MAX_SCALE = 1, 16

_RATIO = re.compile(r"(\d{1,4})/(\d{1,4})")
_DECIMAL = re.compile(r"\d{1,4}(?:\.\d{1,12})?")
_NUMBER = re.compile(r"[-+]?[\d./]+")


def parse_scale(value: object) -> Fraction:
    """How many times as many pixels a side has, 1 to 16, as a fraction.

    Raises:
        ConfigError: not a number or a ratio of whole numbers, or out of range.
    """
    scale = _read(value)
    if scale is None:
        raise ConfigError(f"{str(value)[:40]!r} is not a number; write 2, 1.5 or 4/3.")
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise ConfigError(
            f"{str(value)[:40]} is out of range; write {MIN_SCALE} to {MAX_SCALE}, times as large."
        )
    return scale


def _read(value: object) -> Fraction | None:
    if isinstance(value, str):
        text = value.strip()
        if match := _RATIO.fullmatch(text):
            return Fraction(int(match[1]), int(match[2])) if int(match[2]) else None
        return Fraction(text) if _DECIMAL.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        return None
    return Fraction(str(value)).limit_denominator(1_000_000) if math.isfinite(value) else None


def write_scale(scale: Fraction) -> int | float | str:
    """2, 1.5, or `4/3`: what `parse_scale` reads back exactly."""
    if scale.denominator == 1:
        return scale.numerator
    return float(scale) if Fraction(str(float(scale))) == scale else f"{scale.numerator}/{scale.denominator}"


class _Scale:
    """The pydantic face of `parse_scale` and `write_scale`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            parse_scale,
            serialization=core_schema.plain_serializer_function_ser_schema(write_scale, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "number", "minimum": MIN_SCALE, "maximum": MAX_SCALE},
                {"type": "string", "pattern": r"^\d{1,4}(\.\d{1,12}|/\d{1,4})?$"},
            ]
        }


Scale = Annotated[Fraction, _Scale]


class Upscale(Settings):
    """Larger frames; from text or a number: `4`, `2:nearest`, `4x.safetensors`, `2:4x.safetensors`."""

    scale: Scale | None = Field(
        None, title="Scale", description="times as large: 4, 1.5 or 4/3; with a network, by default its own"
    )
    method: Resampling = Field(
        "lanczos",
        title="Method",
        description="lanczos, bicubic, or nearest: every pixel a square; with a network, what brings its "
        "result to another scale",
    )
    model: MediaPath | None = Field(
        None, title="Network", description="an ESRGAN or Real-ESRGAN network: path of a .safetensors file"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, int | float | Fraction) and not isinstance(value, bool):
            return {"scale": value}
        return _parts(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _agree(self) -> Upscale:
        if self.model is not None:
            if self.method == "nearest":
                raise ConfigError("method=nearest repeats pixels and needs no model; leave one of them out.")
            return self
        if self.scale is None:
            raise ConfigError("scale is missing; write 2, 4 or another, times as large.")
        if self.scale == 1:
            raise ConfigError("scale=1 leaves frames as they are; write more, or leave upscale out.")
        if self.method == "nearest" and self.scale.denominator != 1:
            whole = sorted({max(2, math.floor(self.scale)), math.ceil(self.scale)})
            raise ConfigError(
                f"scale={write_scale(self.scale)} with method=nearest repeats pixels unevenly; write "
                f"{' or '.join(map(str, whole))}, or lanczos."
            )
        return self


def _parts(text: str) -> dict[str, str]:
    """What stands in one text: a scale, and after a colon how; or how alone."""
    first, colon, rest = (part.strip() for part in text.partition(":"))
    if not _NUMBER.fullmatch(first):  # a drive's colon belongs to its path
        return _how(text.strip())
    return {"scale": first} | (_how(rest) if colon else {})


def _how(text: str) -> dict[str, str]:
    """A method by its name, or else a file, which has a dot in its name."""
    if text in METHODS:
        return {"method": text}
    if not re.search(r"[./\\]", text):
        raise unknown_name("method", text[:40], [*METHODS, "FILE.safetensors"])
    return {"model": text}
