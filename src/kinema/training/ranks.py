"""Several processes, one run: each draws batches of its own, all take the same step.

Step i of a run of R processes takes batches `R i` to `R i + R - 1`, one each, and moves by the mean of their
gradients; so weights are the same everywhere, and any process could write the checkpoint. Two processes of
one thread each train a small model faster on two cores than one process of two threads: most operations are
too small to be shared out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kinema.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of its run.

    Attributes:
        index: 0 writes checkpoints, logs and sheets.
        count: all of them.
    """

    index: int = 0
    count: int = 1

    @staticmethod
    def from_environment(device: torch.device, environment: Mapping[str, str] = os.environ) -> Ranks:
        """Join the processes that `torchrun` started; alone where it did not.

        Raises:
            ConfigError: several processes on a GPU, which nobody has tried.
        """
        count = int(environment.get("WORLD_SIZE", "1"))
        if count == 1:
            return ALONE
        if device.type != "cpu":
            raise ConfigError(
                f"WORLD_SIZE={count} on {device.type}: only CPUs share a run; start one process."
            )
        torch.distributed.init_process_group("gloo")
        return Ranks(int(environment["RANK"]), count)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def batch(self, step: int) -> int:
        """The number of this process's batch in a step."""
        return step * self.count + self.index

    def mean(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; one that is missing counts as zero."""
        if self.count == 1:
            return
        wanted = [p for p in parameters if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in wanted])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat.div_(self.count), [p.numel() for p in wanted])
        for p, part in zip(wanted, parts, strict=True):
            p.grad = part.view_as(p)

    def own(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Those that this process moves, where each moves a share and tells the others."""
        return list(parameters[self.index :: self.count])

    def exchange(self, tensors: Sequence[Tensor]) -> None:
        """Take each, of as many as there are matrices, from the process that moves that matrix."""
        sources = min(self.count, len(tensors)) if self.count > 1 else 0
        with torch.no_grad():
            for source in range(sources):
                owned = tensors[source :: self.count]
                flat = torch.cat([p.flatten() for p in owned])
                torch.distributed.broadcast(flat, src=source)
                for p, part in zip(owned, torch.split(flat, [p.numel() for p in owned]), strict=True):
                    p.copy_(part.view_as(p))

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def told(self, value: int) -> int:
        """What the first process says, whose clock is the run's."""
        if self.count == 1:
            return value
        said = torch.tensor([value])
        torch.distributed.broadcast(said, src=0)
        return int(said)

    def leave(self) -> None:
        """The run is over; nobody goes while another still talks."""
        if self.count > 1:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()


ALONE = Ranks()
