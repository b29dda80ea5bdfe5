"""What wrappers around the network carry from step to step: tensors by name, saved with the sampler's state.

A wrapper keeps nothing in itself. What it puts here is part of `SamplerState`, so that a run that is cut off
goes on with the very decisions that it would have made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

HOST = "host/"  # names of what stays on the CPU wherever the latents are
_TALLY = HOST + "tally"


@dataclass(slots=True, eq=False)
class Carry:
    """Tensors by name; tensors are replaced, never changed in place.

    Attributes:
        tensors: all of them.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(tensors: Mapping[str, Tensor], device: torch.device | str) -> Carry:
        """From what was saved."""
        return Carry({name: t if name.startswith(HOST) else t.to(device) for name, t in tensors.items()})

    def drop(self, prefix: str) -> None:
        """Forget everything whose name begins so."""
        for name in [name for name in self.tensors if name.removeprefix(HOST).startswith(prefix)]:
            del self.tensors[name]

    # Counts for the report: sides of the guidance that an exact run computes, and those left out.

    def count(self, *, possible: int = 0, cached: int = 0, reused: int = 0) -> None:
        """Add to the counts."""
        more = torch.tensor([possible, cached, reused])
        self.tensors[_TALLY] = self.tensors.get(_TALLY, torch.zeros(3, dtype=torch.int64)) + more

    @property
    def counts(self) -> tuple[int, int, int]:
        """Forwards of an exact run; of these, taken from the cache; and replaced by the last guidance."""
        possible, cached, reused = self.tensors.get(_TALLY, torch.zeros(3, dtype=torch.int64)).tolist()
        return possible, cached, reused
