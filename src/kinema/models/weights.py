"""Weights on disk and modules in memory: safetensors only, every tensor accounted for, never held twice.

    config = read_config(folder)
    with bare():                                     # built on the meta device: no numbers, no memory
        model = Model(Config.from_mapping(config))
    load_into(model, load_state(folder, dtype=dtype, device=device), folder)

Folders follow diffusers: `config.json` beside `<stem>.safetensors`, or beside `<stem>.safetensors.index.json`
and the shards that it lists.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kinema.core.errors import ModelError
from kinema.models.config_values import check_values
from kinema.models.uninitialised import Uninitialised
from kinema.models.weight_files import SCALE_SUFFIX, read_object, require_files, weight_files

STEM = "diffusion_pytorch_model"
SHA256 = re.compile(r"[0-9a-f]{64}")
Precision = torch.dtype | Callable[[str], torch.dtype]
"""Of a component's floating tensors: one for all, or of each by its name."""


@contextmanager
def bare() -> Iterator[None]:
    """Modules built inside have shapes but no memory; `load_into` gives them their tensors."""
    with torch.device("meta"), Uninitialised():
        yield


def read_config(folder: str | Path) -> dict[str, Any]:
    """The mapping in `config.json`; `ModelError` when it is missing or is not a JSON object."""
    folder = _existing(folder)
    require_files(folder, "config.json")
    config = read_object(folder / "config.json")
    check_values(config, folder / "config.json")
    return config


def load_state(
    folder: str | Path,
    stem: str = STEM,
    *,
    dtype: Precision | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """All tensors of a component, from one file or from shards.

    Each is read on the host, converted there and only then moved, so that neither side ever holds two copies
    of more than one tensor, and an accelerator never one in the type of the file.

    Args:
        folder: where the files lie.
        stem: their name before `.safetensors`.
        dtype: what floating tensors are converted to, one for all or by name; None leaves them as stored, and
            int8 rows in the type of their scales.
        device: where the tensors go.

    Raises:
        ModelError: no such file, a shard is missing, a file is damaged, or the weights are pickles.
    """
    state: dict[str, Tensor] = {}
    for path in weight_files(_existing(folder), stem):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - the file is no mapping
                    if name in state:
                        raise ModelError(f"{path} has {name}, and so has another shard; fetch them again.")
                    state[name] = _read(file, name, path, dtype, device)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged or not safetensors ({error}); fetch it again.") from None
    return _unpacked(state, dtype)


def _read(
    file: Any, name: str, path: Path, dtype: Precision | None, device: torch.device | str
) -> Tensor:  # by itself, so that what was stored is gone before the next one is read
    tensor = file.get_tensor(name)
    require_finite(name, tensor, path)
    return placed(tensor, name, dtype, device)


def placed(tensor: Tensor, name: str, dtype: Precision | None, device: torch.device | str) -> Tensor:
    """A tensor where its module wants it: converted first, so that no more than that is moved."""
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(_of(dtype, name))
    return tensor.to(device)


def _of(dtype: Precision, name: str) -> torch.dtype:
    return dtype if isinstance(dtype, torch.dtype) else dtype(name)


def _unpacked(state: dict[str, Tensor], dtype: Precision | None) -> dict[str, Tensor]:
    """Matrices stored as int8 rows with a scale each (`minilm.pack`) as floats; everything else as it is."""
    packed = [name for name in state if state[name].dtype == torch.int8 and name + SCALE_SUFFIX in state]
    for name in packed:
        scale_O = state.pop(name + SCALE_SUFFIX)
        if state[name].ndim != 2 or scale_O.shape != state[name].shape[:1]:
            raise ModelError(f"the scales of {name} are not one for each row; fetch the weights again.")
        scale_O1 = scale_O[:, None]
        wanted = scale_O1.dtype if dtype is None else _of(dtype, name)
        state[name] = state[name].float().mul_(scale_O1.float()).to(wanted)
    return state


def load_into(module: nn.Module, state: Mapping[str, Tensor], origin: str | Path) -> None:
    """Give `module` the tensors of `state` without copying them: exactly its names, exactly its shapes.

    Raises:
        ModelError: tensors are missing, unexpected or of other shapes; the first three of each are named.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {shape}"
        for name, shape in sorted(wanted.items())
        if name in state and tuple(state[name].shape) != shape
    ]
    types = [
        f"{name} {str(state[name].dtype).removeprefix('torch.')}"
        for name, tensor in sorted(module.state_dict().items())
        if name in state and state[name].is_floating_point() != tensor.is_floating_point()
    ]
    found = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "of another type": types,
    }
    faults = [_first_three(kind, names) for kind, names in found.items() if names]
    if faults:
        raise ModelError(
            f"{origin} does not hold a {type(module).__name__} of its config: {'; '.join(faults)}; "
            "check that config.json and weights belong together, or fetch the folder again."
        )
    module.load_state_dict(dict(state), strict=True, assign=True)
    tensors = [*module.named_parameters(), *module.named_buffers()]
    assert not any(t.is_meta for _, t in tensors), (
        "a buffer outside the state dict was built on the meta device"
    )


def file_hashes(folder: str | Path) -> dict[str, str]:
    """sha256 of every weight and config file under `folder`, by path relative to it (sorted, with `/`).

    The hub's cache stores large files under their sha256 and links to them; that name is taken as it is, so
    that 28 GB need not be read to say which model made a clip.
    """
    folder = _existing(folder)
    paths = sorted(p for p in folder.rglob("*") if tells(p) and p.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}


def tells(path: Path) -> bool:
    """Whether a file can change a clip: weights and configurations, not what judges want to know."""
    return path.suffix in {".safetensors", ".json"} and path.name != "training.json"


def _existing(folder: str | Path) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(f"{path} is not a folder; pass a component folder in diffusers' layout.")
    return path


def check_amount(module: nn.Module, folder: str | Path, stem: str = STEM) -> None:
    """Refuse weights that cannot fill `module`, which was built `bare`, before memory is given to it.

    Raises:
        ModelError: the config describes more numbers than the files can hold.
    """
    described = sum(parameter.numel() for parameter in module.parameters())
    held = sum(path.stat().st_size for path in weight_files(_existing(folder), stem))
    if described > held:  # a number takes a byte at least
        raise ModelError(
            f"{folder}/config.json describes {described:,} numbers and the weights have {held:,} bytes; "
            "config.json and weights do not belong together, fetch the folder again."
        )


def require_finite(name: str, tensor: Tensor, origin: object) -> None:
    """`ModelError` for a tensor with NaN or infinity: every frame would be black."""
    if tensor.is_floating_point() and tensor.numel():
        low, high = torch.aminmax(tensor.half() if tensor.dtype.itemsize == 1 else tensor)  # fp8 has none
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise ModelError(f"{origin} is damaged: {name} has values that are not finite; fetch it again.")


def _first_three(kind: str, names: list[str]) -> str:
    return f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _sha256(path: Path) -> str:
    target = path.resolve()
    if path.is_symlink() and target.parent.name == "blobs" and SHA256.fullmatch(target.name):
        return target.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
