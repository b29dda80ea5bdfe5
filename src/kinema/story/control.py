"""`Control`: pictures that the frames follow (edges, depth, poses), and the network that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from kinema.core.errors import ConfigError
from kinema.story.media import MediaPath
from kinema.story.settings import Settings
from kinema.story.tracks import Schedule

MOST = 4.0

Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Control(Settings):
    """A picture for all frames, or a clip with one for each, that the drawing follows."""

    path: MediaPath = Field(
        title="Control", description="picture or clip of edges, depth, poses, ... as the network learned them"
    )
    model: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        title="Control model",
        description="folder or hub id of the ControlNet that reads it; none for VACE, which reads it itself",
    )
    mask: MediaPath | None = Field(
        None,
        title="Mask",
        description="picture or clip, for VACE: white is made, black keeps what the control shows there",
    )
    strength: Schedule = Field(
        Schedule(1.0),
        title="Strength",
        description="how firmly the frames follow it, 0 not at all; may run over frames",
        json_schema_extra={"default": 1.0},
    )
    start: Unit = Field(0.0, title="Start", description="share of the steps from which it acts")
    end: Unit = Field(1.0, title="End", description="share of the steps until which it acts")

    @model_validator(mode="before")
    @classmethod
    def _of_something(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values and "path" not in values:
            name = next(iter(values))
            raise ConfigError(
                f"control.{name} needs control.path, the picture or clip to follow (--control FILE)."
            )
        return values

    @model_validator(mode="after")
    def _agree(self) -> Control:
        if self.start >= self.end:
            raise ConfigError(
                f"control acts from {self.start:g} to {self.end:g}; write the earlier share first."
            )
        constant = self.strength.constant
        if constant is not None and not 0 <= constant <= MOST:
            raise ConfigError(f"control.strength={constant:g} is out of range; write 0 to {MOST:g}.")
        return self
