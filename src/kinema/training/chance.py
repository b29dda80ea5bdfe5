"""Noise as large as a batch of latents, drawn where the batch is."""

from __future__ import annotations

import torch
from torch import Tensor


def noise_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal numbers, float32, on the device of `x`; they depend on `rng` only.

    On a CPU they come from `rng` itself. On a GPU a generator there takes over, seeded by `rng`: 70 million
    numbers a step would take the CPU longer than the whole step.
    """
    if x.device.type == "cpu":
        return torch.randn(x.shape, generator=rng)
    seed = int(torch.randint(2**62, (), generator=rng))
    there = torch.Generator(x.device).manual_seed(seed)
    return torch.randn(x.shape, generator=there, device=x.device)
