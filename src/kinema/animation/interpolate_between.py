"""A picture between two pictures, from the flow both ways.

Every pixel is carried a part of its way (forward splatting, Niklaus and Liu, CVPR 2020), which tells the
motion at each place in between and who is seen there. Colours are then read once, sharply, along it:

    I_t(x) = [(1-t) c_0 I_0(x - t m) + t c_1 I_1(x + (1-t) m)] / [(1-t) c_0 + t c_1]

where c_0, c_1 say whether the place is covered from either side: what comes into sight is taken from the
second picture alone, what goes out of sight from the first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.animation.interpolate_flow import blurred, read

LEAST = 1e-3  # a coverage that counts as none
TOLERANCE = 0.04  # difference of colours, 0..1, by which one motion explains a place clearly worse


def between(first_BCHW: Tensor, second_BCHW: Tensor, there: Tensor, back: Tensor, t: float) -> Tensor:
    """The picture at time `t` in 0..1 between two.

    Args:
        first_BCHW, second_BCHW: any channels.
        there, back: flow from the first to the second and back, `[B, 2, H, W]` in pixels.
        t: 0 is the first picture.
    """
    motion_0, seen_0 = carried(there, t * there, agreement(there, back))
    motion_1, seen_1 = carried(-back, (1 - t) * back, agreement(back, there))
    total, weight = torch.zeros_like(first_BCHW), torch.zeros_like(seen_0)
    for motion, seen in ((motion_0, seen_0), (motion_1, seen_1)):
        early = read(first_BCHW, -t * motion)
        late = read(second_BCHW, (1 - t) * motion)
        from_first, from_second = (1 - t) * seen_0, t * seen_1
        colour = (from_first * early + from_second * late) / (from_first + from_second).clamp(min=1e-9)
        off = (early - late).abs().mean(dim=1, keepdim=True) * torch.minimum(seen_0, seen_1)
        belief = seen * torch.exp(-blurred(off) / TOLERANCE) + 1e-6
        total, weight = total + belief * colour, weight + belief
    return total / weight


def agreement(there: Tensor, back: Tensor) -> Tensor:
    """How well the way back undoes the way there, `[B, 1, H, W]` in 0..1; low for what goes out of sight."""
    off = (there + read(back, there, "bilinear")).square().sum(dim=1, keepdim=True)
    reach = there.square().sum(dim=1, keepdim=True)
    return torch.exp(-off / (0.25 + 0.01 * reach)).clamp(min=LEAST)


def carried(motion: Tensor, way: Tensor, belief: Tensor) -> tuple[Tensor, Tensor]:
    """Motions where they are after each pixel has gone its `way`, and how far each place is covered, 0..1.

    Where several arrive, those believed more count more: things in front agree both ways, hidden ones do not.
    Places where none arrives take the motion around them.
    """
    ones = torch.ones_like(belief)
    sums = splatted(torch.cat((belief * motion, belief, ones), dim=1), way)
    moved, trusted, arrived = sums[:, :2], sums[:, 2:3], sums[:, 3:]
    filled, missing = moved / trusted.clamp(min=1e-9), trusted < LEAST**2
    filled = torch.where(missing, _around(moved, trusted), filled)
    return filled, (2 * arrived).clamp(LEAST, 1)


def splatted(values: Tensor, way: Tensor) -> Tensor:
    """Sum of what arrives at each pixel, shared among the four around each landing; `[B, C, H, W]`."""
    B, C, H, W = values.shape
    x = torch.arange(W, device=way.device, dtype=way.dtype) + way[:, 0]
    y = torch.arange(H, device=way.device, dtype=way.dtype)[:, None] + way[:, 1]
    left, top = x.floor(), y.floor()
    out = values.new_zeros(B, C, H * W)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        share = (1 - (x - column).abs()) * (1 - (y - row).abs())
        inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
        place = torch.where(inside, row * W + column, 0).long().view(B, 1, -1).expand(-1, C, -1)
        out.scatter_add_(2, place, (values * (share * inside)[:, None]).flatten(2))
    return out.view(B, C, H, W)


def _around(moved: Tensor, trusted: Tensor) -> Tensor:
    """The motion of the nearest places that have one, by a pyramid of sums."""
    if bool((trusted > 0).all()) or min(moved.shape[-2:]) <= 2:
        return moved / trusted.clamp(min=1e-9)
    small = _around(*(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (moved, trusted)))
    coarse = F.interpolate(small, moved.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(trusted > 0, moved / trusted.clamp(min=1e-9), coarse)
