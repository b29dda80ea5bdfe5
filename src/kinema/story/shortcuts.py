"""`speed` and `shortcuts`: how far a clip may be from the exact one, and by what means it is made sooner."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from kinema.core.errors import ConfigError
from kinema.story.settings import Settings

Speed = Literal["exact", "near", "fast", "few", "distilled"]
MAX_STEPS = 1000
WARMUP, FINAL = 2, 1  # steps at both ends that no cache skips


def _ascending(steps: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(steps)))


Steps = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=MAX_STEPS)], ...],
    Field(max_length=MAX_STEPS),
    AfterValidator(_ascending),
]


class Shortcuts(Settings):
    """What is not computed in every step. A speed tier fills this in; it may be written by hand too."""

    cache: Literal["off", "schedule", "first-block"] = Field(
        "off",
        title="Cache",
        description="off; schedule: the steps in skip take their blocks from the step before; first-block: "
        "steps in which the first block changes by less than threshold do",
    )
    skip: Steps = Field((), title="Skipped steps", description="of the schedule, from 0")
    threshold: float = Field(
        0.1,
        gt=0.0,
        le=10.0,
        title="Threshold",
        description="of first-block; the larger, the faster and rougher",
    )
    order: Literal[0, 1] = Field(
        1, title="Order", description="0 takes what was computed last; 1 carries it on along the noise levels"
    )
    reuse: Steps = Field(
        (), title="Reused guidance", description="steps that take the guidance of the step before, from 0"
    )

    @model_validator(mode="after")
    def _agree(self) -> Shortcuts:
        if self.skip and self.cache != "schedule":
            raise ConfigError(f"skip belongs to cache: schedule, not to cache: {self.cache}; add that.")
        return self

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"cache": value} if isinstance(value, str) else value

    def skipped(self, steps: int) -> frozenset[int]:
        """The steps of the schedule that a run of `steps` skips; those at its ends are always computed."""
        return frozenset(step for step in self.skip if WARMUP <= step < steps - FINAL)

    @property
    def acts(self) -> bool:
        """Whether anything is left out."""
        return bool(self.skip or self.reuse or self.cache == "first-block")
