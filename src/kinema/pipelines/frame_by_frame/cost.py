"""How often the network is run for the frames that are drawn one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from kinema.pipelines.card import ModelCard
from kinema.pipelines.frame_by_frame.plan import Stroke
from kinema.pipelines.images.guidance import FLUX, true_cfg
from kinema.pipelines.plan import Plan, Prompts

Asked = Callable[[int, str, float, float, float | None], tuple[int, int]]
"""Forwards of both sides for the steps, solver and highest level of a drawing, and its scales."""


def drawn_forwards(plan: Plan, card: ModelCard) -> int:
    """Forwards of all drawn frames: steps below their strength, for both sides of the guidance.

    Args:
        plan: in mode `frame_by_frame`.
        card: of its model.
    """
    assert plan.redraw is not None, "a plan in mode frame_by_frame"
    drawn = [s for s in plan.redraw.strokes if s.exact is None and (s.strength > 0 or _holes(plan))]
    if card.family == "image":
        return sum(_image_forwards(stroke, plan, card) for stroke in drawn)
    asked = _asked(plan)
    return sum(_own_forwards(stroke, plan, asked) for stroke in drawn)


def _holes(plan: Plan) -> bool:
    assert plan.redraw is not None
    return plan.redraw.holes == "redraw"


def _filled(plan: Plan) -> bool:
    """Whether holes may have to be drawn from noise: only a camera makes them."""
    return _holes(plan) and plan.camera is not None


def _own_forwards(stroke: Stroke, plan: Plan, asked: Asked) -> int:
    s, top = plan.sampling, 1.0 if _filled(plan) else stroke.strength
    low = None if s.guidance_low is None else s.guidance_low[stroke.frame]
    prompts, negatives = asked(stroke.steps, stroke.solver, top, s.guidance[stroke.frame], low)
    return prompts * _prompts(plan.prompts, stroke, plan) + negatives * _prompts(plan.negatives, stroke, plan)


def _asked(plan: Plan) -> Asked:
    """By the levels and the guidance rule of the drawings themselves; most frames ask for the same."""
    import torch

    from kinema.diffusion.flow import sigmas, table
    from kinema.diffusion.guidance import UNCOND
    from kinema.diffusion.solvers import solver
    from kinema.diffusion.step import Step
    from kinema.pipelines.guiding import guidance, steered

    @cache
    def asked(steps: int, name: str, top: float, scale: float, low: float | None) -> tuple[int, int]:
        part = replace(
            plan.sampling,
            steps=steps,
            guidance=(scale,),
            guidance_low=None if low is None else (low,),
        )
        levels_S11 = table(sigmas(steps, part.shift, part.grid), torch.tensor([[top]]))
        rule = steered(guidance(part, levels_S11), part)
        count = len(levels_S11) - 1
        sides = [
            side
            for index in range(count)
            for stage, level_BT in enumerate(solver(name).stages(levels_S11[index], levels_S11[index + 1]))
            for side in rule.plan(Step(index, count, stage, level_BT))
        ]
        negatives = sides.count(UNCOND)
        return len(sides) - negatives, negatives

    return asked


def _image_forwards(stroke: Stroke, plan: Plan, card: ModelCard) -> int:
    """Of the steps that diffusers' pipelines do: a share of them, and all where holes are filled before."""
    flux, strength = card.transformer.get("_class_name") == FLUX, stroke.strength
    done = math.ceil(stroke.steps * strength) if flux else int(stroke.steps * strength)
    drawings = [max(1, done)] * (strength > 0) + [stroke.steps] * _filled(plan)
    steps = sum(2 * steps - 1 if stroke.solver == "heun" else steps for steps in drawings)
    guided = true_cfg(plan.options) > 1 if flux else plan.sampling.guidance[stroke.frame] > 1
    return steps * (1 + guided)


def _prompts(side: Prompts, stroke: Stroke, plan: Plan) -> int:
    if plan.sampling.blend != "velocity":
        return 1
    return sum(share > 0 for share in side.weights[stroke.frame])
