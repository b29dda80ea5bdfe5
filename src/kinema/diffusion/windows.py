"""Clips longer than their model: the network sees windows of latent frames, the solver the whole clip.

    v_f = sum_i share_i(f) v_i(f)              `Windowed`, a velocity like any other
    sigma[s, f] = table[s - S turn(f), f]      `staggered`: later turns wait, earlier ones are held

A window is a slice of the latents with its own levels, texts and places in time. Continuation is a table, not
a loop of its own, so a run can stop at any step of any turn and go on with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from kinema.diffusion.coverage import Coverage
from kinema.diffusion.step import Step, Velocity

View = Callable[[tuple[int, ...]], Velocity]


@dataclass(frozen=True, slots=True, eq=False)
class Windowed:
    """The guided velocity of a whole clip from one that sees some of its frames.

    Attributes:
        view: the guided network for latent frames of the clip: its texts, scales and channels are theirs.
        coverage: which frames it sees together.
    """

    view: View
    coverage: Coverage

    def __call__(self, x_BCTYX: Tensor, step: Step, /) -> Tensor:
        """The fused velocity; 0 at frames that no window of this step counts for."""
        steps = step.steps // len(self.coverage.turns)
        turn, index = divmod(step.index, steps)
        exact = torch.float32 if x_BCTYX.device.type == "mps" else torch.float64
        fused_BCTYX = torch.zeros_like(x_BCTYX, dtype=exact)
        for window in self.coverage.windows(turn, index):
            frames = torch.tensor(window.frames)
            inner = Step(index, steps, step.stage, step.sigma_BT[:, frames])
            at = frames.to(x_BCTYX.device)
            v_BCTYX = self.view(window.frames)(x_BCTYX[:, :, at], inner)
            share = rearrange(torch.tensor(window.shares, dtype=exact), "T -> T 1 1").to(x_BCTYX.device)
            fused_BCTYX.index_add_(2, at, v_BCTYX.to(exact) * share)
        return fused_BCTYX.to(x_BCTYX.dtype)


def staggered(table_SBT: Tensor, coverage: Coverage) -> Tensor:
    """The noise table of a clip whose frames are sampled turn after turn, `[turns S + 1, B, T]`.

    Args:
        table_SBT: of the clip as if sampled at once, `[S + 1, B, T]`.
        coverage: whose turns say when each frame has its.
    """
    steps, turns = len(table_SBT) - 1, coverage.turns
    turn_T = torch.empty(table_SBT.shape[2], dtype=torch.long)
    for number, frames in enumerate(turns):
        turn_T[list(frames)] = number
    rows = torch.arange(len(turns) * steps + 1)[:, None]
    row_ST = (rows - steps * turn_T[None]).clamp(0, steps)
    index = row_ST[:, None, :].expand(-1, table_SBT.shape[1], -1)
    return table_SBT.gather(0, index) if steps else table_SBT
