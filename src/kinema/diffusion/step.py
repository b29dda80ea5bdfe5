"""What one step of the loop tells the network, and where a step's fresh noise comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from kinema.core.runtime import generator


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Where the loop stands when it asks for a velocity.

    Attributes:
        index: the step, 0 to `steps - 1`.
        steps: how many there are.
        stage: which call of this step; above 0 only for solvers that call the network more than once.
        sigma_BT: each latent frame's noise level at this call, on the CPU.
    """

    index: int
    steps: int
    stage: int
    sigma_BT: Tensor


class Velocity(Protocol):
    """d(latents)/d(sigma) at one call of the loop, already guided."""

    def __call__(self, x_BCTYX: Tensor, step: Step, /) -> Tensor:
        """The velocity, shaped like `x_BCTYX`."""
        ...


class NoiseSource(Protocol):
    """Standard normal noise for one step, shaped, typed and placed like the latents."""

    def __call__(self, index: int, like_BCTYX: Tensor, /) -> Tensor:
        """The noise of step `index`."""
        ...


@dataclass(frozen=True, slots=True)
class FrameNoise:
    """Noise that depends on (seed, step, batch entry, frame) only.

    Longer clips therefore begin like shorter ones, and a resumed run draws what the first would have drawn.

    Attributes:
        seed: the shot's seed.
        first: index within the clip of the first latent frame of what is sampled.
    """

    seed: int
    first: int = 0

    def __call__(self, index: int, like_BCTYX: Tensor, /) -> Tensor:
        """The noise of step `index`, drawn on the CPU."""
        B, C, T, Y, X = like_BCTYX.shape
        frames = [
            torch.randn(
                (C, Y, X), generator=generator(self.seed, f"step {index}/entry {b}/frame {self.first + t}")
            )
            for b in range(B)
            for t in range(T)
        ]
        noise: Tensor = rearrange(frames, "(B T) C Y X -> B C T Y X", B=B)
        return noise.to(like_BCTYX)
