"""Where a frame may change: a picture for all frames, a clip of pictures, or what another shape leaves open.

Masks are float32 `[1, 1, H, W]` at the plan's size, 1 where all is made anew.
"""

from __future__ import annotations

from collections.abc import Callable
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


class Mask:
    """The masks of a plan's frames, asked for in rising order.

    Args:
        plan: whose size and rate they have.
        asked: the file, or bars.
        shape_HWC: a picture of the shape that `bars` lie around.

    Attributes:
        still: one mask is that of all frames.
    """

    def __init__(self, plan: Plan, asked: Asked, shape_HWC: np.ndarray | None) -> None:
        assert asked.mask is not None, "a mask is asked for"
        self.invert = asked.mask_invert
        if asked.mask == BARS:
            assert shape_HWC is not None, "bars lie around a picture"
            still = bars(plan, shape_HWC).expand(1, 3, -1, -1)
            self._picture: Callable[[int], Tensor] = lambda _: still
            self.still = True
        else:
            track = PictureTrack(asked.mask, plan, "mask")
            self._picture, self.still = track.at, track.still
        self._last: tuple[Tensor, float, Tensor] | None = None  # a still is softened once, not frame by frame

    def at(self, frame: int, feather: float) -> Tensor:
        """Of a frame, its edges softened over `feather` pixels."""
        picture = self._picture(frame)
        if self._last is None or self._last[0] is not picture or self._last[1] != feather:
            self._last = (picture, feather, self._softened(picture, feather))
        return self._last[2]

    def _softened(self, picture_13HW: Tensor, feather: float) -> Tensor:
        weights = torch.tensor(LUMA).view(1, 3, 1, 1)
        open_B1HW = (picture_13HW * weights).sum(dim=1, keepdim=True)
        return blur(1 - open_B1HW if self.invert else open_B1HW, feather)


def bars(plan: Plan, picture_HWC: np.ndarray) -> Tensor:
    """1 where a picture of this shape, shown whole, leaves the frame empty `[1, 1, H, W]`."""
    g = plan.geometry
    white = np.full((*picture_HWC.shape[:2], 3), 255, np.uint8)
    return 1 - picture_tensor(fit_image(white, g.width, g.height, "pad"))[:, :1]
