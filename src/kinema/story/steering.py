"""`nag` and `skip_layers`: guidance inside attention, and away from a weaker network."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from kinema.core.errors import ConfigError
from kinema.story.settings import Settings

MAX_LAYER = 1000
_LAYERS = re.compile(r"\s*(?P<layers>\d{1,4}(?:\s*,\s*\d{1,4})*)\s*(?::\s*(?P<how>[0-9.]{1,8}|negative)\s*)?")

Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Nag(Settings):
    """Normalized attention guidance: tokens read less of the negative prompt; from a number, its scale."""

    scale: float = Field(11.0, ge=1.0, le=1000.0, title="Scale", description="how far away; 1 is off")
    tau: float = Field(
        2.5, gt=0.0, le=1000.0, title="Limit", description="how many times as long attention may become"
    )
    alpha: Unit = Field(0.25, title="Share", description="of the result, beside plain attention")

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"scale": value} if isinstance(value, int | float | str) and value is not True else value


class SkipLayers(Settings):
    """Guidance away from the network without some blocks; from text, `9`, `9,10:2.8` or `9:negative`."""

    layers: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=MAX_LAYER)], ...],
        Field(min_length=1, max_length=MAX_LAYER),
        AfterValidator(lambda layers: tuple(sorted(set(layers)))),
    ] = Field(title="Layers", description="blocks that are left out, from 0")
    scale: float = Field(
        1.0, ge=0.0, le=100.0, title="Scale", description="how far away from what is drawn without them"
    )
    side: Literal["own", "negative"] = Field(
        "own",
        title="Side",
        description="own: away from the prompt's own forward without them, which is one more; negative: the "
        "negative prompt's forward does without them",
    )
    interval: tuple[Unit, Unit] = Field(
        (0.0, 1.0), title="Interval", description="noise levels, low and high, between which it acts"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"layers": (value,)}
        if not isinstance(value, str):
            return value
        found = _LAYERS.fullmatch(value)
        if found is None:
            raise ConfigError(f"{value[:60]!r} names no layers; write 9, 9,10:2.8 (a scale), or 9:negative.")
        layers = tuple(int(number) for number in found["layers"].split(","))
        how = found["how"]
        return {"layers": layers} | ({} if how is None else {"side" if how == "negative" else "scale": how})

    @model_validator(mode="after")
    def _rising(self) -> SkipLayers:
        low, high = self.interval
        if low > high:
            raise ConfigError(f"skip_layers.interval={low:g}, {high:g} falls; write the lower level first.")
        if self.side == "negative" and self.scale != 1:
            raise ConfigError(
                "skip_layers.scale is of side: own; of the negative side, guidance is the scale."
            )
        return self
