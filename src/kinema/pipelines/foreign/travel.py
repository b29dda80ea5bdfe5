"""Prompts that change over frames, and clips longer than the model, in AnimateDiff pipelines: FreeNoise.

    frame f reads   sum_k w[f,k] z_k        windows of frames overlap, and are averaged in every block

FreeNoise (arXiv 2310.15169) is diffusers' own; it takes prompts at frames and asks a function for those in
between. Here that function gives the mixtures that the plan says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kinema.diffusion.coverage import Fused
from kinema.models.text import join
from kinema.pipelines.images.texts import mixed
from kinema.pipelines.plan import Plan, Prompts


def travels(plan: Plan) -> bool:
    """Whether a plan needs more than the plain pipeline."""
    return plan.windows is not None or len(plan.prompts.spans) > 1 or len(plan.negatives.spans) > 1


@contextmanager
def travelling(pipe: Any, plan: Plan) -> Iterator[dict[str, Any]]:
    """The pipeline with FreeNoise on, as far as the plan needs it; gives the arguments that it replaces.

    Args:
        pipe: an AnimateDiff pipeline.
        plan: what is rendered.
    """
    if not travels(plan):
        yield {}
        return
    frames, cover = plan.geometry.frames, plan.windows
    length, overlap = (frames, 0) if not isinstance(cover, Fused) else (cover.length, cover.overlap)
    with torch.inference_mode():
        sides = [_mixed(pipe, side, plan) for side in (plan.prompts, plan.negatives)]
    order = iter(sides)  # the positive side is asked for first
    pipe.enable_free_noise(
        context_length=length,
        context_stride=length - overlap,
        prompt_interpolation_callback=lambda first, last, *_: next(order)[first : last + 1],
    )
    try:
        yield {
            "prompt": {0: join(plan.prompts.spans[0])},
            "negative_prompt": {0: join(plan.negatives.spans[0])},
        }
    finally:
        pipe.disable_free_noise()


def _mixed(pipe: Any, side: Prompts, plan: Plan) -> Tensor:
    """`[F, L, D]`; frames beyond the plan's last row repeat it."""
    states = [pipe.encode_prompt(join(spans), pipe._execution_device, 1, False)[0] for spans in side.spans]
    rows = []
    for shares in side.weights:
        used = [(share, state) for share, state in zip(shares, states, strict=True) if share > 0]
        rows.append(mixed(used, plan.sampling.blend))
    return torch.cat(rows + rows[-1:] * (plan.geometry.frames - len(rows)))
