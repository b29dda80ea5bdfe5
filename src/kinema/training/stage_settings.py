"""What a recipe says of a stage, checked whole before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinema.core.errors import ConfigError, about, unknown_name
from kinema.training.distill import DistillSettings
from kinema.training.loop import OptimiserSettings
from kinema.training.recipe import entry, made
from kinema.training.stream import PartSettings

KEYS = ("steps", "optimiser", "parts", "additions", "distil")


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSettings:
    """One of the recipe's `stages`.

    Attributes:
        steps: length of the run.
        parts: kinds of batches, taken in turn.
        optimiser: rates and schedule.
        rank: of low-rank additions, which are trained in place of the weights; None trains the weights.
        distil: what a student is to do, whose additions these are.
    """

    steps: int
    parts: tuple[PartSettings, ...]
    optimiser: OptimiserSettings
    rank: int | None = None
    distil: DistillSettings | None = None

    @staticmethod
    def of(recipe: Mapping[str, Any], name: str) -> StageSettings:
        """Stage `name` of a recipe.

        Raises:
            ConfigError: there is no such stage, a setting is missing, unknown or out of range.
        """
        stages = entry(recipe, "stages")
        if not isinstance(stages, Mapping) or name not in stages:
            raise unknown_name("stage", name, stages if isinstance(stages, Mapping) else ())
        with about(f"stage {name!r}"):
            return _read(stages[name])


def _read(section: Any) -> StageSettings:
    if not isinstance(section, Mapping):
        raise ConfigError(f"{section!r} is no mapping; give it steps, optimiser and parts.")
    for key in section:
        if key not in KEYS:
            raise unknown_name("setting of a stage", key, KEYS)
    steps, parts = entry(section, "steps"), entry(section, "parts")
    if type(steps) is not int or steps < 1:
        raise ConfigError(f"steps={steps!r} is no whole number above 0.")
    if not isinstance(parts, list) or not parts:
        raise ConfigError("it has no parts; give it stills or clips.")
    if "additions" in section and "distil" in section:
        raise ConfigError("it has additions and distil, whose rank would be the additions'; leave one out.")
    distil = made(DistillSettings, section["distil"], "distil") if "distil" in section else None
    return StageSettings(
        steps=steps,
        parts=tuple(PartSettings.from_mapping(part) for part in parts),
        optimiser=made(OptimiserSettings, entry(section, "optimiser"), "optimiser"),
        rank=distil.rank if distil else _rank(section),
        distil=distil,
    )


def _rank(section: Mapping[str, Any]) -> int | None:
    if "additions" not in section:
        return None
    additions = section["additions"]
    rank = additions.get("rank") if isinstance(additions, Mapping) else None
    if type(rank) is not int or rank < 1 or set(additions) != {"rank"}:
        raise ConfigError(f"additions: {additions!r} is not a rank and nothing else; write {{rank: 32}}.")
    return rank
