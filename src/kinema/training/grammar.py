"""How often each factor of a scene leaves its default: probabilities and ranges, from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kinema.core.errors import ConfigError, unknown_name
from kinema.training.recipe import read_recipe

EXTRAS = ("hued", "placed", "acting", "paced", "patterned", "viewed", "company", "paired")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grammar:
    """How often each factor leaves its default, and how narrow the defaults are.

    Attributes:
        synonym: probability that a synonym replaces the name, where there is one.
        gradient: probability of a two-colour gradient instead of a flat colour.
        frozen: probability that the sprite's own animation does not play (a still sprite never plays).
        moving: probability that the sprite crosses the frame.
        resized: probability that the sprite is small or big.
        colour_jitter: largest change of a background channel, of a range of 1.
        scale_jitter: largest relative change of the scale.
        place_jitter: largest shift of the centre, where the frame spans -1..1.
        held_out: share of the pairs of `scenes.held_out` that training never shows.
        hued: probability that a sprite is dyed.
        placed: probability that a sprite that stays stands elsewhere than in the middle.
        acting: probability of a motion beyond the four crossings.
        paced: probability that a motion is slow or fast, and that a playing sprite is.
        patterned: probability of a pattern or a horizon behind.
        viewed: probability that the camera moves, over a pattern.
        company: probability of a second, and again of a third subject.
        paired: probability that a scene is followed by its twin, which differs in one factor.
        from_start: probability that an animation begins with its first frame, not anywhere in its loop.
    """

    synonym: float = 0.05
    gradient: float = 0.1
    frozen: float = 0.1
    moving: float = 0.5
    resized: float = 0.2
    colour_jitter: float = 0.03
    scale_jitter: float = 0.04
    place_jitter: float = 0.04
    held_out: float = 0.05
    hued: float = 0.0
    placed: float = 0.0
    acting: float = 0.0
    paced: float = 0.0
    patterned: float = 0.0
    viewed: float = 0.0
    company: float = 0.0
    paired: float = 0.0
    from_start: float = 0.0

    @property
    def full(self) -> bool:
        """Whether any factor beyond the simple grammar's can be drawn."""
        return any(getattr(self, name) > 0 for name in EXTRAS)

    def __post_init__(self) -> None:
        for field in fields(self):
            high = 0.5 if field.name == "held_out" or field.name.endswith("jitter") else 1.0
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or not 0 <= value <= high:
                raise ConfigError(
                    f"grammar.{field.name}={value!r} is outside 0..{high:g}; choose one inside."
                )

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Grammar:
        """A grammar from parsed YAML; an unknown key is a `ConfigError`."""
        names = [field.name for field in fields(Grammar)]
        for key in values:
            if key not in names:
                raise unknown_name("setting of the grammar", key, names)
        return Grammar(**values)

    @staticmethod
    def load(path: Path) -> Grammar:
        """The `grammar` section of a YAML file; `ConfigError` when there is none."""
        section = read_recipe(path).get("grammar")
        if not isinstance(section, dict):
            raise ConfigError(f"{path} has no 'grammar' section; add one, with settings like 'moving: 0.5'.")
        return Grammar.from_mapping(section)
