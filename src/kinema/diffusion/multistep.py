"""Solvers that remember: second order from one call per step, by looking back at the last clean estimates.

With `l = log((1-s)/s)`, `h = l' - l` and the clean estimate `m = x - s v`, the flow from s to s' is

    x' = r x + (1-r) (m + slope),   r = s'/s

exactly for a straight flow (slope 0); the solvers differ in how they estimate the slope of m. Per frame:
history grows only in steps that move the frame, and a frame without any takes the first-order step. So does a
step to 0, where h is infinite (`lower_order_final` elsewhere).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kinema.diffusion.flow import clean, per_frame
from kinema.diffusion.solver import Solver, State, levels, log_snr, moving, need_noise


def _back_weight(past: Tensor, sigma: Tensor, after: Tensor, known: Tensor) -> Tensor:
    """Weight of `m - m_past` in the second-order predictor, h / (2 h_past); 0 where that is unknown."""
    h, h_past = log_snr(after) - log_snr(sigma), log_snr(sigma) - log_snr(past)
    return torch.where(known & (after > 0), h / (2 * h_past), torch.zeros_like(sigma))


@dataclass(frozen=True, slots=True)
class DPMState(State):
    """The clean estimate before the current one and its level (0 where a frame has none)."""

    m_BCTYX: Tensor | None = None
    sigma_BT: Tensor | None = None


@dataclass(frozen=True)
class DPM2M(Solver[DPMState]):
    """DPM-Solver++(2M), midpoint form (Lu et al. 2022, algorithm 2); its SDE variant with `sde`."""

    sde: bool = False

    name: ClassVar[str] = "dpm++2m"
    order: ClassVar[int] = 2
    state_type: ClassVar[type[State]] = DPMState

    @property
    def stochastic(self) -> bool:
        """For the SDE variant."""
        return self.sde

    def step(
        self,
        state: DPMState,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, DPMState]:
        """See `Solver.step`."""
        m = clean(x_BCTYX, v_BCTYX, sigma_BT)
        m_past = torch.zeros_like(m) if state.m_BCTYX is None else state.m_BCTYX
        past_BT = torch.zeros_like(sigma_BT) if state.sigma_BT is None else state.sigma_BT
        sigma, after = levels(sigma_BT, sigma_next_BT)
        past = past_BT.double().cpu()
        # Where there is no past, any level above sigma keeps the unused quotient finite.
        weight = _back_weight(past.where(past > 0, (1 + sigma) / 2), sigma, after, past > 0)
        target = m + per_frame(weight, m) * (m - m_past)
        decay = torch.exp(log_snr(sigma) - log_snr(after)) if self.sde else torch.ones_like(sigma)
        keep = (after / sigma) * decay
        pull = (1 - after) * (1 - decay**2) if self.sde else 1 - keep
        stepped = per_frame(keep, m) * x_BCTYX + per_frame(pull, m) * target
        if self.sde:
            fresh = after * (1 - decay**2).clamp(min=0).sqrt()
            stepped = stepped + per_frame(fresh, m) * need_noise(self.name, noise_BCTYX)
        moves = moving(sigma_BT, sigma_next_BT, x_BCTYX)
        kept = DPMState(
            torch.where(moves, m, m_past), torch.where(sigma_BT != sigma_next_BT, sigma_BT, past_BT)
        )
        return torch.where(moves, stepped, x_BCTYX), kept


@dataclass(frozen=True, slots=True)
class UniPCState(State):
    """The last two clean estimates, their levels (0 where there is none), and the last predictor's start."""

    m_BCTYX: Tensor | None = None
    m_past_BCTYX: Tensor | None = None
    x_BCTYX: Tensor | None = None
    sigma_BT: Tensor | None = None
    sigma_past_BT: Tensor | None = None


@dataclass(frozen=True)
class UniPC(Solver[UniPCState]):
    """UniPC-2, B(h) = e^h - 1 ("bh2"), data prediction: what Wan samples with (Zhao et al. 2023).

    Each call first corrects the step before with the estimate that is now known (UniC), at no extra cost,
    then predicts the next latents (UniP, equal to DPM++ 2M's predictor).
    """

    name: ClassVar[str] = "unipc"
    order: ClassVar[int] = 3  # the predictor's 2, raised by the corrector
    state_type: ClassVar[type[State]] = UniPCState

    def step(
        self,
        state: UniPCState,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, UniPCState]:
        """See `Solver.step`."""
        m = clean(x_BCTYX, v_BCTYX, sigma_BT)
        moves = moving(sigma_BT, sigma_next_BT, x_BCTYX)
        m_last, m_past, x_last = (
            torch.zeros_like(m) if t is None else t
            for t in (state.m_BCTYX, state.m_past_BCTYX, state.x_BCTYX)
        )
        last_BT, past_BT = (
            torch.zeros_like(sigma_BT) if t is None else t for t in (state.sigma_BT, state.sigma_past_BT)
        )
        sigma, after = levels(sigma_BT, sigma_next_BT)
        last, past = last_BT.double().cpu(), past_BT.double().cpu()

        keep, to_last, to_past, to_m = _corrector(past, last, sigma)
        corrected = per_frame(keep, m) * x_last + per_frame(to_last, m) * m_last
        corrected = corrected + per_frame(to_past, m) * m_past + per_frame(to_m, m) * m
        known = per_frame(last, m) > 0
        x_start = torch.where(moves & known, corrected, x_BCTYX)

        weight = _back_weight(last.where(last > 0, (1 + sigma) / 2), sigma, after, last > 0)
        ratio = per_frame(after / sigma, m)
        stepped = ratio * x_start + (1 - ratio) * (m + per_frame(weight, m) * (m - m_last))

        moves_BT = sigma_BT != sigma_next_BT
        kept = UniPCState(
            torch.where(moves, m, m_last),
            torch.where(moves, m_last, m_past),
            torch.where(moves, x_start, x_last),
            torch.where(moves_BT, sigma_BT, last_BT),
            torch.where(moves_BT, last_BT, past_BT),
        )
        return torch.where(moves, stepped, x_BCTYX), kept


def _corrector(past: Tensor, last: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """UniC's weights of (x_last, m_last, m_past, m) for the step from `last` to `sigma`, each `[B, T]`.

    With one estimate known before the step (`past` = 0) the rule is the trapezoid; with two, the 2x2 system
    `rho_1 + rho_2 = b_1`, `q rho_1 + rho_2 = b_2`, where q is the place of the past estimate on the h axis.
    """
    second = past > 0
    last = last.where((last > 0) & (last != sigma), (1 + sigma) / 2)
    past = past.where(second, (1 + last) / 2)
    h = log_snr(sigma) - log_snr(last)
    q = (log_snr(past) - log_snr(last)) / h
    phi_1 = torch.expm1(-h)
    b_1 = (phi_1 / -h - 1) / phi_1
    b_2 = 2 * ((phi_1 / -h - 1) / -h - 0.5) / phi_1
    rho_1 = torch.where(second, (b_1 - b_2) / (1 - q), torch.zeros_like(h))
    rho_2 = torch.where(second, b_1 - rho_1, torch.full_like(h, 0.5))
    ratio = sigma / last
    pull = 1 - ratio
    past_weight = torch.where(second, rho_1 / q, torch.zeros_like(h))
    return ratio, pull * (1 - past_weight - rho_2), pull * past_weight, pull * rho_2
