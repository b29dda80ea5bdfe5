"""The transformer as the sampler asks for it: latents at some levels in, a velocity for each side out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from kinema.diffusion.flow import timesteps
from kinema.diffusion.guidance import COND, UNCOND
from kinema.diffusion.step import Step
from kinema.models.careful import careful
from kinema.models.dit import VideoDiT
from kinema.models.experts import Experts
from kinema.pipelines.conditioning import Conditions
from kinema.pipelines.plan import Sampling
from kinema.pipelines.texts import Branch


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A transformer with what does not change between calls.

    Attributes:
        dit: the transformer, or two that share the noise levels.
        conditions: texts of both sides, and channels appended to the latents for models that read masks.
        sampling: whose grid says which timesteps the model is told.
    """

    dit: VideoDiT | Experts
    conditions: Conditions
    sampling: Sampling

    def __call__(self, x_BCTYX: Tensor, step: Step, names: tuple[str, ...], /) -> Mapping[str, Tensor]:
        """One float32 velocity for each name."""
        channels, time_BT = self.conditions.channels_BCTYX, self.times(step).to(x_BCTYX.device)
        given = x_BCTYX if channels is None else torch.cat([x_BCTYX, channels], dim=1)
        sides = {COND: self.conditions.positive, UNCOND: self.conditions.negative}
        return {name: self.velocity(given, time_BT, sides[name]) for name in names}

    def times(self, step: Step) -> Tensor:
        """What the transformer is told of the step's levels, `[B, T]`, on the CPU."""
        s = self.sampling
        return timesteps(step.sigma_BT, s.steps, s.shift, s.grid).float()

    def velocity(self, given_BCTYX: Tensor, time_BT: Tensor, branch: Branch) -> Tensor:
        """Under one side's texts; several contexts are mixed by their shares of each latent frame."""
        if branch.shares_TK is None:
            return self.dit(given_BCTYX, time_BT, branch.contexts[0]).float()
        parts = []
        for context, share_T in zip(branch.contexts, branch.shares_TK.unbind(dim=1), strict=True):
            if bool((share_T > 0).any()):
                share = rearrange(share_T, "T -> 1 1 T 1 1")
                parts.append(share * self.dit(given_BCTYX, time_BT, context).float())
        return torch.stack(parts).sum(dim=0)


@dataclass(frozen=True, slots=True, eq=False)
class CarefulNetwork:
    """The same in float32, with plain attention and watched layers: `diffusion.guard.Careful`.

    Texts are read again too, since what overflowed may have been their keys.

    Attributes:
        network: what gave values that are not finite.
    """

    network: Network

    def __call__(
        self, x_BCTYX: Tensor, step: Step, names: tuple[str, ...], /
    ) -> tuple[Mapping[str, Tensor], str]:
        """One velocity for each name, and where the first value arose that is not finite."""
        dit = self.network.dit
        works = dit.at(self.network.times(step)) if isinstance(dit, Experts) else dit
        with careful(works) as watch:
            again = replace(self.network, conditions=self.network.conditions.prepared(dit))
            found = again(x_BCTYX, step, names)
        which = "" if works is dit else f" of the transformer of {_noise(dit, works)} noise"
        return found, f"{watch.place}{which}"


def _noise(experts: Any, works: VideoDiT | Experts) -> str:
    return "high" if works is experts.high else "low"
