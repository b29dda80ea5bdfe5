"""Solvers without memory: each step uses only the velocity (or two) of that step.

All work on the flow path `x = (1-s) x_0 + s e`. DDIM and DDPM belong to the variance-preserving path
`x/r`, with `r = hypot(1-s, s)` and signal `a = (1-s)/r`; the two differ by that scale only, so they run any
model here, and `diffusion.vp` brings models trained on that path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kinema.diffusion.flow import clean, noise_from, per_frame
from kinema.diffusion.solver import Solver, State, levels, moving, need_noise


@dataclass(frozen=True)
class Euler(Solver[State]):
    """x + (s' - s) v; first order, one call."""

    name: ClassVar[str] = "euler"
    order: ClassVar[int] = 1
    state_type: ClassVar[type[State]] = State

    def step(
        self,
        state: State,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Solver.step`."""
        stepped = x_BCTYX + per_frame(sigma_next_BT - sigma_BT, x_BCTYX) * v_BCTYX
        return torch.where(moving(sigma_BT, sigma_next_BT, x_BCTYX), stepped, x_BCTYX), state


@dataclass(frozen=True, slots=True)
class HeunState(State):
    """Between the two calls of a step: where it began and the velocity there."""

    x_BCTYX: Tensor | None = None
    v_BCTYX: Tensor | None = None


@dataclass(frozen=True)
class Heun(Solver[HeunState]):
    """x + (s' - s) (v(s) + v(s')) / 2; second order, two calls.

    Frames that arrive at 0 take Euler's step there: networks are not trained on clean input, and near 0 the
    clean estimate is all but constant. (Karras et al. 2022, algorithm 1.)
    """

    name: ClassVar[str] = "heun"
    order: ClassVar[int] = 2
    state_type: ClassVar[type[State]] = HeunState

    def stages(self, sigma_BT: Tensor, sigma_next_BT: Tensor) -> tuple[Tensor, ...]:
        """The level before the step and, if a frame moves to a level above 0, the level after."""
        twice = (sigma_BT != sigma_next_BT) & (sigma_next_BT > 0)
        return (sigma_BT, sigma_next_BT) if bool(twice.any()) else (sigma_BT,)

    def step(
        self,
        state: HeunState,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, HeunState]:
        """See `Solver.step`; the first stage predicts, the second replaces the prediction."""
        width = per_frame(sigma_next_BT - sigma_BT, x_BCTYX)
        if state.x_BCTYX is not None and state.v_BCTYX is not None:
            corrected = state.x_BCTYX + width * (state.v_BCTYX + v_BCTYX) / 2
            inner_BT = torch.where(sigma_next_BT > 0, sigma_BT, sigma_next_BT)
            return torch.where(moving(inner_BT, sigma_next_BT, x_BCTYX), corrected, x_BCTYX), HeunState()
        predicted = torch.where(moving(sigma_BT, sigma_next_BT, x_BCTYX), x_BCTYX + width * v_BCTYX, x_BCTYX)
        both = len(self.stages(sigma_BT, sigma_next_BT)) == 2
        return predicted, HeunState(x_BCTYX, v_BCTYX) if both else HeunState()


@dataclass(frozen=True)
class EulerAncestral(Solver[State]):
    """Euler to a level below the next one, then fresh noise up to it; the marginals stay those of the flow.

    The lower level is `d = s' (1 + eta (s'/s - 1))`; scaling by `(1-s')/(1-d)` restores the signal, and noise
    of deviation `sqrt(s'^2 - (d (1-s')/(1-d))^2)` restores the level. (The rectified-flow form of
    k-diffusion's ancestral sampler.)

    Attributes:
        eta: 0 is Euler, 1 renews the most noise.
    """

    eta: float = 1.0

    name: ClassVar[str] = "euler-ancestral"
    order: ClassVar[int] = 1
    state_type: ClassVar[type[State]] = State

    @property
    def stochastic(self) -> bool:
        """Unless `eta` is 0."""
        return self.eta > 0

    def step(
        self,
        state: State,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Solver.step`."""
        sigma, after = levels(sigma_BT, sigma_next_BT)
        down = after * (1 + self.eta * (after / sigma - 1))
        scale = (1 - after) / (1 - down)
        stepped = per_frame(scale, x_BCTYX) * (x_BCTYX + per_frame(down - sigma, x_BCTYX) * v_BCTYX)
        if self.stochastic:
            fresh = (after**2 - (down * scale) ** 2).clamp(min=0).sqrt()
            stepped = stepped + per_frame(fresh, x_BCTYX) * need_noise(self.name, noise_BCTYX)
        return torch.where(moving(sigma_BT, sigma_next_BT, x_BCTYX), stepped, x_BCTYX), state


@dataclass(frozen=True)
class Renoise(Solver[State]):
    """(1-s') x_0 + s' noise: jump to the clean estimate, then noise anew. For distilled few-step models only.

    (Multistep consistency sampling, Song et al. 2023; diffusers calls it LCM.)
    """

    name: ClassVar[str] = "lcm"
    order: ClassVar[int] = 0
    state_type: ClassVar[type[State]] = State

    @property
    def stochastic(self) -> bool:
        """Always."""
        return True

    def step(
        self,
        state: State,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Solver.step`."""
        after = per_frame(sigma_next_BT, x_BCTYX)
        clean_BCTYX = clean(x_BCTYX, v_BCTYX, sigma_BT)
        stepped = (1 - after) * clean_BCTYX + after * need_noise(self.name, noise_BCTYX)
        return torch.where(moving(sigma_BT, sigma_next_BT, x_BCTYX), stepped, x_BCTYX), state


def _signal(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Variance-preserving signal and noise amplitudes of a flow level; their squares add up to 1."""
    scale = torch.hypot(1 - sigma, sigma)
    return (1 - sigma) / scale, sigma / scale


@dataclass(frozen=True)
class DDIM(Solver[State]):
    """a' x_0 + sqrt(b'^2 - c^2) e + c noise, on the variance-preserving path (Song et al. 2021, eq. 12).

    Attributes:
        eta: 0 is deterministic (and then equals Euler on the flow path), 1 adds DDPM's noise.
        clip: clamp the clean estimate to this range, as some pixel models want; None for latents.
    """

    eta: float = 0.0
    clip: float | None = None

    name: ClassVar[str] = "ddim"
    order: ClassVar[int] = 1
    state_type: ClassVar[type[State]] = State

    @property
    def stochastic(self) -> bool:
        """Unless `eta` is 0."""
        return self.eta > 0

    def step(
        self,
        state: State,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Solver.step`."""
        (a, b), (a_next, b_next) = map(_signal, levels(sigma_BT, sigma_next_BT))
        fresh = self.eta * (b_next / b) * (1 - (a / a_next) ** 2).clamp(min=0).sqrt()
        kept = (b_next**2 - fresh**2).clamp(min=0).sqrt()
        flow = 1 / (a_next + b_next)  # back from the variance-preserving scale
        clean_BCTYX = _clipped(clean(x_BCTYX, v_BCTYX, sigma_BT), self.clip)
        stepped = per_frame(flow * a_next, x_BCTYX) * clean_BCTYX
        stepped = stepped + per_frame(flow * kept, x_BCTYX) * noise_from(x_BCTYX, v_BCTYX, sigma_BT)
        if self.stochastic:
            stepped = stepped + per_frame(flow * fresh, x_BCTYX) * need_noise(self.name, noise_BCTYX)
        return torch.where(moving(sigma_BT, sigma_next_BT, x_BCTYX), stepped, x_BCTYX), state


@dataclass(frozen=True)
class DDPM(Solver[State]):
    """A draw from the posterior q(x' | x, x_0) on the variance-preserving path (Ho et al. 2020, eq. 6, 7).

    Attributes:
        variance: `fixed_small` is the posterior's own, `fixed_large` is beta.
        clip: clamp the clean estimate to this range, as some pixel models want; None for latents.
    """

    variance: Literal["fixed_small", "fixed_large"] = "fixed_small"
    clip: float | None = None

    name: ClassVar[str] = "ddpm"
    order: ClassVar[int] = 1
    state_type: ClassVar[type[State]] = State

    @property
    def stochastic(self) -> bool:
        """Always."""
        return True

    def step(
        self,
        state: State,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Solver.step`."""
        (a, b), (a_next, b_next) = map(_signal, levels(sigma_BT, sigma_next_BT))
        beta = 1 - (a / a_next) ** 2
        flow = 1 / (a_next + b_next)
        to_clean = flow * a_next * beta / b**2
        to_x = flow * (a / a_next) * (b_next / b) ** 2 * (a + b)  # (a + b) takes x to the preserving scale
        spread = (b_next / b) ** 2 if self.variance == "fixed_small" else (b_next > 0).double()
        fresh = flow * (spread * beta).clamp(min=0).sqrt()
        stepped = per_frame(to_clean, x_BCTYX) * _clipped(clean(x_BCTYX, v_BCTYX, sigma_BT), self.clip)
        stepped = stepped + per_frame(to_x, x_BCTYX) * x_BCTYX
        stepped = stepped + per_frame(fresh, x_BCTYX) * need_noise(self.name, noise_BCTYX)
        return torch.where(moving(sigma_BT, sigma_next_BT, x_BCTYX), stepped, x_BCTYX), state


def _clipped(clean_BCTYX: Tensor, clip: float | None) -> Tensor:
    return clean_BCTYX if clip is None else clean_BCTYX.clamp(-clip, clip)
