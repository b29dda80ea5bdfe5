"""What is known at some places of a frame, and free at the others: painting inside a clip.

    x0' = m x0 + (1 - m) known          v' = (x - x0') / s

m is 1 where a place is free. The known places then follow the straight path from their noise to what they
are, so the network sees them at the noise level of their frame, as it was trained; whatever the solver, since
their guess of the clean latents never changes (in noised latents instead of the guess, RePaint,
https://arxiv.org/abs/2201.09865, and diffusers' inpainting pipelines).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.diffusion.flow import per_frame
from kinema.diffusion.step import Step, Velocity


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A guided velocity that leads to known latents where a clip is not open.

    Attributes:
        velocity: of the whole clip.
        known_BCTYX: the clean latents.
        open_BTYX: 1 where they are free, 0 where they are known, between for a share of both.
    """

    velocity: Velocity
    known_BCTYX: Tensor
    open_BTYX: Tensor

    def __call__(self, x_BCTYX: Tensor, step: Step, /) -> Tensor:
        """The velocity; that of the network, bit for bit, where all is open and at frames without noise."""
        v_BCTYX = self.velocity(x_BCTYX, step).to(x_BCTYX)
        sigma = per_frame(step.sigma_BT, x_BCTYX)
        closed = (1 - self.open_BTYX)[:, None].to(x_BCTYX) * (sigma > 0)
        home = (x_BCTYX - self.known_BCTYX.to(x_BCTYX)) / sigma.clamp(min=torch.finfo(sigma.dtype).tiny)
        return torch.where(closed > 0, v_BCTYX + closed * (home - v_BCTYX), v_BCTYX)
