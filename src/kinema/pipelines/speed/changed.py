"""Another speed for a shot of a record, which holds what its own speed has chosen.

A record is resolved: nothing in it says whether 20 steps were written or are the model's own. What equals the
choice of its speed is taken for that, and left to the other speed.
"""

from __future__ import annotations

from typing import Any

from kinema.pipelines.card import ModelCard, Student
from kinema.pipelines.match import matched
from kinema.pipelines.speed.calibration import calibrations
from kinema.story.shot import Shot


def unhurried(shot: Shot, card: ModelCard) -> Shot:
    """A resolved shot without what its speed has chosen: sampler, guidance and its interval, shortcuts.

    Args:
        shot: of a record; what it has of other values was written, and stays.
        card: of its model.
    """
    chosen, restored = _chosen(shot, card)
    kept = {
        name: value
        for name, value in shot.given().items()
        if name not in chosen or not _equal(value, chosen[name])
    }
    return type(shot)(**{**kept, **restored})


def _chosen(shot: Shot, card: ModelCard) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the shot's speed fills in, by field; what a tier has put other values in place of."""
    few = {"few": card.few, "distilled": card.student}.get(shot.speed)
    d = matched(shot, card).card.defaults
    guidance = d.guidance if d.guidance_held is None or not shot.holds else d.guidance_held
    if few is not None:
        if isinstance(few, Student):
            guidance = 1.0 if shot.holds else few.guidance
        return {**few.sampler, "guidance_interval": few.guidance_interval, "guidance": guidance}, {}
    shift = d.shift if shot.width is None or shot.height is None else d.shift_of(shot.width, shot.height)
    sampler = {"steps": d.steps, "solver": d.solver, "grid": d.grid, "shift": shift}
    exact = {**sampler, "guidance_interval": (0.0, 1.0), "guidance": guidance}
    if shot.speed == "exact":
        return exact, {}
    steps = _before_the_tier(shot, card)
    tier = {**exact, "steps": d.steps if steps is None else shot.steps, "shortcuts": shot.shortcuts}
    return tier, {} if steps in (None, d.steps) else {"steps": steps}


def _before_the_tier(shot: Shot, card: ModelCard) -> int | None:
    """The steps that a tier was measured against; None for one that is not known here."""
    for found in calibrations(card):
        measured = found.tiers.get(shot.speed)
        if measured is not None and (measured.steps, measured.shortcuts) == (shot.steps, shot.shortcuts):
            return found.conditions.steps
    return None


def _equal(value: Any, chosen: Any) -> bool:
    constant = getattr(value, "constant", value)  # of a schedule
    return bool(constant == chosen)
