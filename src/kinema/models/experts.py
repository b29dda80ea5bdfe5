"""Two transformers that share a clip by noise level: one lays it out, the other finishes it (Wan 2.2 A14B).

    v(x, t) = high(x, t) while t >= 1000 boundary, low(x, t) after

Which one works is decided as in diffusers' `WanPipeline` (`boundary_ratio`): by the timestep of the step,
one for the whole clip, so held frames at timestep 0 do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from kinema.core.contracts import AttentionGuidance
from kinema.core.errors import ModelError
from kinema.models.dit import Conditioning, Context, VideoDiT, VideoDiTConfig


@dataclass(frozen=True, slots=True)
class ExpertContext:
    """What was prepared from the prompts, by each expert with its own weights."""

    high: Context
    low: Context

    def at(self, frames: list[int]) -> ExpertContext:
        """The same prompts over these latent frames."""
        return ExpertContext(self.high.at(frames), self.low.at(frames))

    def led(self, negative: ExpertContext, by: AttentionGuidance) -> ExpertContext:
        """The same prompts, from which attention is led away of others."""
        return ExpertContext(self.high.led(negative.high, by), self.low.led(negative.low, by))

    def skipping(self, blocks: frozenset[int]) -> ExpertContext:
        """The same prompts to transformers without these blocks."""
        return ExpertContext(self.high.skipping(blocks), self.low.skipping(blocks))


class Experts(nn.Module):
    """A pair of transformers with the face of one.

    Args:
        high: works at high noise (`transformer` in a diffusers folder).
        low: works below the boundary (`transformer_2`).
        boundary: noise level, in 0..1, from which `high` works.
    """

    def __init__(self, high: VideoDiT, low: VideoDiT, *, boundary: float) -> None:
        super().__init__()
        if high.config != low.config:
            raise ModelError(
                "transformer and transformer_2 have different configurations; two experts of one model "
                "share theirs. Check that both folders belong together."
            )
        self.high, self.low, self.boundary = high, low, boundary

    @property
    def config(self) -> VideoDiTConfig:
        """Of either."""
        return self.high.config

    def prepare(self, conditioning: Conditioning) -> ExpertContext:
        """Run everything that depends on the prompts alone, for both; once per clip."""
        return ExpertContext(self.high.prepare(conditioning), self.low.prepare(conditioning))

    def forward(self, x_BCTYX: Tensor, timestep_BT: Tensor, context: ExpertContext) -> Tensor:
        """The velocity at `x`, as `VideoDiT.forward`."""
        expert = self.at(timestep_BT)
        out: Tensor = expert(x_BCTYX, timestep_BT, context.high if expert is self.high else context.low)
        return out

    def at(self, timestep_BT: Tensor) -> VideoDiT:
        """The one that works at these timesteps."""
        return self.high if float(timestep_BT.max()) >= 1000 * self.boundary else self.low
