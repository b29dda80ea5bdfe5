"""`Source`: a clip that is painted over, all of it or where a mask is white."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, model_validator

from kinema.core.errors import ConfigError
from kinema.story.media import MediaPath
from kinema.story.redraw import BARS, RANGES
from kinema.story.settings import Settings

STRENGTH = 0.6
MOST_FEATHER = RANGES["mask_feather"][1]

Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Source(Settings):
    """A clip that is painted over; from text: its path."""

    path: MediaPath = Field(title="Clip", description="path of the video")
    strength: Unit = Field(
        STRENGTH, title="Strength", description="0 keeps the clip, 1 ignores it; with a mask 1 by itself"
    )
    mask: MediaPath | None = Field(
        None,
        title="Mask",
        description="picture or video: white is made anew, black keeps the clip's own pixels; bars: what "
        "fit: pad leaves open around it",
    )
    mask_invert: bool = Field(False, title="Invert mask", description="black is made anew instead")
    mask_feather: float = Field(
        0.0,
        ge=0.0,
        le=MOST_FEATHER,
        title="Mask feather",
        description="pixels over which the mask's edge is softened",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"path": value}
        if isinstance(value, dict) and value.get("mask") is not None:
            return {"strength": 1.0, **value}  # what a mask opens is to be filled, not retouched
        return value

    @model_validator(mode="after")
    def _agree(self) -> Source:
        """The mask's settings mean something with a mask only."""
        for name in ("mask_invert", "mask_feather") if self.mask is None else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigError(f"source.{name} does nothing without source.mask: a picture or a video.")
        return self

    @property
    def outpaints(self) -> bool:
        """What is open is what the clip's own shape leaves of the frame."""
        return self.mask == BARS

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the clip and of its mask."""
        return (self.path,) if self.mask is None or self.outpaints else (self.path, self.mask)

    def with_files(self, change: Callable[[str], str]) -> Source:
        """A copy whose paths are changed."""
        mask = {} if self.mask is None or self.outpaints else {"mask": change(self.mask)}
        return self.with_(path=change(self.path), **mask)
