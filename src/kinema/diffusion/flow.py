"""The flow between data and noise, defined once for training and sampling alike.

    x_s = (1 - s) x_0 + s e        s = 1 is noise, s = 0 is data; every latent frame has its own s
    v   = dx/ds = e - x_0          what the network predicts
    x_0 = x_s - s v,   e = x_s + (1 - s) v

A *grid* is the list of levels `[S+1]` that S steps visit, from about 1 down to 0. Programs that claim the
same solver and shift use different grids; `GRIDS` names them, and each equals its namesake number for number.
A *table* `[S+1, B, T]` is a grid given to every frame, capped where a frame is known in part or in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinema.core.errors import ConfigError, unknown_name

TIMESTEPS = 1000  # the networks were trained with time counted 0..1000

Levels = NDArray[np.float64]


def per_frame(value_BT: Tensor, like_BCTYX: Tensor) -> Tensor:
    """One number per frame as `[B, 1, T, 1, 1]`, in the dtype and on the device of the latents it will meet.

    `[B, T, Y, X]` (one number per latent position) is accepted too and becomes `[B, 1, T, Y, X]`.
    """
    pattern = "B T -> B 1 T 1 1" if value_BT.ndim == 2 else "B T Y X -> B 1 T Y X"
    value: Tensor = rearrange(value_BT, pattern)
    return value.to(like_BCTYX)


def noisy(clean_BCTYX: Tensor, noise_BCTYX: Tensor, sigma_BT: Tensor) -> Tensor:
    """The point of the path at level `sigma_BT` (0..1)."""
    sigma = per_frame(sigma_BT, clean_BCTYX)
    return (1 - sigma) * clean_BCTYX + sigma * noise_BCTYX


def velocity(clean_BCTYX: Tensor, noise_BCTYX: Tensor) -> Tensor:
    """dx/dsigma along the path: the network's target."""
    return noise_BCTYX - clean_BCTYX


def clean(x_BCTYX: Tensor, v_BCTYX: Tensor, sigma_BT: Tensor) -> Tensor:
    """The data that `x` and `v` point at; inverts `noisy` when `v` is exact."""
    return x_BCTYX - per_frame(sigma_BT, x_BCTYX) * v_BCTYX


def noise_from(x_BCTYX: Tensor, v_BCTYX: Tensor, sigma_BT: Tensor) -> Tensor:
    """The noise that `x` and `v` come from; the other end of the path."""
    return x_BCTYX + per_frame(1 - sigma_BT, x_BCTYX) * v_BCTYX


def shifted(levels: Levels, shift: float) -> Levels:
    """Move levels towards noise: `shift * s / (1 + (shift - 1) s)`; 1 changes nothing."""
    return shift * levels / (1 + (shift - 1) * levels)


def _wan(n: int, shift: float) -> Levels:
    # Wan keeps its largest level in float32, hence 0.99900001.
    return shifted(np.linspace(float(np.float32(0.999)), 0.0, n + 1)[:-1], shift)


def _wan_euler(n: int, shift: float) -> Levels:
    return shifted(np.linspace(1.0, 0.0, n + 1)[:-1], shift)


def _diffusers(n: int, shift: float) -> Levels:
    levels = shifted(np.linspace(1.0, 1.0 / TIMESTEPS, n + 1)[:-1], shift)
    levels[0] -= 1e-6 * (abs(levels[0] - 1) < 1e-6)  # diffusers keeps log(1 - s) finite this way
    return levels


def _diffusers_dpm(n: int, shift: float) -> Levels:
    return shifted(1.0 - np.linspace(1.0, 1.0 / TIMESTEPS, n + 1), shift)[::-1][:-1].copy()


def _diffusers_euler(n: int, shift: float) -> Levels:
    # The ends come from the already shifted training levels (in float32) and are then shifted once more.
    ends = shifted(np.array([1.0, 1.0 / TIMESTEPS], dtype=np.float32), shift)
    return shifted(np.linspace(float(ends[0]) * TIMESTEPS, float(ends[1]) * TIMESTEPS, n) / TIMESTEPS, shift)


@dataclass(frozen=True, slots=True)
class Grid:
    """How one program spaces its levels, and whether its network sees whole timesteps."""

    levels: Callable[[int, float], Levels]
    whole: bool
    source: str


LEAST_SHIFT = 1e-3  # far below, 1 + (shift - 1) s is lost in rounding

GRIDS = {
    "wan": Grid(_wan, True, "Wan's FlowUniPCMultistepScheduler"),
    "wan-dpm++": Grid(_wan_euler, True, "Wan's get_sampling_sigmas with FlowDPMSolverMultistepScheduler"),
    "wan-euler": Grid(_wan_euler, False, "the plain shifted grid of flow-match Euler loops"),
    "diffusers": Grid(
        _diffusers, True, "UniPCMultistepScheduler(use_flow_sigmas=True), what WanPipeline runs"
    ),
    "diffusers-dpm++": Grid(_diffusers_dpm, True, "DPMSolverMultistepScheduler(use_flow_sigmas=True)"),
    "diffusers-euler": Grid(_diffusers_euler, False, "FlowMatchEulerDiscreteScheduler"),
}


def _grid(name: str) -> Grid:
    if name not in GRIDS:
        raise unknown_name("grid", name, GRIDS)
    return GRIDS[name]


def sigmas(n: int, shift: float, grid: str = "wan") -> Tensor:
    """The levels of `n` steps, float32 `[n+1]`, from about 1 down to exactly 0.

    Args:
        n: number of steps, at least 1.
        shift: above 1 spends more steps near noise (Wan: 3 to 12 by size); must be positive.
        grid: a name in `GRIDS`; the programs differ by up to 0.08 in their last levels.

    Raises:
        ConfigError: `n`, `shift` or `grid` is out of range or unknown.
    """
    chosen = _grid(grid)
    if n < 1:
        raise ConfigError(f"steps={n} is too few; use 1 or more.")
    if not shift >= LEAST_SHIFT:
        raise ConfigError(
            f"shift={shift} is not {LEAST_SHIFT:g} or more; use 1 for no shift, 3 to 12 for Wan."
        )
    # diffusers' float32 ends may overshoot 1 by one rounding, where log(1 - s) no longer exists.
    levels = np.minimum(np.append(chosen.levels(n, shift), 0.0), 1.0)
    return torch.from_numpy(levels.astype(np.float32))


def timesteps(sigmas: Tensor, n: int, shift: float, grid: str = "wan") -> Tensor:
    """What the network is told at these levels: 1000 sigma, cut to int64 where the grid's program does so.

    Elementwise, so a whole table `[S+1, B, T]` may be given. Levels of the grid `(n, shift)` get the very
    integers of the named program: it cuts 1000 sigma in float64, where 667 may read 666.99, and a float32
    level no longer tells. Other levels (a keyframe's cap) are cut where they stand.

    Returns:
        int64, or float32 for grids whose program keeps fractions; the shape of `sigmas`.
    """
    chosen = _grid(grid)
    if not chosen.whole:
        return sigmas.float() * TIMESTEPS
    levels = torch.from_numpy(chosen.levels(n, shift)).to(sigmas.device)
    same = sigmas.unsqueeze(-1) == levels.float()
    cut = (sigmas.double() * TIMESTEPS).to(torch.int64)
    return torch.where(same.any(-1), (levels * TIMESTEPS).to(torch.int64)[same.int().argmax(-1)], cut)


def table(sigmas_S1: Tensor, caps_BT: Tensor) -> Tensor:
    """Each frame's level before and after each step, `[S'+1, B, T]`: the grid, never above the frame's cap.

    The cap says how much of a frame is open: 1 for a free frame, 0 for one that is known and held,
    `1 - strength` for a keyframe that may drift, `strength` for every frame of a video-to-video run. Leading
    steps in which no frame moves are dropped, so that such a run starts at its strength.

    A level that lies within one timestep (0.001) under a cap is passed over: so short a first step
    would leave the multistep solvers a difference quotient made of rounding errors.

    Args:
        sigmas_S1: a grid, falling from about 1 to 0.
        caps_BT: in 0..1.

    Raises:
        ConfigError: a cap lies outside 0..1.
    """
    if not bool(((caps_BT >= 0) & (caps_BT <= 1)).all()):
        raise ConfigError("every frame's cap must lie in 0..1; caps are 1 - strength for keyframes.")
    levels, caps = rearrange(sigmas_S1, "S -> S 1 1"), rearrange(caps_BT.to(sigmas_S1), "B T -> 1 B T")
    waits = (levels > caps - 1 / TIMESTEPS) & (caps < sigmas_S1[0]) & (levels > 0)
    sigmas_SBT = torch.where(waits, caps, levels).expand(len(sigmas_S1), *caps_BT.shape)
    sigmas_SBT = torch.where(caps == 0, 0.0, sigmas_SBT)
    moving = (sigmas_SBT[1:] != sigmas_SBT[:-1]).flatten(1).any(dim=1).nonzero()
    return sigmas_SBT[int(moving[0]) if len(moving) else -1 :].clone()
