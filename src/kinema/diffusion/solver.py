"""What every solver is: a pure function from a state and a velocity to the next latents and the next state.

    x' , state' = step(state, x, v, sigma, sigma', noise)

Levels are per frame `[B, T]`. A frame whose level does not change is returned bit for bit and adds nothing to
the history, so running frames together equals running each with only the steps in which it moves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Generic, Self, TypeVar, cast

import torch
from einops import rearrange
from torch import Tensor

from kinema.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class State:
    """What a solver remembers between steps; tensors or None in every field, None before the first step."""

    def state_dict(self) -> dict[str, Tensor]:
        """The fields that are set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of `state_dict`; `ConfigError` when the tensors belong to another solver."""
        if stray := set(tensors) - {field.name for field in fields(cls)}:
            raise ConfigError(
                f"saved state holds {', '.join(sorted(stray))}, unknown to {cls.__name__}; start anew."
            )
        return cls(**tensors)


S = TypeVar("S", bound=State)


class Solver(ABC, Generic[S]):
    """One way to follow the velocity from noise to data.

    Attributes:
        name: its key in `SOLVERS`.
        order: the error of one run falls as (step size) ** order on smooth flows; 0 if it does not integrate.
        state_type: the class of its state.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    state_type: ClassVar[type[State]]

    @property
    def stochastic(self) -> bool:
        """Whether `step` needs fresh noise."""
        return False

    def init(self) -> S:
        """The state before the first step."""
        return cast(S, self.state_type())

    def restore(self, tensors: Mapping[str, Tensor]) -> S:
        """The state that `state_dict` wrote."""
        return cast(S, self.state_type.from_state_dict(tensors))

    def stages(self, sigma_BT: Tensor, sigma_next_BT: Tensor) -> tuple[Tensor, ...]:
        """The levels `[B, T]` at which this step wants a velocity, one call of `step` for each."""
        return (sigma_BT,)

    @abstractmethod
    def step(
        self,
        state: S,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, S]:
        """Advance from `sigma_BT` to `sigma_next_BT`.

        Args:
            state: what the step before returned, or `init()`.
            x_BCTYX: latents at `sigma_BT` (at a later stage: what the stage before returned).
            v_BCTYX: the velocity there.
            sigma_BT: levels before the step, 0..1.
            sigma_next_BT: levels after it.
            noise_BCTYX: standard normal; needed when `stochastic`.
        """


def moving(sigma_BT: Tensor, sigma_next_BT: Tensor, like_BCTYX: Tensor) -> Tensor:
    """Which frames this step moves, as a mask that broadcasts against the latents."""
    mask_BT = sigma_BT != sigma_next_BT
    pattern = "B T -> B 1 T 1 1" if mask_BT.ndim == 2 else "B T Y X -> B 1 T Y X"
    mask: Tensor = rearrange(mask_BT, pattern)
    return mask.to(like_BCTYX.device)


def levels(sigma_BT: Tensor, sigma_next_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Both levels in float64 on the CPU, with harmless stand-ins where a frame is held.

    Coefficients are a handful of numbers, and near sigma = 1 and 0 their logarithms need the digits; some
    devices have no float64. A held frame's result is thrown away, so its numbers only have to stay finite.
    """
    sigma, after = sigma_BT.double().cpu(), sigma_next_BT.double().cpu()
    held = sigma == after
    return sigma.masked_fill(held, 0.5), after.masked_fill(held, 0.25)


def log_snr(sigma_BT: Tensor) -> Tensor:
    """log((1 - s) / s): minus infinity at pure noise, infinity at data."""
    return torch.log1p(-sigma_BT) - torch.log(sigma_BT)


def need_noise(name: str, noise_BCTYX: Tensor | None) -> Tensor:
    """The noise, or a `ConfigError` that says which solver wants it."""
    if noise_BCTYX is None:
        raise ConfigError(f"solver {name!r} draws fresh noise at every step; pass noise=FrameNoise(seed).")
    return noise_BCTYX
