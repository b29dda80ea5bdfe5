"""A plan as a program reads it: JSON values of what would be sampled, and what it would cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kinema.pipelines.estimate import Estimate
from kinema.pipelines.plan import Plan, Prompts, Spans


def facts(plan: Plan, cost: Estimate, rate: float) -> dict[str, Any]:
    """What will be sampled, and what it costs.

    Args:
        plan: of one shot.
        cost: of the plan.
        rate: operations a second of this machine.
    """
    g = plan.geometry
    prompts = {
        name: [{"text": text, "weights": weights} for text, weights in prompt_texts(name, side)]
        for name, side in (("prompt", plan.prompts), ("negative", plan.negatives))
    }
    return {
        "shot": plan.shot,
        "digest": plan.digest,
        "notes": list(plan.notes),
        "latent_frames": g.latent_frames,
        "first_frames": g.group_starts(),
        "windows": _windows(plan),
        "tier": None if plan.tier is None else asdict(plan.tier),
        "tokens": cost.tokens,
        "forwards": cost.forwards,
        "operations": cost.operations,
        "seconds": cost.seconds(rate),
        "weight_bytes": cost.weight_bytes,
        "working_bytes": cost.working_bytes,
        "tracks": {"guidance": list(plan.sampling.guidance), **prompts},
    }


def _windows(plan: Plan) -> dict[str, Any] | None:
    cover = plan.windows
    if cover is None:
        return None
    first = [window for turn in range(len(cover.turns)) for window in cover.windows(turn, 0)]
    return {
        "kind": cover.kind,
        "length": cover.length,
        "overlap": cover.overlap,
        "first_step": [{"frames": window.frames, "shares": window.shares} for window in first],
    }


def prompt_texts(name: str, side: Prompts) -> list[tuple[str, list[float]]]:
    """Prompts as a user would write them, with their weights; an empty negative prompt is left out."""
    found = [
        (_written(spans), [weight_K[k] for weight_K in side.weights]) for k, spans in enumerate(side.spans)
    ]
    return [(text, weights) for text, weights in found if name == "prompt" or text]


def _written(spans: Spans) -> str:
    return "".join(text if weight == 1 else f"({text}:{weight:g})" for text, weight in spans)
