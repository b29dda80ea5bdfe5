"""Where a frame may change: a picture for all frames, a clip of pictures, or what another shape leaves open.

Masks are float32 `[1, 1, H, W]` at the plan's size, 1 where all is made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kinema.animation.retouch import blur
from kinema.io.image import fit_image
from kinema.pipelines.picture_track import PictureTrack, picture_tensor
from kinema.pipelines.plan import Plan
from kinema.story.redraw import BARS

LUMA = (0.2126, 0.7152, 0.0722)  # BT.709: what a mask's colours weigh


class Asked(Protocol):
    """What a shot says of a mask."""

    @property
    def mask(self) -> str | None:
        """Path of a picture or a clip, or `bars`."""

    @property
    def mask_invert(self) -> bool:
        """Black is made anew instead of white."""


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The masks of a plan's frames, asked for in rising order.

    Attributes:
        pictures: of a file; None for bars.
        bars_B1HW: what a picture of another shape leaves open; None for a file.
        invert: whether black is made anew.
    """

    pictures: PictureTrack | None
    bars_B1HW: Tensor | None
    invert: bool

    @staticmethod
    def of(plan: Plan, asked: Asked, shape_HWC: np.ndarray | None) -> Mask:
        """As it was asked for; `bars` are those around a picture of this shape."""
        assert asked.mask is not None, "a mask is asked for"
        if asked.mask == BARS:
            assert shape_HWC is not None, "bars lie around a picture"
            return Mask(None, bars(plan, shape_HWC), asked.mask_invert)
        return Mask(PictureTrack(asked.mask, plan, "mask"), None, asked.mask_invert)

    def at(self, frame: int, feather: float) -> Tensor:
        """Of a frame, its edges softened over `feather` pixels."""
        if self.bars_B1HW is not None:
            open_B1HW = self.bars_B1HW
        else:
            assert self.pictures is not None
            weights = torch.tensor(LUMA).view(1, 3, 1, 1)
            open_B1HW = (self.pictures.at(frame) * weights).sum(dim=1, keepdim=True)
        return blur(1 - open_B1HW if self.invert else open_B1HW, feather)


def bars(plan: Plan, picture_HWC: np.ndarray) -> Tensor:
    """1 where a picture of this shape, shown whole, leaves the frame empty `[1, 1, H, W]`."""
    g = plan.geometry
    white = np.full((*picture_HWC.shape[:2], 3), 255, np.uint8)
    return 1 - picture_tensor(fit_image(white, g.width, g.height, "pad"))[:, :1]
