"""A run's state as named tensors and facts, for whoever keeps it: what a later process goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.diffusion.carry import Carry
from kinema.diffusion.sampler import SamplerState
from kinema.diffusion.solver import Solver


def pack(state: SamplerState, solver: Solver[Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON values that `unpack` reads back; numbers keep their type.

    Args:
        state: what `sample` handed to `on_state`.
        solver: the solver it belongs to; `unpack` checks that it is the same.
    """
    memory = {f"solver.{name}": tensor for name, tensor in state.solver.state_dict().items()}
    # Levels and counters stay on the CPU wherever the latents are.
    host = [name for name, tensor in memory.items() if tensor.device.type == "cpu"]
    facts = {"index": state.index, "solver": repr(solver), "host": host}
    carried = {f"carried.{name}": tensor for name, tensor in state.carried.items()}
    return {"x": state.x_BCTYX, **memory, **carried}, facts


def unpack(
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    solver: Solver[Any],
    device: torch.device | str = "cpu",
) -> SamplerState:
    """Inverse of `pack`; other tensors are passed over.

    Args:
        tensors, facts: what `pack` returned.
        solver: the run's.
        device: where the run's latents are.

    Raises:
        ConfigError: it is another solver's.
    """
    if facts.get("solver") != repr(solver):
        raise ConfigError(
            f"the saved state is of the solver {facts.get('solver')!r}, this run of {solver!r}; start anew."
        )
    memory = {
        name.removeprefix("solver."): tensor if name in facts["host"] else tensor.to(device)
        for name, tensor in tensors.items()
        if name.startswith("solver.")
    }
    carried = {
        name.removeprefix("carried."): tensor
        for name, tensor in tensors.items()
        if name.startswith("carried.")
    }
    x_BCTYX = tensors["x"].to(device)
    carry = Carry.of(carried, device)
    return SamplerState(int(facts["index"]), x_BCTYX, solver.restore(memory), carried=carry.tensors)
