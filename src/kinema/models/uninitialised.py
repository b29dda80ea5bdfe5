"""Modules built without initial values, for weights that are about to be loaded.

Drawing random numbers for a model costs as much as reading it and moves the global generator. The meta
device is no way round: its random initialisers import torch's compiler, which takes a second on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


class Uninitialised(TorchFunctionMode):
    """`with Uninitialised(): model = Model()`: `torch.nn.init` functions leave their tensor as it is.

    The parameters hold whatever the memory held: load every one of them, with `load_state_dict(strict=True)`.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Pass every call on, except those to initialisers."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
