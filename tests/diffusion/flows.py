"""Flows with known answers, shared by the tests of this folder."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.diffusion.flow import table
from kinema.diffusion.mixture import GaussianMixture
from kinema.diffusion.step import Step

MEAN, STD = 0.7, 0.3
GAUSSIAN = GaussianMixture(torch.full((1, 2), MEAN), STD)
MIXTURE = GaussianMixture(
    torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.1, -1.2]]), 0.2, torch.tensor([0.5, 0.3, 0.2])
)


def noise(T: int = 3, *, B: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(B, 2, T, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def free(sigmas_S1: Tensor, x_BCTYX: Tensor) -> Tensor:
    """The table of a run in which every frame is free."""
    return table(sigmas_S1, torch.ones(x_BCTYX.shape[0], x_BCTYX.shape[2]))


def velocity_of(mixture: GaussianMixture):
    return lambda x_BCTYX, step: mixture.velocity(x_BCTYX, step.sigma_BT)


gaussian = velocity_of(GAUSSIAN)
mixed = velocity_of(MIXTURE)


def at(index: int, steps: int, sigma_BT: Tensor) -> Step:
    return Step(index, steps, 0, sigma_BT)
