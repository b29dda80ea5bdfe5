"""The variance-preserving path of DDPM-style models, and the way from it to the flow path.

    x_t = a_t x_0 + b_t e,   a_t^2 = alphas_cumprod[t],   b_t^2 = 1 - a_t^2,   t = 0 .. 999
    x_flow = x_t / (a + b),  sigma = b / (a + b)

Dividing by `a + b` puts the point on the flow path at level sigma, so one sampler and one set of solvers
serve both kinds of model: `as_velocity` wraps the network, `sigmas` gives the levels of a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kinema.core.errors import ConfigError, unknown_name
from kinema.diffusion.flow import TIMESTEPS, per_frame
from kinema.diffusion.step import Step

Predicts = Literal["epsilon", "v", "sample"]


def _linear(start: float, end: float) -> Tensor:
    return torch.linspace(start, end, TIMESTEPS)


def _scaled_linear(start: float, end: float) -> Tensor:
    return torch.linspace(start**0.5, end**0.5, TIMESTEPS) ** 2


def _cosine(start: float, end: float) -> Tensor:
    def remaining(t: int) -> float:
        return math.cos((t / TIMESTEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - remaining(t + 1) / remaining(t), 0.999) for t in range(TIMESTEPS)])


BETAS: dict[str, Callable[[float, float], Tensor]] = {
    "linear": _linear,  # Ho et al. 2020
    "scaled_linear": _scaled_linear,  # Stable Diffusion, with 0.00085 to 0.012
    "cosine": _cosine,  # Nichol and Dhariwal 2021; takes no ends. diffusers: squaredcos_cap_v2
}


def timesteps(n: int, spacing: str = "leading", offset: int = 0) -> Tensor:
    """The `n` training times that a run of `n` steps visits, int64 `[n]`, falling; as diffusers spaces them.

    Args:
        n: 1 to 1000.
        spacing: `leading`, `trailing` or `linspace`.
        offset: added to `leading` times (Stable Diffusion: 1).
    """
    if not 1 <= n <= TIMESTEPS:
        raise ConfigError(f"steps={n} is out of range; use 1 to {TIMESTEPS}.")
    if spacing == "leading":
        times = np.arange(n, dtype=np.float64)[::-1] * (TIMESTEPS // n) + offset
    elif spacing == "trailing":
        times = np.round(np.arange(TIMESTEPS, 0, -TIMESTEPS / n)) - 1
    elif spacing == "linspace":
        times = np.linspace(0, TIMESTEPS - 1, n).round()[::-1]
    else:
        raise unknown_name("timestep spacing", spacing, ["leading", "trailing", "linspace"])
    return torch.from_numpy(times.astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class VariancePreserving:
    """A noise schedule: how much of the data's variance is left at each training time.

    Attributes:
        alphas_cumprod: `[1000]`, falling from about 1 to about 0; float64 holding the float32 values that
            models were trained with.
    """

    alphas_cumprod: Tensor

    @staticmethod
    def of(schedule: str = "linear", start: float = 1e-4, end: float = 0.02) -> VariancePreserving:
        """The schedule of that name in `BETAS`, from its first and last beta."""
        if schedule not in BETAS:
            raise unknown_name("beta schedule", schedule, BETAS)
        return VariancePreserving(torch.cumprod(1 - BETAS[schedule](start, end), dim=0).double())

    def amplitudes(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Signal a and noise b at integer `times`, float64, any shape."""
        kept = self.alphas_cumprod[times]
        return kept.sqrt(), (1 - kept).sqrt()

    def noisy(self, clean_BCTYX: Tensor, noise_BCTYX: Tensor, times_BT: Tensor) -> Tensor:
        """The point of the path at each frame's time."""
        a_BT, b_BT = self.amplitudes(times_BT)
        return per_frame(a_BT, clean_BCTYX) * clean_BCTYX + per_frame(b_BT, clean_BCTYX) * noise_BCTYX

    def split(
        self, x_BCTYX: Tensor, out_BCTYX: Tensor, times_BT: Tensor, predicts: Predicts
    ) -> tuple[Tensor, Tensor]:
        """Clean estimate and noise estimate that a network's output means at `x`.

        `epsilon` is e, `sample` is x_0, and `v` is a e - b x_0 (Salimans and Ho 2022).
        """
        a, b = (per_frame(value, x_BCTYX) for value in self.amplitudes(times_BT))
        if predicts == "epsilon":
            return (x_BCTYX - b * out_BCTYX) / a, out_BCTYX
        if predicts == "sample":
            return out_BCTYX, (x_BCTYX - a * out_BCTYX) / b
        if predicts == "v":
            return a * x_BCTYX - b * out_BCTYX, a * out_BCTYX + b * x_BCTYX
        raise unknown_name("prediction", predicts, ["epsilon", "v", "sample"])

    def sigmas(self, times_S: Tensor, *, to_data: bool = True) -> Tensor:
        """The flow levels of a run through `times_S`, float64 `[S+1]`, for `flow.table`.

        Args:
            times_S: falling integer times.
            to_data: end at 0; otherwise at time 0's level (`set_alpha_to_one=False`, Stable Diffusion).
        """
        a, b = self.amplitudes(times_S)
        a_0, b_0 = self.amplitudes(torch.zeros(1, dtype=torch.int64))
        last = torch.zeros_like(a_0) if to_data else b_0 / (a_0 + b_0)
        return torch.cat([b / (a + b), last])

    def times(self, sigma_BT: Tensor) -> Tensor:
        """The training time nearest to each flow level, int64; exact on levels from `sigmas`."""
        a, b = self.amplitudes(torch.arange(TIMESTEPS))
        return (sigma_BT.double().unsqueeze(-1) - b / (a + b)).abs().argmin(dim=-1)

    def to_flow(self, x_BCTYX: Tensor, times_BT: Tensor) -> Tensor:
        """A point of this path, moved to the flow path."""
        a_BT, b_BT = self.amplitudes(times_BT)
        return x_BCTYX / per_frame(a_BT + b_BT, x_BCTYX)

    def as_velocity(
        self, network: Callable[[Tensor, Tensor], Tensor], predicts: Predicts = "epsilon"
    ) -> Callable[[Tensor, Step], Tensor]:
        """A network of this path, `network(x_t, times_BT)`, as the velocity that `sample` follows."""

        def velocity(x_BCTYX: Tensor, step: Step) -> Tensor:
            times_BT = self.times(step.sigma_BT)
            a_BT, b_BT = self.amplitudes(times_BT)
            x_t = x_BCTYX * per_frame(a_BT + b_BT, x_BCTYX)
            clean, noise = self.split(x_t, network(x_t, times_BT), times_BT, predicts)
            return noise - clean

        return velocity
