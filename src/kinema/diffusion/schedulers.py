"""Any diffusers scheduler as a solver, for runs in which all frames share one level.

diffusers' schedulers keep their memory in themselves, and each family wants its own latents and its own kind
of prediction. Here every step works on a copy, loaded from and read back into a state of tensors; and

    family                    latents               k-diffusion level
    flow                      x                     -
    variance preserving       x / hypot(1-s, s)     s / (1-s)
    variance exploding        x / (1-s)             s / (1-s)

turns flow latents into the family's. The velocity becomes the prediction that the scheduler's config names.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.core.runtime import generator
from kinema.diffusion.flow import clean, noise_from
from kinema.diffusion.solver import Solver, State


@dataclass(frozen=True, slots=True)
class SchedulerState(State):
    """Steps done, and those attributes of the scheduler that its `step` changed, flattened to tensors."""

    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Tensor]:
        """The memory itself."""
        return dict(self.memory)

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of `state_dict`."""
        return cls(dict(tensors))


class DiffusersScheduler(Solver[SchedulerState]):
    """A diffusers scheduler with its timesteps set, as a solver.

    Args:
        scheduler: any of the three families; it is copied, never changed.
        steps: number of steps.
        begin: leave out so many first steps (video to video).
        seed: for schedulers that draw noise.
        **prepare: passed to its `set_timesteps`, e.g. `mu`.

    Raises:
        ConfigError: its levels cannot be told (PNDM and other schemes of their own).
    """

    name: ClassVar[str] = "diffusers"
    order: ClassVar[int] = 0
    state_type: ClassVar[type[State]] = SchedulerState

    def __init__(self, scheduler: Any, steps: int, *, begin: int = 0, seed: int = 0, **prepare: Any) -> None:
        self._fresh = copy.deepcopy(scheduler)
        self._fresh.set_timesteps(steps, **prepare)
        if hasattr(self._fresh, "set_begin_index"):
            self._fresh.set_begin_index(begin)
        self._begin, self._seed = begin, seed
        self._kind = _kind(self._fresh)
        self._levels = _levels(self._fresh, self._kind)

    def __repr__(self) -> str:
        config = dict(sorted(self._fresh.config.items()))
        return f"{type(self._fresh).__name__}({config}, begin={self._begin}, seed={self._seed})"

    @property
    def sigmas(self) -> Tensor:
        """The flow levels of the run, float64 `[S+1]`, for `flow.table`."""
        return self._levels[self._begin :]

    def step(
        self,
        state: SchedulerState,
        x_BCTYX: Tensor,
        v_BCTYX: Tensor,
        sigma_BT: Tensor,
        sigma_next_BT: Tensor,
        noise_BCTYX: Tensor | None = None,
    ) -> tuple[Tensor, SchedulerState]:
        """See `Solver.step`; `ConfigError` unless all frames are at this scheduler's own level."""
        done = int(state.memory.get("done", torch.tensor(0)))
        index = self._begin + done
        sigma, after = float(self._levels[index]), float(self._levels[index + 1])
        _check_shared(sigma_BT, sigma)
        _check_shared(sigma_next_BT, after)
        scheduler = copy.copy(self._fresh)
        _load(scheduler, state.memory)
        time = scheduler.timesteps[index]
        native = x_BCTYX * _scale(sigma, self._kind)
        scheduler.scale_model_input(native, time) if hasattr(scheduler, "scale_model_input") else None
        options = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            options["generator"] = generator(self._seed, f"step {index}")
        output = self._output(x_BCTYX, v_BCTYX, sigma_BT, sigma)
        stepped = scheduler.step(output, time, native, **options).prev_sample
        memory = {"done": torch.tensor(done + 1), **_changed(scheduler, self._fresh)}
        return stepped / _scale(after, self._kind), SchedulerState(memory)

    def _output(self, x_BCTYX: Tensor, v_BCTYX: Tensor, sigma_BT: Tensor, sigma: float) -> Tensor:
        predicts = "flow_prediction" if self._kind == "flow" else self._fresh.config.prediction_type
        if predicts == "flow_prediction":
            return v_BCTYX
        data, noise = clean(x_BCTYX, v_BCTYX, sigma_BT), noise_from(x_BCTYX, v_BCTYX, sigma_BT)
        if predicts == "epsilon":
            return noise
        if predicts == "sample":
            return data
        return ((1 - sigma) * noise - sigma * data) * _scale(sigma, "preserving")


def _kind(scheduler: Any) -> str:
    if type(scheduler).__name__.startswith("FlowMatch") or scheduler.config.get("use_flow_sigmas", False):
        return "flow"
    # Schedulers that work on x_0 + sigma e have to scale the network's input, and note whether that was done.
    return "exploding" if hasattr(scheduler, "is_scale_input_called") else "preserving"


def _levels(scheduler: Any, kind: str) -> Tensor:
    if kind == "flow":
        return torch.as_tensor(scheduler.sigmas).double()
    if len(getattr(scheduler, "sigmas", ())) == len(scheduler.timesteps) + 1:
        sigmas = torch.as_tensor(scheduler.sigmas).double()
        return sigmas / (1 + sigmas)
    if type(scheduler).__name__.startswith(("DDIM", "DDPM")):
        final = torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", 1.0)).reshape(1)
        kept = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], final]).double()
        return (1 - kept).sqrt() / (kept.sqrt() + (1 - kept).sqrt())
    raise ConfigError(
        f"{type(scheduler).__name__} does not say which noise levels it visits; use a solver of kinema, "
        "or a scheduler such as UniPCMultistepScheduler or DDIMScheduler."
    )


def _scale(sigma: float, kind: str) -> float:
    if kind == "flow":
        return 1.0
    return (1 - sigma) ** -1 if kind == "exploding" else ((1 - sigma) ** 2 + sigma**2) ** -0.5


def _check_shared(sigma_BT: Tensor, level: float) -> None:
    if bool(((sigma_BT.double() - level).abs() > 1e-6).any()):
        raise ConfigError(
            f"a diffusers scheduler moves all frames along its own levels (here {level:.4f}), not from "
            f"{float(sigma_BT.min()):.4f} to {float(sigma_BT.max()):.4f}; make the table from its `sigmas`, "
            "or use a solver of kinema for keyframes."
        )


def _changed(scheduler: Any, fresh: Any) -> dict[str, Tensor]:
    """Attributes that differ from the fresh scheduler's: `name` or `name/position` to a tensor."""
    found: dict[str, Tensor] = {}
    for name, value in vars(scheduler).items():
        before = getattr(fresh, name, None)
        if isinstance(value, list):
            items = enumerate(value)
            found |= {f"{name}/{i}": item for i, item in items if isinstance(item, Tensor)}
        elif value is not before and isinstance(value, Tensor | int | float):
            found[name] = torch.as_tensor(value)
    return found


def _load(scheduler: Any, memory: Mapping[str, Tensor]) -> None:
    """Inverse of `_changed`, on a shallow copy of the fresh scheduler; lists are replaced, not filled in."""
    for name, value in list(vars(scheduler).items()):
        if isinstance(value, list):
            setattr(scheduler, name, list(value))
    for key, tensor in memory.items():
        name, _, position = key.partition("/")
        if position:
            items = getattr(scheduler, name)
            items.extend([None] * (int(position) + 1 - len(items)))
            items[int(position)] = tensor
        elif key != "done":
            # Counters come back as numbers: schedulers index lists and compare with them.
            counter = tensor.ndim == 0 and not isinstance(getattr(scheduler, name, None), Tensor)
            setattr(scheduler, name, tensor.item() if counter else tensor)
