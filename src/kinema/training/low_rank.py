"""Low-rank additions to a network's matrices, trained in its place: W + B A (https://arxiv.org/abs/2106.09685).

The files use diffusers' names, `transformer.MODULE.lora_A.weight` `[r, in]` and `lora_B.weight` `[out, r]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kinema.core.errors import ModelError
from kinema.models.lora_facts import FACT
from kinema.training.files import whole

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


def save_additions(model: nn.Module, path: Path, facts: Mapping[str, str] | None = None) -> None:
    """Write all additions in float16, with `facts` in the header, as `kinema lora inspect` tells them."""
    tensors: dict[str, Tensor] = {}
    for name, addition in additions(model):
        tensors[f"{PREFIX}{name}.lora_A.weight"] = addition.a_RI.detach().cpu().half().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = addition.b_OR.detach().cpu().half().contiguous()
    with whole(path) as part:
        save_file(tensors, part, {FACT + name: value for name, value in (facts or {}).items()})


@torch.no_grad()
def read_additions(model: nn.Module, path: Path) -> None:
    """Begin with a file's additions in place of new ones.

    Args:
        model: after `attach`, with the file's rank.
        path: what `save_additions` wrote, of this model or of one that it grew from.

    Raises:
        ModelError: the file is missing or damaged, or is not of these matrices and this rank; nothing has
            been changed then.
    """
    pairs, found = dict(_pairs(path)), dict(additions(model))
    for name in pairs.keys() | found.keys():
        a_RI, b_OR = pairs.get(name, (None, None))
        own = found.get(name)
        fits = own is not None and a_RI is not None and a_RI.shape == own.a_RI.shape
        if not fits or b_OR is None or own is None or b_OR.shape != own.b_OR.shape:
            raise ModelError(f"{path}: {name!r} does not fit these additions; use a file of their rank.")
    for name, own in found.items():
        for parameter, value in zip((own.a_RI, own.b_OR), pairs[name], strict=True):
            parameter.copy_(value)


def _pairs(path: Path) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Every matrix's module name with A and B."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is not a file of low-rank additions ({error}); fetch it again.") from None
    for name, a_RI in tensors.items():
        if name.endswith(".lora_A.weight"):
            b_OR = tensors.get(name.replace(".lora_A.", ".lora_B."))
            if b_OR is None or b_OR.shape[1] != len(a_RI):
                raise ModelError(f"{path}: {name!r} has no B of its rank; fetch the file again.")
            yield name.removeprefix(PREFIX).removesuffix(".lora_A.weight"), (a_RI, b_OR)


@torch.no_grad()
def fold(model: nn.Module, path: Path) -> int:
    """Add a file's additions to the matrices of a network for good; returns how many there were.

    Raises:
        ModelError: the file is missing or damaged, or a matrix does not fit; nothing has been changed then.
    """
    own, changes = dict(model.named_parameters()), dict[str, Tensor]()
    for name, (a_RI, b_OR) in _pairs(path):
        target = own.get(f"{name}.weight")
        if target is None or target.shape != (len(b_OR), a_RI.shape[1]):
            raise ModelError(f"{path}: {name!r} does not fit this model; use the file made for it.")
        changes[f"{name}.weight"] = b_OR.float() @ a_RI.float()
    for name, change in changes.items():
        own[name].add_(change)
    return len(changes)
