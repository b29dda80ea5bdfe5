"""Low-rank additions to a network's matrices, trained in its place: W + B A (https://arxiv.org/abs/2106.09685).

The files use diffusers' names, `transformer.MODULE.lora_A.weight` `[r, in]` and `lora_B.weight` `[out, r]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kinema.core.errors import ModelError

PREFIX = "transformer."


class LowRank(nn.Module):
    """One matrix's addition; zero at the start."""

    def __init__(self, weight_OI: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        out, inside = weight_OI.shape
        start = torch.randn(rank, inside, generator=generator) / inside**0.5
        self.a_RI = nn.Parameter(start.to(weight_OI.device))
        self.b_OR = nn.Parameter(torch.zeros(out, rank, device=weight_OI.device))
        self.on = True

    def forward(self, weight_OI: Tensor) -> Tensor:
        """The matrix with its addition, or as it is while that is off."""
        return weight_OI + self.b_OR @ self.a_RI if self.on else weight_OI


def attach(model: nn.Module, names: Iterable[str], *, rank: int, generator: torch.Generator) -> None:
    """Give the matrices `names` an addition each and freeze everything else.

    Args:
        model: changed in place.
        names: of parameters that end in `.weight`.
        rank: of the additions.
        generator: for their first values.
    """
    model.requires_grad_(False)
    for name in names:
        module = model.get_submodule(name.removesuffix(".weight"))
        addition = LowRank(module.get_parameter("weight"), rank, generator)
        parametrize.register_parametrization(module, "weight", addition)


def additions(model: nn.Module) -> Iterator[tuple[str, LowRank]]:
    """Every matrix's module name with its addition."""
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            yield name.split(".parametrizations.")[0], module


@contextmanager
def without(model: nn.Module) -> Iterator[None]:
    """The network as it was before `attach`, for a while."""
    found = [addition for _, addition in additions(model)]
    for addition in found:
        addition.on = False
    try:
        yield
    finally:
        for addition in found:
            addition.on = True


def save_additions(model: nn.Module, path: Path) -> None:
    """Write all additions in float16."""
    tensors: dict[str, Tensor] = {}
    for name, addition in additions(model):
        tensors[f"{PREFIX}{name}.lora_A.weight"] = addition.a_RI.detach().cpu().half().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = addition.b_OR.detach().cpu().half().contiguous()
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.chmod(0o644)  # safetensors leaves the file private to its writer
    part.replace(path)


@torch.no_grad()
def fold(model: nn.Module, path: Path) -> int:
    """Add a file's additions to the matrices of a network for good; returns how many there were.

    Raises:
        ModelError: the file is missing or damaged, or a matrix does not fit; nothing has been changed then.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is not a file of low-rank additions ({error}); fetch it again.") from None
    own, changes = dict(model.named_parameters()), dict[str, Tensor]()
    for name, a_RI in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        b_OR = tensors.get(name.replace(".lora_A.", ".lora_B."))
        target = own.get(name.removeprefix(PREFIX).replace(".lora_A.weight", ".weight"))
        if b_OR is None or target is None or target.shape != (len(b_OR), a_RI.shape[1]):
            raise ModelError(f"{path}: {name!r} does not fit this model; use the file made for it.")
        changes[name] = b_OR.float() @ a_RI.float()
    for name, change in changes.items():
        own[name.removeprefix(PREFIX).replace(".lora_A.weight", ".weight")].add_(change)
    return len(changes)
