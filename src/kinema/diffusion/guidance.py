"""Guidance: how predictions under several conditionings become one velocity.

    plan(step)              -> which predictions are needed: "cond", "uncond", "skip"; often fewer than all
    combine(predictions, step) -> v

c is the prediction with the prompt, u the one with the negative (or empty) prompt, w the scale. Rules are
pure, and a forward that would not matter is never asked for. A held frame's velocity means nothing, so sums
over a prediction leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.diffusion.flow import per_frame
from kinema.diffusion.step import Step

COND, UNCOND, SKIP = "cond", "uncond", "skip"

Predictions = Mapping[str, Tensor]


class Guidance(Protocol):
    """A rule that plans forwards and combines their results."""

    def plan(self, step: Step) -> tuple[str, ...]:
        """The predictions this step needs; none means the velocity is zero."""
        ...

    def combine(self, predictions: Predictions, step: Step) -> Tensor:
        """The velocity, from the predictions that `plan` asked for."""
        ...


class Predict(Protocol):
    """The network under several conditionings; a batch of them in one forward if it likes."""

    def __call__(self, x_BCTYX: Tensor, step: Step, names: tuple[str, ...], /) -> Predictions:
        """One velocity for each name."""
        ...


@dataclass(frozen=True, slots=True)
class Guided:
    """A network and a guidance rule, as the velocity that `sample` follows."""

    predict: Predict
    guidance: Guidance

    def __call__(self, x_BCTYX: Tensor, step: Step, /) -> Tensor:
        """The guided velocity."""
        names = self.guidance.plan(step)
        if not names:
            return torch.zeros_like(x_BCTYX)
        return self.guidance.combine(self.predict(x_BCTYX, step, names), step)


def inside(step: Step, interval: tuple[float, float]) -> Tensor:
    """Which frames' levels lie in the interval, ends included, `[B, T]`."""
    low, high = interval
    return (step.sigma_BT >= low) & (step.sigma_BT <= high)


def moving(step: Step) -> Tensor:
    """Which frames a velocity means anything to, `[B, T]`: those with noise, or all where none has any.

    A held frame is at level 0, which is inside every interval that begins there.
    """
    noisy = step.sigma_BT > 0
    return noisy if bool(noisy.any()) else torch.ones_like(noisy)


def counted(step: Step, like_BCTYX: Tensor) -> Tensor | None:
    """The frames that statistics are taken over, bool `[B, 1, T, 1, 1]`; None where that is all of them."""
    moving_BT = moving(step)
    if bool(moving_BT.all()):
        return None
    return rearrange(moving_BT, "B T -> B 1 T 1 1").to(like_BCTYX.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifierFree:
    """u + w (c - u), from the negative prompt's prediction through the prompt's (Ho and Salimans 2022).

    Attributes:
        scale: w; a number, or one per frame `[B, T]`, or per step and frame `[S, B, T]`. Frames at 1 get c
            itself, and a step in which all are at 1 costs one forward instead of two.
        interval: the noise levels at which it acts (Kynkäänniemi et al. 2024); outside, w is 1.
        rescale: 0..1, how far to pull the deviation back to that of c (Lin et al. 2023, eq. 15, 16).
    """

    scale: float | Tensor = 5.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"guidance interval={self.interval} is not two rising levels in 0..1.")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"guidance rescale={self.rescale} is not in 0..1; 0 turns it off.")

    def weights(self, step: Step) -> Tensor:
        """Each frame's w at this step, `[B, T]`."""
        scale = torch.as_tensor(self.scale, dtype=torch.float32).cpu()
        scale = scale[step.index] if scale.ndim == 3 else scale
        return torch.where(inside(step, self.interval), scale, torch.ones_like(scale))

    def plan(self, step: Step) -> tuple[str, ...]:
        """Without the negative prompt when no frame that moves is guided."""
        guided = (self.weights(step) != 1) & moving(step)
        return (COND, UNCOND) if bool(guided.any()) else (COND,)

    def stands(self, step: Step) -> Tensor:
        """Frames whose velocity is zero at this step whatever the network says, `[B, T]`."""
        return torch.zeros_like(step.sigma_BT, dtype=torch.bool)

    def combine(self, predictions: Predictions, step: Step) -> Tensor:
        """The guided velocity."""
        c = predictions[COND]
        if UNCOND not in predictions:
            return c
        w, over = per_frame(self.weights(step), c), counted(step, c)
        v = self.extrapolate(c, predictions[UNCOND], w, over)
        if self.rescale > 0:
            v = v * (self.rescale * _deviation(c, over) / _deviation(v, over) + (1 - self.rescale))
        return torch.where(w == 1, c, v)

    def extrapolate(self, c: Tensor, u: Tensor, w: Tensor, over: Tensor | None = None) -> Tensor:
        """The rule itself, with `w` as `[B, 1, T, 1, 1]`, and `over` from `counted`."""
        return u + w * (c - u)


@dataclass(frozen=True, kw_only=True, eq=False)
class CFGZero(ClassifierFree):
    """a u + w (c - a u), with u scaled to its best fit to c: a = <c, u> / |u|^2 (CFG-Zero*, Fan et al. 2025).

    Attributes:
        zero_steps: in so many first steps of a run from pure noise the velocity of guided frames is zero,
            where an undertrained network is worse than none; their forwards are not run. Not of frames that
            begin below the others, and 0 for runs from other levels: latents that stand still while the level
            falls keep noise that nothing takes away.
    """

    zero_steps: int = 1

    def plan(self, step: Step) -> tuple[str, ...]:
        """None during the first `zero_steps`, where all that moves is guided from noise and steps follow."""
        going = moving(step) & ~self.stands(step)
        if not bool(going.any()):
            return ()
        return (COND, UNCOND) if bool(((self.weights(step) != 1) & going).any()) else (COND,)

    def combine(self, predictions: Predictions, step: Step) -> Tensor:
        """The guided velocity."""
        v = super().combine(predictions, step)
        return torch.where(per_frame(self.stands(step), v) > 0, 0.0, v)

    def stands(self, step: Step) -> Tensor:
        """Guided frames at the highest level, where the clip begins; a frame known in part is below it."""
        if not step.index < self.zero_steps < step.steps:
            return super().stands(step)
        highest = step.sigma_BT == step.sigma_BT.max()
        return highest & moving(step) & (self.weights(step) != 1)

    def extrapolate(self, c: Tensor, u: Tensor, w: Tensor, over: Tensor | None = None) -> Tensor:
        """The rule itself, with `w` as `[B, 1, T, 1, 1]`, and `over` from `counted`."""
        fit = _dot(c, u, over) / (_dot(u, u, over) + 1e-8)
        return fit * u + w * (c - fit * u)


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptiveProjected(ClassifierFree):
    """c + (w-1) U: the direction c - u, clipped, with its part along c damped (APG, Sadat et al. 2024).

    The part along c is what over-saturates at high scales. Some programs write u + w U instead, which is
    another rule as soon as `eta` is not 1 or the clip acts; this is the paper's, without its momentum.

    Attributes:
        eta: share of the part along c that stays; 1 with no clip is plain guidance.
        norm_limit: largest norm of c - u per batch entry; None for no clip.
    """

    eta: float = 0.0
    norm_limit: float | None = None

    def extrapolate(self, c: Tensor, u: Tensor, w: Tensor, over: Tensor | None = None) -> Tensor:
        """The rule itself, with `w` as `[B, 1, T, 1, 1]`, and `over` from `counted`."""
        exact = torch.float32 if c.device.type == "mps" else torch.float64
        direction, axis = (c - u).to(exact), c.to(exact)
        if self.norm_limit is not None:
            norm = _dot(direction, direction, over).sqrt()
            direction = direction * (self.norm_limit / norm.clamp(min=self.norm_limit))
        along = _dot(direction, axis, over) / _dot(axis, axis, over).clamp(min=1e-30) * axis
        return c + (w - 1) * (direction + (self.eta - 1) * along).to(c.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipLayer:
    """base + s (c - k): away from k, the prediction of the network with some layers skipped.

    Attributes:
        base: the guidance it adds to; where that leaves frames standing, they stand.
        scale: s; each guided step costs one more forward.
        interval: the noise levels at which it acts.
    """

    base: ClassifierFree
    scale: float = 2.8
    interval: tuple[float, float] = (0.0, 1.0)

    def plan(self, step: Step) -> tuple[str, ...]:
        """The base's, and "skip" where it acts."""
        names = self.base.plan(step)
        acts = self.scale != 0 and bool((inside(step, self.interval) & moving(step)).any())
        return (*names, SKIP) if names and acts else names

    def combine(self, predictions: Predictions, step: Step) -> Tensor:
        """The guided velocity."""
        v = self.base.combine(predictions, step)
        if SKIP not in predictions:
            return v
        acts = inside(step, self.interval) & ~self.base.stands(step)
        s = per_frame(self.scale * acts, v)
        return v + s * (predictions[COND] - predictions[SKIP])


def _dot(first: Tensor, second: Tensor, over: Tensor | None) -> Tensor:
    """Inner product over everything but the batch, kept broadcastable."""
    return _sum(first * second, over)


def _deviation(x_BCTYX: Tensor, over: Tensor | None) -> Tensor:
    """Standard deviation over everything but the batch, kept broadcastable."""
    if over is None:
        return x_BCTYX.std(dim=(1, 2, 3, 4), keepdim=True)
    count = over.sum(dim=2, keepdim=True) * (x_BCTYX[0].numel() // x_BCTYX.shape[2])
    mean = _sum(x_BCTYX, over) / count
    return (_sum((x_BCTYX - mean) ** 2, over) / (count - 1)).sqrt()


def _sum(x_BCTYX: Tensor, over: Tensor | None) -> Tensor:
    x_BCTYX = x_BCTYX if over is None else torch.where(over, x_BCTYX, 0.0)
    return x_BCTYX.sum(dim=(1, 2, 3, 4), keepdim=True)
