"""A model run once more with care, after it gave values that are not finite.

Inside `careful(module)` its half-precision weights are float32, attention is computed by plain products, and
every layer's result is looked at, so that the first that is not finite can be named. Afterwards the weights
are the very tensors that they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kinema.models.attention import plain_attention

HALF = (torch.float16, torch.bfloat16)


@dataclass
class Watch:
    """What was seen of a model's layers.

    Attributes:
        first: the name of the first layer whose result was not finite; None while all are.
        weights: whether that layer's own weights are not finite.
    """

    first: str | None = None
    weights: bool = False

    @property
    def place(self) -> str:
        """Where to look, in words."""
        if self.first is None:
            return "outside its layers"
        return f"in {self.first}" + (", whose weights are not finite" if self.weights else "")


@runtime_checkable
class Liftable(Protocol):
    """A part of a module whose weights come and go."""

    def lifted(self) -> AbstractContextManager[None]:
        """They come in float32 for as long as the block runs."""
        ...


@contextmanager
def careful(module: object) -> Iterator[Watch]:
    """Run a model in float32 with plain attention for as long as the block runs, watching its layers.

    Args:
        module: anything; what is not an `nn.Module` is left as it is.
    """
    watch = Watch()
    kept: list[tuple[Tensor, Tensor]] = []
    hooks: list[Any] = []
    lifts = ExitStack()
    try:
        if isinstance(module, nn.Module):
            for part in [part for part in module.modules() if isinstance(part, Liftable)]:
                lifts.enter_context(part.lifted())
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dtype in HALF:
                    kept.append((tensor, tensor.data))
                    tensor.data = tensor.data.float()
            hooks = [layer.register_forward_hook(_look(watch, name)) for name, layer in _layers(module)]
        with plain_attention():
            yield watch
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, data in kept:
            tensor.data = data
        lifts.close()


def finite(value: object) -> bool:
    """Whether every number of a tensor is; what is no floating-point tensor passes."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value).all())


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All parts that have a name, inner ones first reported as they finish first."""
    yield from ((name, layer) for name, layer in module.named_modules() if name)


def _look(watch: Watch, name: str) -> Any:
    def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if watch.first is None and not finite(output):
            watch.first = name
            watch.weights = not all(finite(tensor) for tensor in layer.parameters())

    return hook
