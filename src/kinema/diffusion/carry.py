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
_SEEN = "/seen"
LASTING = 4
"""Steps after which what was not looked at is forgotten: windows that have moved on, and those that are done.
It would be a poor guess by then, and a long clip has very many windows."""


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

    def look(self, kind: str, window: str, index: int) -> None:
        """Say that a window is looked at in step `index`, and forget those of a kind that were not lately.

        After the last step of a turn comes step 0 of the next; all that is kept is older then.
        """
        for mark in [name for name in self.tensors if name.startswith(HOST + kind) and name.endswith(_SEEN)]:
            if not 0 <= index - int(self.tensors[mark]) <= LASTING:
                self.drop(mark.removeprefix(HOST).removesuffix("seen"))
        self.tensors[f"{HOST}{kind}/{window}{_SEEN}"] = torch.tensor(index)

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
