"""The transformer as the sampler asks for it: latents at some levels in, a velocity for each side out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from kinema.diffusion.flow import timesteps
from kinema.diffusion.guidance import COND, SKIP, UNCOND, inside
from kinema.diffusion.step import Step
from kinema.models.careful import careful
from kinema.models.dit import VideoDiT
from kinema.models.experts import Experts
from kinema.models.inference import OneByOne, Several
from kinema.models.shelved_inference import made_ready
from kinema.pipelines.conditioning import Conditions
from kinema.pipelines.model import Model
from kinema.pipelines.plan import Sampling
from kinema.pipelines.texts import Branch

Forwards = Callable[[Tensor, Tensor, Mapping[str, Any]], Sequence[Tensor]]
"""Velocities at latents and timesteps under texts by name, in their order."""

COMPILED_POSITIONS = 2_000_000
"""Latent positions over all forwards of a run from which compiling, half a minute, is worth its while."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A transformer with what does not change between calls.

    Attributes:
        dit: the transformer, or two that share the noise levels.
        conditions: texts of both sides, and channels appended to the latents for models that read masks.
        sampling: whose grid says which timesteps the model is told.
        fast: the transformer made ready for the run (`ready`); this is what is asked.
    """

    dit: VideoDiT | Experts
    conditions: Conditions
    sampling: Sampling
    fast: Several

    def __call__(self, x_BCTYX: Tensor, step: Step, names: tuple[str, ...], /) -> Mapping[str, Tensor]:
        """One float32 velocity for each name."""
        return self.ask(
            x_BCTYX, step, names, lambda x, time, texts: self.fast.several(x, time, [*texts.values()])
        )

    def ask(
        self, x_BCTYX: Tensor, step: Step, names: tuple[str, ...], forwards: Forwards
    ) -> Mapping[str, Tensor]:
        """The same by way of `forwards`, which is given every text under a name of its own."""
        channels, time_BT = self.conditions.channels_BCTYX, self.times(step).to(x_BCTYX.device)
        given = x_BCTYX if channels is None else torch.cat([x_BCTYX, channels], dim=1)
        sides = {COND: self.conditions.positive, UNCOND: self.conditions.negative}
        if (skip := self.sampling.skip) is not None:
            layers = frozenset(skip.layers)
            sides[SKIP] = self.conditions.positive.skipping(layers)
            if skip.scale is None and bool(inside(step, skip.interval).any()):
                sides[UNCOND] = self.conditions.negative.skipping(layers)
        asked = [_asked(sides[name]) for name in names]
        pairs = zip(names, asked, strict=True)
        texts = {f"{name}.{k}": context for name, part in pairs for k, _, context in part}
        found = iter(forwards(given, time_BT, texts))
        return {
            name: _mixed([(share_T, next(found)) for _, share_T, _ in part])
            for name, part in zip(names, asked, strict=True)
        }

    def transformer(self, step: Step) -> int:
        """0, or 1 where the second of two transformers works."""
        dit = self.dit
        return int(isinstance(dit, Experts) and dit.at(self.times(step)) is dit.low)

    def times(self, step: Step) -> Tensor:
        """What the transformer is told of the step's levels, `[B, T]`, on the CPU."""
        s = self.sampling
        return timesteps(step.sigma_BT, s.steps, s.shift, s.grid).float()


def _asked(branch: Branch) -> list[tuple[int, Tensor | None, Any]]:
    """A side's contexts by number, each with its share of the latent frames; those without are left out."""
    if branch.shares_TK is None:
        return [(0, None, branch.contexts[0])]
    pairs = zip(branch.shares_TK.unbind(dim=1), branch.contexts, strict=True)
    return [(k, share_T, context) for k, (share_T, context) in enumerate(pairs) if bool((share_T > 0).any())]


def _mixed(parts: list[tuple[Tensor | None, Tensor]]) -> Tensor:
    """The velocities of a side's contexts by their shares of each latent frame, float32."""
    shared = [v.float() if share_T is None else _share(share_T, v) for share_T, v in parts]
    return shared[0] if len(shared) == 1 else torch.stack(shared).sum(dim=0)


def _share(share_T: Tensor, v_BCTYX: Tensor) -> Tensor:
    return rearrange(share_T, "T -> 1 1 T 1 1") * v_BCTYX.float()


def ready(model: Model, conditions: Conditions, sampling: Sampling) -> Several:
    """A model's transformer for the steps of one run, with the LoRAs that it wears now."""
    levels_SBT, shape_TYX = conditions.table_SBT[:-1], conditions.start_BCTYX.shape[2:]
    times = timesteps(levels_SBT, sampling.steps, sampling.shift, sampling.grid).float()
    calls = 2 * sampling.steps * conditions.start_BCTYX[0, 0].numel()
    return made_ready(
        model.dit,
        timesteps=torch.unique(times).tolist(),
        shape_TYX=shape_TYX,
        compiled=compiles(model.device) and calls >= COMPILED_POSITIONS,
    )


def compiles(device: torch.device) -> bool:
    """Whether torch can compile for a device, and compiled blocks are faster there: not so on CPUs."""
    return device.type == "cuda" and find_spec("triton") is not None


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
            texts = self.network.conditions.prepared(dit)
            again = replace(self.network, conditions=texts, fast=OneByOne(dit))
            found = again(x_BCTYX, step, names)
        which = "" if works is dit else f" of the transformer of {_noise(dit, works)} noise"
        return found, f"{watch.place}{which}"


def _noise(experts: Any, works: VideoDiT | Experts) -> str:
    return "high" if works is experts.high else "low"
