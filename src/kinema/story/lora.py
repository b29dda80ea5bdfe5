"""`Lora`: a small file that changes a model, and how strongly it does.

As text `style.safetensors`, `style.safetensors:0.8`, or with a schedule `style.safetensors:0:(0), 16:(1)`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from kinema.core.errors import ConfigError
from kinema.story.media import MediaPath
from kinema.story.settings import Settings
from kinema.story.tracks import Schedule

_WRITTEN = re.compile(r"(?P<path>.+?\.safetensors)(?::(?P<scale>.+))?", re.DOTALL)


class Lora(Settings):
    """A LoRA file with its scale."""

    path: MediaPath = Field(title="File", description="path of a .safetensors file")
    scale: Schedule = Field(
        Schedule(1.0),
        title="Scale",
        description="how strongly it acts, 0 not at all; may run over frames, and below 0",
        json_schema_extra={"default": 1.0},
    )
    expert: Literal["both", "high", "low"] | None = Field(
        None,
        title="Transformer",
        description="in models of two transformers: the one of high noise, of low noise, or both",
    )
    merge: bool = Field(
        False,
        title="Merge",
        description="fold it into the weights while rendering: faster steps; the scale must be one number",
    )

    @classmethod
    def from_text(cls, text: str, expert: str | None = None) -> Lora:
        """`FILE.safetensors` or `FILE.safetensors:SCALE`, for one of two transformers where there are two."""
        return cls.from_mapping(_parts(text) | ({} if expert is None else {"expert": expert}))

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return _parts(value) if isinstance(value, str) else value


def _parts(text: str) -> dict[str, str]:
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text[:60]!r} is no LoRA; write FILE.safetensors, or FILE.safetensors:0.8.")
    return {"path": found["path"]} | ({"scale": found["scale"]} if found["scale"] else {})


def as_loras(value: Any) -> Any:
    """One LoRA where a list of them is expected."""
    return (value,) if isinstance(value, str | os.PathLike | Lora | Mapping) else value
