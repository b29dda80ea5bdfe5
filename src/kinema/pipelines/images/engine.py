"""What draws one picture: the protocol that video models with one frame and diffusers image models share.

    draw(drawing) -> picture

A drawing is data: without a canvas it is text to image, with one image to image at a strength, with a mask as
well inpainting. Pictures are float32 `[1, 3, H, W]` in 0..1, masks float32 `[1, 1, H, W]` in 0..1, both on
the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from kinema.core.runtime import frame_noise
from kinema.diffusion.slerp import slerp
from kinema.diffusion.step import FrameNoise, NoiseSource


@dataclass(frozen=True, slots=True)
class Seeds:
    """Where a picture's noise comes from: one seed, or a place on the way between two.

    Attributes:
        first, second: seeds.
        share: 0 is the noise of `first`, 1 that of `second`; between, their spherical interpolation.
        steps: what a solver draws between its steps from one stream of its own, where two streams cannot be
            mixed: of pictures that travel, whose seeds change from key to key. None for `first`.
    """

    first: int
    second: int
    share: float
    steps: int | None = None

    @property
    def stream(self) -> int:
        """The seed of a single stream."""
        return self.first if self.steps is None else self.steps

    def noise(self, shape_CYX: tuple[int, int, int]) -> Tensor:
        """Standard normal noise `[1, C, Y, X]`; of one seed, that of a one-frame clip with this seed."""
        a_BCYX, b_BCYX = (frame_noise(seed, shape_CYX, 1)[:, :, 0] for seed in (self.first, self.second))
        return slerp(a_BCYX, b_BCYX, self.share, dims=(1, 2, 3))

    def between_steps(self) -> NoiseSource:
        """The noise of a solver's steps, on the same way from seed to seed as the noise it starts with."""
        first, second = FrameNoise(self.first), FrameNoise(self.second)
        if first == second:
            return first
        return lambda index, like: slerp(
            first(index, like), second(index, like), self.share, dims=(1, 2, 3, 4)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawing:
    """One picture to be drawn.

    Attributes:
        frame: whose prompts and guidance it has.
        seeds: of its noise.
        steps: of a whole drawing; a strength below 1 takes its share of them, at least one.
        solver: by name.
        strength: noise level it starts at; 1 ignores the canvas.
        noise_multiplier: of the noise it starts with.
        canvas: what is there already; None for nothing.
        open: where the canvas may change, 1 in full, 0 not at all; None for everywhere.
        holes: where the canvas shows nothing, and the picture is drawn from noise; None for nowhere.
    """

    frame: int
    seeds: Seeds
    steps: int
    solver: str
    strength: float = 1.0
    noise_multiplier: float = 1.0
    canvas: Tensor | None = None
    open: Tensor | None = None
    holes: Tensor | None = None


Told = Callable[[int, str], None]
"""Called with a pixel frame and one line for the user, where something unforeseen was dealt with."""


class ImageEngine(Protocol):
    """Draws the pictures of one plan, whose prompts it has read."""

    def draw(self, drawing: Drawing) -> Tensor:
        """The picture `[1, 3, H, W]`, 0..1, float32 on the CPU; where `open` is 0, close to the canvas."""
        ...
