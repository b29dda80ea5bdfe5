"""A run's state on disk: one safetensors file, whole or not there, that a later process goes on from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.diffusion.sampler import SamplerState
from kinema.diffusion.solver import Solver

FORMAT = "sampler state 1"


def save(path: Path, state: SamplerState, solver: Solver[Any], *, tag: str = "") -> None:
    """Write `state` under `path`, replacing what is there only once the new file is safely on the disk.

    Args:
        path: a `.safetensors` file in a folder that exists.
        state: what `sample` handed to `on_state`.
        solver: the solver it belongs to; `load` checks that it is the same.
        tag: what the run is (the plan's hash); `load` checks it too.
    """
    tensors = {"x": state.x_BCTYX, **{f"solver.{k}": v for k, v in state.solver.state_dict().items()}}
    # History and latents may share memory, which safetensors refuses.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    header = {"kinema": FORMAT, "index": str(state.index), "solver": repr(solver), "tag": tag}
    _write_whole(path, safetensors.torch.save(tensors, metadata=header))


def load(path: Path, solver: Solver[Any], *, tag: str = "") -> SamplerState:
    """Read what `save` wrote.

    Raises:
        ConfigError: the file is damaged, or another solver's, or another run's.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(
            f"cannot read the saved state {str(path)!r} ({error}); delete it to start anew."
        ) from None
    expected = {"kinema": FORMAT, "solver": repr(solver), "tag": tag}
    for key, value in expected.items():
        if header.get(key) != value:
            raise ConfigError(
                f"the saved state {str(path)!r} has {key} {header.get(key)!r}, this run {value!r}; "
                "delete it to start anew."
            )
    memory = {name.removeprefix("solver."): t for name, t in tensors.items() if name.startswith("solver.")}
    return SamplerState(int(header["index"]), tensors["x"], solver.restore(memory))


def _write_whole(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
