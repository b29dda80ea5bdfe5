"""A plan as the arguments of one pipeline's own call, by that pipeline's own names."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from PIL import Image

from kinema.core.runtime import generator
from kinema.io.clip import Clip
from kinema.models.text import join
from kinema.pipelines.foreign.asked import takes
from kinema.pipelines.foreign.families import Call, Role
from kinema.pipelines.foreign.masked import last_frames, masked, shown_before
from kinema.pipelines.foreign.model import ForeignModel
from kinema.pipelines.given import LEAST_CHANGE
from kinema.pipelines.images.engine_diffusers import enough_steps
from kinema.pipelines.known import picture, source_frames
from kinema.pipelines.plan import Plan, Prompts


def arguments(plan: Plan, model: ForeignModel, call: Call, previous: Clip | None) -> dict[str, Any]:
    """What the pipeline is called with; pictures and clips are read from their files.

    Args:
        plan: what is rendered.
        model: loaded for it.
        call: the pipeline.
        previous: the shot before in a storyboard.
    """
    g, s = plan.geometry, plan.sampling
    said: dict[Role, Any] = {
        "prompt": _text(plan.prompts),
        "negative": _text(plan.negatives) or None,
        "frames": g.frames + shown_before(plan),
        "fps": _rate(Fraction(g.fps)),
        "guidance": s.guidance[-1],
        "rescale": s.rescale,
        **_pictures(plan, call, previous),
        **_clip(plan),
    }
    named = {takes(call, role): value for role, value in said.items()}
    given = {name: value for name, value in named.items() if name is not None}
    if model.family.ramp is not None:
        given["min_guidance_scale"] = s.guidance[0]
    steps = s.steps if plan.given.source is None else enough_steps(s.steps, _strength(plan))
    return {
        **given,
        **_conditions(plan, call, previous),
        **masked(plan, model.family, call, previous),
        **dict(plan.options),
        "width": g.width,
        "height": g.height,
        "num_inference_steps": steps,
        "generator": generator(s.seed, "noise"),
        "output_type": "pt",
    }


def _text(side: Prompts) -> str:
    return join(side.spans[0])


def _rate(fps: Fraction) -> int | float:
    return fps.numerator if fps.denominator == 1 else float(fps)


def _pictures(plan: Plan, call: Call, previous: Clip | None) -> dict[Role, Any]:
    """The one picture of a pipeline that begins with it."""
    if call.pictures != "first":
        return {}
    if plan.given.extend is not None:
        return {"image": last_frames(plan, previous)[-1]}
    return {"image": Image.fromarray(picture(plan.given.held[0], plan, previous))}


def _clip(plan: Plan) -> dict[Role, Any]:
    """The clip that is made over, and how much of it may change."""
    if plan.given.source is None:
        return {}
    frames = [Image.fromarray(frame) for frame in source_frames(plan)]
    return {"clip": frames, "strength": _strength(plan)}


def _strength(plan: Plan) -> float:
    """Of the clip that is made over; these pipelines stop with an error where no step is left to do."""
    return max(plan.given.strength, LEAST_CHANGE)


def _conditions(plan: Plan, call: Call, previous: Clip | None) -> dict[str, Any]:
    """Pictures at frames, or the last frames of the clip that is carried on."""
    if call.pictures != "frames":
        return {}
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    found = [
        LTXVideoCondition(
            image=Image.fromarray(picture(held, plan, previous)),
            frame_index=held.frame,
            strength=held.strength,
        )
        for held in plan.given.held
    ]
    if plan.given.extend is not None:
        found.append(LTXVideoCondition(video=last_frames(plan, previous)))
    return {"conditions": found} if found else {}
