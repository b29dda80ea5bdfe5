"""Deforum's three-dimensional warp, as it is: a picture read at `(u, v) - delta`.

    P = (u, v, z),   Q = P R + T,   T = (-t_x, t_y, -t_z) / 200,   f = 1 / tan(fov / 2)
    delta = (f/aspect (Q_x/Q_z - u/z),  f (Q_y/Q_z - v/z)),    u, v in -1..1, R = Rx Ry Rz

Measured on sd-webui-deforum 3224268, whose near and far cancel out. It is not a camera: the offset is taken
at the destination, nothing hides anything, and a roll shears on frames that are not square. A perspective
flip comes first, and is not done to the depth, which stays as it was seen before. The native camera
(`kinema.animation.splat`) has none of that; this one is for storyboards that were made with it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from kinema.animation.matrices import rotation_x, rotation_y, rotation_z
from kinema.animation.sampling import precise
from kinema.animation.steps import DeforumStep
from kinema.animation.warp2d import warp_plane

_BINS = 1024


def warp_deforum(
    frame_BCHW: Tensor, step: DeforumStep, depth_B1HW: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The moved picture, and where it shows nothing of the source.

    Args:
        frame_BCHW: any values.
        step: the move.
        depth_B1HW: Deforum's z (1 to 2; see `deforum_z`) before the step's flip; None is 1 everywhere.

    Returns:
        `[B, C, H, W]`, and bool `[B, 1, H, W]`: True where the source has nothing.
    """
    if step.flip is not None:
        frame_BCHW, empty = warp_plane(frame_BCHW, step.flip)
        warped, holes = warp_deforum(frame_BCHW, replace(step, flip=None), depth_B1HW)
        moved, _ = warp_deforum(
            empty.to(frame_BCHW), replace(step, flip=None, sampling="bilinear"), depth_B1HW
        )
        return warped, holes | (moved > 0.5)
    if step.still:
        return frame_BCHW.clone(), torch.zeros_like(frame_BCHW[:, :1], dtype=torch.bool)
    grid = _grid(frame_BCHW) - deforum_offset(frame_BCHW, step, depth_B1HW)
    holes = (grid.abs() > 1 + 1e-6).any(dim=-1) | ~torch.isfinite(grid).all(dim=-1)
    warped = F.grid_sample(
        frame_BCHW,
        torch.nan_to_num(grid).to(frame_BCHW.dtype),
        mode=step.sampling,
        padding_mode=step.padding,
        align_corners=False,
    )
    return warped, rearrange(holes, "B H W -> B 1 H W")


def _grid(frame_BCHW: Tensor) -> Tensor:
    unmoved = torch.eye(2, 3, dtype=precise(frame_BCHW.device), device=frame_BCHW.device)
    shape = [frame_BCHW.shape[0], 1, *frame_BCHW.shape[-2:]]
    return F.affine_grid(unmoved.expand(shape[0], -1, -1), shape, align_corners=False)


def deforum_offset(frame_BCHW: Tensor, step: DeforumStep, depth_B1HW: Tensor | None) -> Tensor:
    """Delta at every destination pixel, `[B, H, W, 2]`, in units of half the frame."""
    dtype, device = precise(frame_BCHW.device), frame_BCHW.device
    height, width = frame_BCHW.shape[-2:]
    v, u = torch.meshgrid(
        torch.linspace(-1, 1, height, dtype=dtype, device=device),
        torch.linspace(-1, 1, width, dtype=dtype, device=device),
        indexing="ij",
    )
    z = torch.ones(1, height, width, dtype=dtype, device=device)
    z = z if depth_B1HW is None else depth_B1HW[:, 0].to(z)
    z = z.expand(frame_BCHW.shape[0], -1, -1)
    point = torch.stack([u.expand_as(z), v.expand_as(z), z], dim=-1)
    x, y, angle_z = step.rotation
    turn = torch.tensor(rotation_x(x) @ rotation_y(y) @ rotation_z(angle_z)).to(point)
    tx, ty, tz = step.translation
    moved = point @ turn + torch.tensor([-tx / 200, ty / 200, -tz / 200]).to(point)
    focal = 1 / math.tan(math.radians(step.fov) / 2)
    lens = torch.tensor([focal / step.aspect, focal]).to(point)
    return lens * (moved[..., :2] / moved[..., 2:] - point[..., :2] / z[..., None])


def deforum_z(depth_B1HW: Tensor, *, far_is_large: bool = True) -> Tensor:
    """Deforum's z, 1 to 2: depth evened out by a histogram of 1024 bins; constant depth is 1.

        e(d) = share of the pixels in d's bin and those below it, straight from bin edge to bin edge
        z = 1 + e(distance)    or    2 - e(disparity)

    Bins lie over the depth's own range. The smallest value has its own share, the largest is 1 or 2.

    Args:
        depth_B1HW: distances, or disparities.
        far_is_large: distances, as Zoe, AdaBins and LeReS give; False for disparities, as MiDaS gives.
    """
    return torch.stack([_equalised(one, far_is_large) for one in depth_B1HW])


def _equalised(depth_1HW: Tensor, far_is_large: bool) -> Tensor:
    low, high = depth_1HW.amin(), depth_1HW.amax()
    if not bool(torch.isfinite(depth_1HW).all()) or bool(low == high):
        return torch.ones_like(depth_1HW)
    place = ((depth_1HW - low) / (high - low)).to(precise(depth_1HW.device)) * _BINS  # 0..1 in its own type
    left = place.floor().clamp(0, _BINS - 1).long()
    counts = torch.bincount(left.flatten(), minlength=_BINS)
    below = counts.cumsum(0).to(place) / depth_1HW.numel()
    right = (left + 1).clamp(max=_BINS - 1)
    even = torch.lerp(below[left], below[right], place - left)
    return (1 + even if far_is_large else 2 - even).to(depth_1HW.dtype)
