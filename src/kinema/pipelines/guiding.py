"""A plan's guidance rule, for its table of noise levels; no network is known here."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from kinema.diffusion.flow import timesteps
from kinema.diffusion.guidance import AdaptiveProjected, CFGZero, ClassifierFree, Guidance, SkipLayer
from kinema.pipelines.plan import Sampling

GUIDANCE: dict[str, type[ClassifierFree]] = {
    "cfg": ClassifierFree,
    "cfg-zero": CFGZero,
    "apg": AdaptiveProjected,
}
NOISE = 0.99  # grids of other programs begin just below 1


def guidance(sampling: Sampling, table_SBT: Tensor, context: int = 0) -> ClassifierFree:
    """The rule of a plan; held context frames are guided like the first new one.

    Where two transformers share the noise levels, each step has the scale of the one that works in it. No
    step is left out of a run that does not begin in pure noise.
    """
    scale = _with_context(sampling.guidance, context)
    if sampling.guidance_low is not None and sampling.boundary is not None:
        levels_S = table_SBT[:-1].flatten(1).amax(dim=1)
        times_S = timesteps(levels_S, sampling.steps, sampling.shift, sampling.grid)
        high_S11 = rearrange(times_S >= 1000 * sampling.boundary, "S -> S 1 1")
        scale = torch.where(high_S11, scale, _with_context(sampling.guidance_low, context))
    values: dict[str, Any] = {"scale": scale, "interval": sampling.interval, "rescale": sampling.rescale}
    if sampling.method == "cfg-zero" and float(table_SBT[0].max()) < NOISE:
        return CFGZero(**values, zero_steps=0)
    return GUIDANCE[sampling.method](**values)


def steered(rule: ClassifierFree, sampling: Sampling) -> Guidance:
    """The rule, and away from the network without some of its blocks where the plan says so."""
    skip = sampling.skip
    if skip is None or skip.scale is None:
        return rule
    return SkipLayer(base=rule, scale=skip.scale, interval=skip.interval)


def _with_context(scale: tuple[float, ...], context: int) -> Tensor:
    """`[1, T]`, the held frames in front included."""
    return torch.tensor([[scale[0]] * context + list(scale)])
