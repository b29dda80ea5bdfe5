"""A larger transformer that begins as a smaller one: blocks that add nothing yet, a last layer fitted anew.

Training from scratch would cost all hours again. A block that stands behind its own copy and whose updates
are zero leaves every velocity as it was (https://arxiv.org/abs/1511.05641), and learns from the first step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.models.dit import Context, VideoDiT, modulate
from kinema.models.layers import foretold
from kinema.training.dit import Task

BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
SILENT = ("attn1.to_out.0.", "attn2.to_out.0.", "ffn.net.2.")
"""The last layers of a block's three updates."""


def sources(old: int, new: int) -> list[int]:
    """The old block that each of `new` ones copies; repeats are spread evenly, towards the end.

    Raises:
        ConfigError: there would be fewer blocks, or more than twice as many.
    """
    if not old <= new <= 2 * old:
        raise ConfigError(f"num_layers={new}: {old} blocks can become {old} to {2 * old}.")
    extra = new - old
    twice = {old - 1 - index * old // extra for index in range(extra)}
    return [index for index in range(old) for _ in range(1 + (index in twice))]


def deepened(weights: Mapping[str, Tensor], copied: Sequence[int]) -> dict[str, Tensor]:
    """Weights of a deeper `VideoDiT` with the same velocities.

    Args:
        weights: of the smaller one.
        copied: for each new block the number of an old one, in order; the first of its copies is the block
            itself, those after it add nothing.
    """
    grown = {name: weight for name, weight in weights.items() if not BLOCK.fullmatch(name)}
    for number, source in enumerate(copied):
        silent = number > 0 and copied[number - 1] == source
        prefix = f"blocks.{source}."
        for name, weight in weights.items():
            if name.startswith(prefix):
                part = name.removeprefix(prefix)
                zero = silent and part.startswith(SILENT)
                grown[f"blocks.{number}.{part}"] = torch.zeros_like(weight) if zero else weight.clone()
    return grown


class LastLayer:
    """The last layer of a model that `noise_skip` was given to, by least squares.

    Its blocks still tell the whole velocity: what the last layer reads is what it read before, what it has to
    say is less. Begin with the weights as they are, `see` batches, then `fit`.

    Args:
        model: with `noise_skip`; its last layer is replaced.
    """

    def __init__(self, model: VideoDiT) -> None:
        self.model = model
        width, out = model.config.width + 1, model.proj_out.out_features
        self._inner = torch.zeros(width, width, dtype=torch.float64)
        self._outer = torch.zeros(width, out, dtype=torch.float64)

    @torch.no_grad()
    def see(self, task: Task) -> None:
        """Add a batch's tokens to the sums."""
        timestep_BT = 1000 * task.sigma_BT
        read_BND = before_last(self.model, task.x_BCTYX, timestep_BT, task.context)
        untold_BCTYX = task.v_BCTYX - foretold(task.x_BCTYX, timestep_BT)
        t, y, x = self.model.config.patch_size
        pattern = "B C (T t) (Y y) (X x) -> B T (Y X) (t y x C)"
        told = rearrange(untold_BCTYX, pattern, t=t, y=y, x=x)
        read = rearrange(read_BND, "B (T P) D -> B T P D", T=told.shape[1])
        chosen = task.counted_BT > 0
        rows, says = read[chosen].flatten(0, 1).double(), told[chosen].flatten(0, 1).double()
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
        self._inner += rows.T @ rows
        self._outer += rows.T @ says

    @torch.no_grad()
    def fit(self, ridge: float = 1e-3) -> None:
        """Give the last layer the weights of least error."""
        found = torch.linalg.solve(self._inner + ridge * torch.eye(len(self._inner)), self._outer)
        self.model.proj_out.weight.copy_(found[:-1].T)
        self.model.proj_out.bias.copy_(found[-1])


@torch.no_grad()
def before_last(model: VideoDiT, x_BCTYX: Tensor, timestep_BT: Tensor, context: Context) -> Tensor:
    """What the last layer reads, `[B, N, D]`."""
    x_BND, tokens = model.embed(x_BCTYX, timestep_BT, context)
    x_BND = model.trunk(x_BND, tokens, context)
    table = model.scale_shift_table + tokens.time_BTD.float()[:, :, None]
    shift_BTD, scale_BTD = table.unbind(dim=2)
    return modulate(x_BND, shift_BTD, scale_BTD, model.config.eps)
