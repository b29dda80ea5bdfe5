"""A mixture of Gaussians, whose flow is known exactly: the yardstick for solvers and networks.

Data from `sum_k w_k N(mu_k, d^2)` seen at level s is again a mixture, `N((1-s) mu_k, (1-s)^2 d^2 + s^2)`, so
the best possible velocity `E[e - x_0 | x]` is a closed formula, with no network in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from torch import Tensor

from kinema.diffusion.flow import per_frame


@dataclass(frozen=True, slots=True, eq=False)
class GaussianMixture:
    """Equal round Gaussians over the channels of each position.

    Attributes:
        means_KC: the centres.
        std: the deviation of each.
        weights_K: how likely each is; they add up to 1. None for equal weights.
    """

    means_KC: Tensor
    std: float
    weights_K: Tensor | None = None

    def velocity(self, x_BCTYX: Tensor, sigma_BT: Tensor) -> Tensor:
        """E[noise - data | x] at level `sigma_BT`."""
        s = per_frame(sigma_BT, x_BCTYX)
        means_KC, keep = self.means_KC.to(x_BCTYX), 1 - s
        spread = keep**2 * self.std**2 + s**2
        centres = rearrange(means_KC, "K C -> K 1 C 1 1 1")
        off_KBCTYX = x_BCTYX - keep * centres
        fit_KBTYX = -(off_KBCTYX**2).sum(dim=2) / (2 * spread[:, 0])
        if self.weights_K is not None:
            fit_KBTYX = fit_KBTYX + rearrange(self.weights_K.to(x_BCTYX).log(), "K -> K 1 1 1 1")
        share_KBTYX = torch.softmax(fit_KBTYX, dim=0)
        mean_BCTYX: Tensor = einsum(share_KBTYX, means_KC, "K B T Y X, K C -> B C T Y X")
        off_BCTYX = x_BCTYX - keep * mean_BCTYX
        # E[x_0 | x] and E[e | x] of the responsible Gaussian are both linear in how far x is off its centre.
        return (s - keep * self.std**2) / spread * off_BCTYX - mean_BCTYX

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws, `[n, C]`."""
        K, C = self.means_KC.shape
        weights = torch.full((K,), 1 / K) if self.weights_K is None else self.weights_K
        chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
        return self.means_KC[chosen] + self.std * torch.randn(n, C, generator=generator)
