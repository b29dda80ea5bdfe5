"""Linear layers as inference runs them: neighbours in one product, oneDNN's kernels, the activation inside.

    y = act(W x + b),   W = [W_1; W_2; ...] for layers that read the same x

On the CPU, oneDNN's product with the activation inside beats torch's two calls by half. It may have the
weights in a layout of its own (`copies`), which costs their size again and pays with few rows; or as they
are, which costs nothing. Its entry points in torch are private: `onednn_works` tries them once, and without
them torch's own calls do the same.

Layers that somebody hooked or replaced (LoRAs laid over, quantised weights) are called as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rounding of one product of 24 terms of size about 1, with room.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 6e-2}


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """One product: `x W^T + b`, with GELU (tanh form) after it when asked.

    Attributes:
        weight: `[D_out, D_in]`, or the same in oneDNN's own layout.
        bias: `[D_out]`.
        onednn: whether oneDNN computes it.
    """

    weight: Tensor
    bias: Tensor | None
    onednn: bool

    def __call__(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """`[..., D_in] -> [..., D_out]`."""
        if self.onednn:
            name, form = ("gelu", "tanh") if gelu else ("none", "")
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], form)
            return out
        out = F.linear(x, self.weight, self.bias)
        return F.gelu(out, approximate="tanh") if gelu else out


@dataclass(frozen=True, slots=True, eq=False)
class AsItIs:
    """A layer that is more than its weight, called through its module."""

    layer: nn.Module

    def __call__(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """What the layer gives."""
        out: Tensor = self.layer(x)
        return F.gelu(out, approximate="tanh") if gelu else out


Linear = Product | AsItIs


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Layers that read the same input.

    Attributes:
        product: all of them at once.
        widths: outputs of each.
    """

    product: Product
    widths: tuple[int, ...]

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """The output of each, as views of one tensor."""
        return torch.split(self.product(x), list(self.widths), dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """The same, one after the other."""

    layers: tuple[Linear, ...]

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """The output of each."""
        return tuple(layer(x) for layer in self.layers)


def untouched(layer: nn.Module) -> bool:
    """Whether calling the module is its own `forward` and nothing else."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks)
    return "forward" not in vars(layer) and not any(hooks)


def plain(layer: nn.Module) -> bool:
    """Whether a layer is its weight and bias and nothing else."""
    return type(layer) is nn.Linear and untouched(layer)


def linear(layer: nn.Module, *, rows: int, copies: bool) -> Linear:
    """One layer.

    Args:
        layer: `nn.Linear`, or whatever stands in its place.
        rows: about how many rows it will be given at a time; oneDNN picks its layout by it.
        copies: let oneDNN have the weights in its own layout.
    """
    if not plain(layer):
        return AsItIs(layer)
    assert isinstance(layer, nn.Linear)
    return _product(layer.weight.detach(), _bias(layer), rows, copies)


def linears(layers: Sequence[nn.Module], *, rows: int, copies: bool) -> Together | Apart:
    """Layers that read the same input; in one product where copies of their weights are allowed."""
    whole = [layer for layer in layers if isinstance(layer, nn.Linear) and plain(layer)]
    if not copies or len(whole) < len(layers) or any(layer.bias is None for layer in whole):
        return Apart(tuple(linear(layer, rows=rows, copies=copies) for layer in layers))
    weight = torch.cat([layer.weight.detach() for layer in whole])
    bias = torch.cat([layer.bias.detach() for layer in whole])
    return Together(_product(weight, bias, rows, copies), tuple(layer.out_features for layer in whole))


def _bias(layer: nn.Linear) -> Tensor | None:
    return None if layer.bias is None else layer.bias.detach()


def _product(weight: Tensor, bias: Tensor | None, rows: int, copies: bool) -> Product:
    if weight.device.type != "cpu" or not onednn_works(weight.dtype):
        return Product(weight, bias, onednn=False)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows) if copies else weight
    return Product(packed, bias, onednn=True)


@lru_cache
def onednn_works(dtype: torch.dtype) -> bool:
    """Whether torch's private oneDNN products exist here and are right in this precision."""
    if dtype not in BOUNDS or not torch._C._has_mkldnn:
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(s, generator=generator).to(dtype) for s in ((2, 5, 24), (16, 24), (16,)))
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 10)
        products = [Product(w, bias, onednn=True) for w in (weight, packed)]
        return all(_right(product, x, weight, bias, BOUNDS[dtype]) for product in products)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False  # another torch, or a processor without this precision


def _right(product: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, bound: float) -> bool:
    """A product and its GELU form against float64."""
    exact = F.linear(x.double(), weight.double(), bias.double())
    size = exact.abs().max()
    errors = (
        product(x).double() - exact,
        product(x, gelu=True).double() - F.gelu(exact, approximate="tanh"),
    )
    return all(bool((error.abs().max() <= bound * size).item()) for error in errors)
