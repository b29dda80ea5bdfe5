"""The denoise loop: latents at the table's first levels in, latents at its last levels out.

One step is ask for a velocity -> let the solver move -> report. Guidance, caches and windows are wrapped
around the network before it gets here, and every mode is data in the table `[S+1, B, T]`, so the loop never
asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import GeometryError
from kinema.diffusion.flow import clean
from kinema.diffusion.guard import check_finite
from kinema.diffusion.solver import Solver, State
from kinema.diffusion.step import NoiseSource, Step, Velocity


@dataclass(frozen=True, slots=True, eq=False)
class SamplerState:
    """Where a run stands between two steps; enough to go on with the same numbers.

    Attributes:
        index: the step to do next.
        x_BCTYX: the latents before it.
        solver: the solver's own memory.
        clean_BCTYX: the guess of the clean latents that the step before was made with; for previews only.
        carried: what wrappers around the network remember (`carry.Carry`); whoever made them adds it.
    """

    index: int
    x_BCTYX: Tensor
    solver: State
    clean_BCTYX: Tensor | None = None
    carried: Mapping[str, Tensor] = field(default_factory=dict)


@torch.inference_mode()
def sample(
    velocity: Velocity,
    x_BCTYX: Tensor,
    sigmas_SBT: Tensor,
    solver: Solver[Any],
    *,
    noise: NoiseSource | None = None,
    on_step: OnProgress | None = None,
    on_state: Callable[[SamplerState], None] | None = None,
    start: int = 0,
    state: State | None = None,
) -> Tensor:
    """Follow the velocity along the table.

    Args:
        velocity: the guided network.
        x_BCTYX: latents at `sigmas_SBT[start]`; half precision is carried in float32, since steps are small.
        sigmas_SBT: each frame's level before and after each step; see `flow.table`.
        solver: how to step; `solvers.solver(name)`.
        noise: fresh noise for stochastic solvers; `step.FrameNoise(seed)`.
        on_step: called after every step with the clean estimate; raise from it to stop.
        on_state: called after every step, before `on_step`, with what a later call needs to go on there:
            `sample(velocity, s.x_BCTYX, sigmas_SBT, solver, start=s.index, state=s.solver)`.
        start: the first step to do.
        state: the solver's memory at `start`.

    Returns:
        Latents at `sigmas_SBT[-1]`, at least float32.

    Raises:
        GeometryError: the table is not made for these latents.
        NumericError: the velocity is not finite.
    """
    _check_shape(x_BCTYX, sigmas_SBT)
    x_BCTYX = x_BCTYX.to(torch.promote_types(x_BCTYX.dtype, torch.float32))
    sigmas_SBT, steps = sigmas_SBT.cpu(), len(sigmas_SBT) - 1
    state = solver.init() if state is None else state
    for index in range(start, steps):
        before_BT, after_BT = sigmas_SBT[index], sigmas_SBT[index + 1]
        fresh = noise(index, x_BCTYX) if noise is not None and solver.stochastic else None
        clean_BCTYX = x_BCTYX
        for stage, level_BT in enumerate(solver.stages(before_BT, after_BT)):
            step = Step(index, steps, stage, level_BT)
            v_BCTYX = velocity(x_BCTYX, step).to(x_BCTYX.dtype)
            check_finite(v_BCTYX, step)
            clean_BCTYX = clean(x_BCTYX, v_BCTYX, level_BT)
            x_BCTYX, state = solver.step(state, x_BCTYX, v_BCTYX, before_BT, after_BT, fresh)
        if on_state is not None:
            on_state(SamplerState(index + 1, x_BCTYX, state, clean_BCTYX))
        if on_step is not None:
            on_step(Progress("denoise", index + 1, steps, float(after_BT.max()), clean_BCTYX))
    return x_BCTYX


def _check_shape(x_BCTYX: Tensor, sigmas_SBT: Tensor) -> None:
    batch, frames = x_BCTYX.shape[0], x_BCTYX.shape[2]
    if sigmas_SBT.shape[1:3] != (batch, frames):
        raise GeometryError(
            f"the noise table is for (batch, latent frames) = {tuple(sigmas_SBT.shape[1:3])}, "
            f"the latents are {(batch, frames)}; make it with flow.table(sigmas, caps of that shape)."
        )
