"""The rows that modulate a transformer's blocks, made once for the timesteps of a whole run.

    rows(t) = W silu(time_embedder(t)) + b         `[6, D]`: shift, scale, gate; shift, scale, gate

They depend on the timestep alone unless the model has pooled text, so a run's steps cost one product, and
frames at the same timestep share a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from kinema.models.dit import Context, VideoDiT
from kinema.models.linears import untouched


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What the blocks and the output layer read of time.

    Attributes:
        time_BTD: the time embedding, float32; B or T is 1 where its entries would be equal.
        modulation_BTMD: the blocks' rows, float32, likewise.
    """

    time_BTD: Tensor
    modulation_BTMD: Tensor

    def repeated(self, count: int) -> Rows:
        """For `count` times the batch, if entries of it differ."""
        if self.time_BTD.shape[0] == 1:
            return self
        return Rows(self.time_BTD.repeat(count, 1, 1), self.modulation_BTMD.repeat(count, 1, 1, 1))

    def entries(self, index: int, count: int) -> Rows:
        """The rows of one of `count` equal parts of the batch."""
        if self.time_BTD.shape[0] == 1:
            return self
        return replace(
            self,
            time_BTD=self.time_BTD.chunk(count)[index],
            modulation_BTMD=self.modulation_BTMD.chunk(count)[index],
        )


class RowMaker:
    """Makes rows, and keeps those of timesteps it has seen.

    Args:
        dit: whose time embedder is asked; with layers that somebody hooked, every latent frame is asked for
            anew, since what a hook adds may differ from frame to frame.
    """

    def __init__(self, dit: VideoDiT) -> None:
        self.dit, self.known = dit, dict[float, tuple[Tensor, Tensor]]()
        embedder = dit.condition_embedder
        self.pooled = dit.config.pooled_dim is not None
        layers = [*embedder.time_embedder.modules(), embedder.time_proj]
        layers += embedder.pooled_embedder.modules() if self.pooled else ()
        self.steady = all(untouched(layer) for layer in layers) and dit.proj_out.weight.device.type == "cpu"

    def foresee(self, timesteps: Iterable[float]) -> None:
        """Make the rows of timesteps to come, all at once."""
        new = [t for t in dict.fromkeys(timesteps) if t not in self.known]
        if not new or self.pooled or not self.steady:
            return
        time_1UD, modulation_1UMD = self.dit.condition_embedder.time(torch.tensor([new]), None)
        for index, t in enumerate(new):
            self.known[t] = (time_1UD[0, index].float(), modulation_1UMD[0, index].float())

    def __call__(self, timestep_BT: Tensor, contexts: tuple[Context, ...]) -> Rows:
        """Rows for a batch, context after context; a single one where all would be equal."""
        if self.steady and bool((timestep_BT == timestep_BT[:1, :1]).all()):
            if not self.pooled or all(c.weights_BTK is None for c in contexts):
                timestep_BT = timestep_BT[:, :1]
            if not self.pooled:
                timestep_BT = timestep_BT[:1]
        if self.pooled:
            return self._pooled(timestep_BT, contexts)
        if not self.steady:
            return _rows(*self.dit.condition_embedder.time(timestep_BT, None)).repeated(len(contexts))
        values = timestep_BT.flatten().tolist()
        self.foresee(values)
        time, modulation = (torch.stack([self.known[t][part] for t in values]) for part in (0, 1))
        B = len(timestep_BT)
        time_BTD = rearrange(time, "(B T) D -> B T D", B=B)
        modulation_BTMD = rearrange(modulation, "(B T) M D -> B T M D", B=B)
        return Rows(time_BTD, modulation_BTMD).repeated(len(contexts))

    def _pooled(self, timestep_BT: Tensor, contexts: tuple[Context, ...]) -> Rows:
        frames = timestep_BT.shape[1]
        pooled_BTD = torch.cat(
            [pooled for c in contexts if (pooled := self.dit.pooled(c, frames)) is not None]
        )
        return _rows(*self.dit.condition_embedder.time(timestep_BT.repeat(len(contexts), 1), pooled_BTD))


def _rows(time_BTD: Tensor, modulation_BTMD: Tensor) -> Rows:
    return Rows(time_BTD.float(), modulation_BTMD.float())
