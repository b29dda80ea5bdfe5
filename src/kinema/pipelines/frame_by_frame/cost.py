"""How often the network is run for the frames that are drawn one after the other."""

from __future__ import annotations

from kinema.pipelines.card import ModelCard
from kinema.pipelines.frame_by_frame.plan import Stroke
from kinema.pipelines.images.guidance import FLUX, true_cfg
from kinema.pipelines.plan import Plan, Prompts


def drawn_forwards(plan: Plan, card: ModelCard) -> int:
    """Forwards of all drawn frames: steps below their strength, for both sides of the guidance.

    Args:
        plan: in mode `frame_by_frame`.
        card: of its model.
    """
    assert plan.redraw is not None, "a plan in mode frame_by_frame"
    return sum(
        steps_of(stroke, plan, card) * _calls(stroke, plan, card)
        for stroke in plan.redraw.strokes
        if stroke.exact is None and (stroke.strength > 0 or plan.redraw.holes == "redraw")
    )


def steps_of(stroke: Stroke, plan: Plan, card: ModelCard) -> int:
    """Steps that are done of a drawing: all of them at full strength (or where holes are filled)."""
    assert plan.redraw is not None
    holes = plan.redraw.holes == "redraw" and plan.camera is not None
    if card.family == "image":
        return max(1, int(stroke.steps * stroke.strength)) + stroke.steps * holes
    from kinema.diffusion.flow import sigmas

    grid = sigmas(stroke.steps, plan.sampling.shift, plan.sampling.grid)
    return stroke.steps if holes or stroke.strength == 1 else int((grid < stroke.strength).sum())


def _calls(stroke: Stroke, plan: Plan, card: ModelCard) -> int:
    """Of the network in one step."""
    calls = _prompts(plan.prompts, stroke, plan)
    if _guided(stroke, plan, card):
        calls += _prompts(plan.negatives, stroke, plan)
    return calls * (2 if stroke.solver == "heun" else 1)


def _prompts(side: Prompts, stroke: Stroke, plan: Plan) -> int:
    if plan.sampling.blend != "velocity":
        return 1
    return sum(share > 0 for share in side.weights[stroke.frame])


def _guided(stroke: Stroke, plan: Plan, card: ModelCard) -> bool:
    """Whether the other side of the guidance is run too."""
    if card.transformer.get("_class_name") == FLUX:
        return true_cfg(plan.options) > 1
    return plan.sampling.guidance[stroke.frame] != 1
