"""What a long loop leaves behind so that a later process goes on from there, bit for bit.

A loop asks `recall(name)` once before it begins, and calls `offer(name, make)` after every step. It does not
know where that is kept, how often, or whether at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

FRAMES = "frames"


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Where a loop stands between two steps.

    Attributes:
        tensors: by name.
        facts: JSON values. `frames`, where it is given, is how many frames of the clip were yielded before: a
            loop that goes on from there yields the later ones only.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Memory(Protocol):
    """Where one plan's loop leaves what it needs to go on."""

    def recall(self, name: str) -> Snapshot | None:
        """What an earlier process left under `name`; None to begin anew."""
        ...

    def offer(self, name: str, make: Callable[[], Snapshot]) -> None:
        """A state that can be gone on from; `make` is called when it is time to keep one."""
        ...

    def settle(self, name: str, snapshot: Snapshot) -> None:
        """A result that later work needs and that will not change any more: kept at once."""
        ...


class Forgetful:
    """Keeps nothing."""

    def recall(self, name: str) -> None:
        """None."""

    def offer(self, name: str, make: Callable[[], Snapshot]) -> None:
        """Nothing."""

    def settle(self, name: str, snapshot: Snapshot) -> None:
        """Nothing."""


FORGETFUL = Forgetful()
