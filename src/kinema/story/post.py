"""What is done to a clip's frames after they are made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from kinema.story.settings import Settings
from kinema.story.timing import FrameRate

Method = Literal["flow", "minterpolate", "blend"]


class Interpolate(Settings):
    """Another frame rate, with frames drawn in between; from text or a number: `24`, `24:blend`."""

    fps: FrameRate = Field(title="Frames per second", description="of the file: 24, 29.97 or 30000/1001")
    method: Method = Field(
        "flow",
        title="Method",
        description="flow: along the motion; minterpolate: ffmpeg's filter; blend: the mean of two frames",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"fps": value}
        if not isinstance(value, str):
            return value
        rate, colon, method = value.partition(":")
        return {"fps": rate.strip(), **({"method": method.strip()} if colon else {})}
