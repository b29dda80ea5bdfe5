"""`Depth`: where a camera that moves in space takes the distances of a picture from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from kinema.core.errors import ConfigError
from kinema.story.media import MediaPath
from kinema.story.settings import Settings


class Depth(Settings):
    """How far away things are; as text: `flat`, or the path of a depth picture or clip.

    Distances are in units of the flat picture's: 1 is as far as the whole picture would be without depth.
    """

    path: MediaPath | None = Field(
        None, title="Depth picture", description="grey picture or clip; 16 bits are used"
    )
    model: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        title="Depth model",
        description="folder or hub id of a transformers depth model",
    )
    means: Literal["auto", "disparity", "distance"] = Field(
        "auto",
        title="Meaning",
        description="disparity: brighter is nearer; distance: brighter is farther; auto: disparity for a "
        "file, what a model says of itself",
    )
    near: float = Field(0.6, gt=0.0, le=1000.0, title="Near", description="distance of the nearest value")
    far: float = Field(3.0, gt=0.0, le=1000.0, title="Far", description="distance of the farthest value")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {} if value == "flat" else {"path": value}
        return value

    @model_validator(mode="after")
    def _agree(self) -> Depth:
        if self.path is not None and self.model is not None:
            raise ConfigError("path and model exclude each other; write one source of depth.")
        if self.near >= self.far:
            raise ConfigError(f"near={self.near:g} is not below far={self.far:g}; swap them.")
        return self

    @property
    def flat(self) -> bool:
        """Everything is at distance 1."""
        return self.path is None and self.model is None
