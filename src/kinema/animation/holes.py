"""Holes filled from around them, smoothly and from what is farther away: pull to coarser levels, push back.

    pull: c(coarse) = sum w c / sum w over 2x2,  w(coarse) = min(sum w, 1)
    push: c(fine) = w c(fine) + (1 - w) c(coarse, read between its pixels)

(Gortler et al. 1996). Known pixels keep their values to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST = 1e-12


def fill(picture_BCHW: Tensor, holes_B1HW: Tensor, distance_B1HW: Tensor | None = None) -> Tensor:
    """The picture with every hole filled; unchanged where nothing is known at all.

    Args:
        picture_BCHW: any values; those under holes are not looked at.
        holes_B1HW: bool.
        distance_B1HW: of the known pixels; far ones fill more, as a hole beside an edge shows what is behind.
    """
    if not bool(holes_B1HW.any()) or bool(holes_B1HW.all()):
        return picture_BCHW
    weight = (~holes_B1HW).to(picture_BCHW.dtype)
    if distance_B1HW is not None:
        known = torch.where(holes_B1HW, torch.zeros_like(distance_B1HW), distance_B1HW)
        far = known.amax(dim=(1, 2, 3), keepdim=True).clamp_min(_LEAST)
        weight = weight * (known / far).clamp(1e-2, 1).to(weight) ** 4
    picture = torch.where(holes_B1HW, torch.zeros_like(picture_BCHW), picture_BCHW)
    return torch.where(holes_B1HW, _pulled(picture, weight), picture_BCHW)


def _pulled(picture_BCHW: Tensor, weight_B1HW: Tensor) -> Tensor:
    height, width = picture_BCHW.shape[-2:]
    if height <= 1 and width <= 1:
        return picture_BCHW
    odd = (0, width % 2, 0, height % 2)
    weighted = F.pad(picture_BCHW * weight_B1HW, odd)
    total = F.pad(weight_B1HW, odd)
    coarse_weight = 4 * F.avg_pool2d(total, 2)
    coarse = 4 * F.avg_pool2d(weighted, 2) / coarse_weight.clamp_min(_LEAST)
    below = _pulled(coarse, coarse_weight.clamp_max(1))
    known = weight_B1HW.clamp_max(1)
    size = (below.shape[-2] * 2, below.shape[-1] * 2)
    spread = F.interpolate(below, size, mode="bilinear", align_corners=False)[..., :height, :width]
    return known * picture_BCHW + (1 - known) * spread
