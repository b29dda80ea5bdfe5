"""A picture with depth, seen from another place: near things hide far ones, and what was hidden is a hole.

    q ~ K_b (R d(p) K_a^-1 p + t)

Every source pixel p, cut finely enough for how much it grows, is carried to its landing q; where several
land on one destination pixel the nearest to the camera stays (z-buffer). The winner says which surface is
seen there. Then q -> p is solved on that surface by Newton steps, so that colours are read once, sharply, at
positions that are exact for smooth surfaces. Where no surface lands, or none is consistent, there is a hole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from kinema.animation.holes import fill
from kinema.animation.matrices import Matrix
from kinema.animation.sampling import pixel_grid, precise, read_at
from kinema.animation.steps import Edge, SpaceStep
from kinema.animation.warp2d import inside
from kinema.core.errors import ConfigError

MOST_CUTS = 4  # along each side of a pixel
_NEWTON = 6
_CLOSE = 0.5  # pixels that a solved position may be off by before it counts as another surface
_JUMP = 1.1  # neighbouring distances further apart than this factor are two surfaces
_BEHIND = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """Where points of the source land.

    Attributes:
        x, y: pixels of the destination, `[B, h, w]`.
        z: distance in the destination's camera; not positive behind it.
    """

    x: Tensor
    y: Tensor
    z: Tensor


def warp_space(frame_BCHW: Tensor, step: SpaceStep, depth_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """The picture from the camera's next place, and where it shows nothing of the source.

    Args:
        frame_BCHW: any values, `[B, C, H, W]`.
        step: the move; its size and the frame's must have the same shape.
        depth_B1HW: positive distances along the camera's axis, 1 for the flat picture's; `[1 or B, 1, H, W]`.

    Returns:
        `[B, C, H, W]`, holes filled from around them and from behind (or with the edge's colour), and bool
        `[B, 1, H, W]`: True where the source has nothing.

    Raises:
        ConfigError: depth of another size, or not positive and finite.
    """
    if step.still:
        return frame_BCHW.clone(), torch.zeros_like(frame_BCHW[:, :1], dtype=torch.bool)
    size = (frame_BCHW.shape[-1], frame_BCHW.shape[-2])
    depth_BHW = _checked(depth_B1HW, frame_BCHW)
    lens = _Lenses.of(step, size)
    with torch.no_grad():  # where things are; colours are differentiable, places are not
        x, y, z, holes = seen_from(lens, depth_BHW, size)
    # Inside holes the position means nothing; any place will do until the filler has its turn.
    nearest = Edge("replicate", sampling=step.edge.sampling)
    warped = read_at(frame_BCHW, torch.where(holes, 0.0, x), torch.where(holes, 0.0, y), nearest)
    mask = rearrange(holes, "B H W -> B 1 H W")
    if step.edge.border == "colour":
        channels = frame_BCHW.shape[1]
        colour = step.edge.colour if channels == 3 else (0.0,) * channels
        blank = torch.tensor(colour, dtype=warped.dtype, device=warped.device)[None, :, None, None]
        return torch.where(mask, blank, warped), mask
    return fill(warped, mask, rearrange(z, "B H W -> B 1 H W").to(warped.dtype)), mask


def _checked(depth_B1HW: Tensor, frame_BCHW: Tensor) -> Tensor:
    if depth_B1HW.ndim != 4 or depth_B1HW.shape[-2:] != frame_BCHW.shape[-2:]:
        raise ConfigError(
            f"depth has the shape {list(depth_B1HW.shape)}; this frame needs "
            f"[1, 1, {frame_BCHW.shape[-2]}, {frame_BCHW.shape[-1]}]."
        )
    depth = depth_B1HW[:, 0].to(frame_BCHW.device, precise(frame_BCHW.device))
    if not bool((torch.isfinite(depth) & (depth > 0)).all()):
        raise ConfigError("depth has values that are not positive numbers; distances must be above 0.")
    return depth.expand(frame_BCHW.shape[0], -1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class _Lenses:
    """q ~ d M p + m: both lenses and the motion in one affine map of scaled pixels."""

    map_33: Matrix
    move_3: Matrix

    @staticmethod
    def of(step: SpaceStep, size: tuple[int, int]) -> _Lenses:
        x, y = size[0] / step.size[0], size[1] / step.size[1]
        grow = np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2], [0.0, 0.0, 1.0]])
        source, target = grow @ step.source_33, grow @ step.target_33
        return _Lenses(target @ step.rotation_33 @ np.linalg.inv(source), target @ step.translation_3)

    def carry(self, x: Tensor, y: Tensor, depth: Tensor) -> Carried:
        rows = self.map_33.tolist()
        u, v, w = (
            depth * (a * x + b * y + c) + m for (a, b, c), m in zip(rows, self.move_3.tolist(), strict=True)
        )
        safe = torch.where(w.abs() > _BEHIND, w, torch.full_like(w, _BEHIND))
        return Carried(u / safe, v / safe, w)

    def slopes(self, at: Carried, depth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """dq/dp at constant distance: d/w (M_xy - q M_z)."""
        (a, b, _), (c, d, _), (e, f, _) = self.map_33.tolist()
        gain = depth / torch.where(at.z.abs() > _BEHIND, at.z, torch.full_like(at.z, _BEHIND))
        return gain * (a - at.x * e), gain * (b - at.x * f), gain * (c - at.y * e), gain * (d - at.y * f)


def seen_from(
    lens: _Lenses, depth_BHW: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source position and distance of what each destination pixel shows, and the holes; `[B, H, W]` each."""
    cuts = _cuts(lens, depth_BHW, size)
    x, y = _fine_grid(size, cuts, depth_BHW)
    x, y = x.expand(depth_BHW.shape[0], -1, -1), y.expand(depth_BHW.shape[0], -1, -1)
    landed = lens.carry(x, y, _distance_at(depth_BHW, x, y))
    x, y, found = _winners(landed, x, y, size)
    x, y, found = _spread(x, y, found)
    x, y, off, z = _solved(lens, depth_BHW, x, y)
    holes = ~found | (off > _CLOSE) | (z <= _BEHIND) | ~inside(x, y, size)
    return x, y, torch.where(holes, torch.zeros_like(z), z), holes


def _cuts(lens: _Lenses, depth_BHW: Tensor, size: tuple[int, int]) -> int:
    """How finely each pixel is cut so that no surface tears: by how much it grows at most."""
    x, y = pixel_grid(size, depth_BHW.device, depth_BHW.dtype)
    at = lens.carry(x, y, depth_BHW)
    a, b, c, d = lens.slopes(at, depth_BHW)
    seen = (at.z > _BEHIND) & inside(at.x, at.y, size)
    growth = torch.where(seen, torch.maximum(a.abs() + b.abs(), c.abs() + d.abs()), torch.zeros_like(a))
    return min(MOST_CUTS, max(1, math.ceil(float(growth.max()))))


def _fine_grid(size: tuple[int, int], cuts: int, like: Tensor) -> tuple[Tensor, Tensor]:
    x, y = pixel_grid((size[0] * cuts, size[1] * cuts), like.device, like.dtype)
    return (x + 0.5) / cuts - 0.5, (y + 0.5) / cuts - 0.5


def _distance_at(depth_BHW: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distances between pixels: 1/d is straight across a plane, and nothing lies between two surfaces."""
    depth = rearrange(depth_BHW, "B H W -> B 1 H W")
    between = 1 / read_at(1 / depth, x, y, Edge(sampling="bilinear"))
    whole = read_at(depth, x, y, Edge(sampling="nearest"))
    padded = F.pad(depth, (1, 1, 1, 1), mode="replicate")
    high, low = F.max_pool2d(padded, 3, 1), -F.max_pool2d(-padded, 3, 1)
    torn = read_at(high / low, x, y, Edge(sampling="nearest")) > _JUMP
    return torch.where(torn, whole, between)[:, 0]


def _winners(landed: Carried, x: Tensor, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """For every destination pixel the source position of the nearest surface that lands on it."""
    width, height = size
    batch, count = x.shape[0], x[0].numel()
    column, row = landed.x.round(), landed.y.round()
    fits = (landed.z > _BEHIND) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    cell = torch.where(fits, row * width + column, torch.full_like(row, height * width)).long()
    # One whole number orders by distance first, then by place, so that the winner never depends on luck.
    near = (landed.z.clamp(_BEHIND, 1e4) * 2**20).long().view(batch, -1)
    order = near * count + torch.arange(count, device=x.device)
    least = torch.full((batch, height * width + 1), torch.iinfo(torch.int64).max, device=x.device)
    least = least.scatter_reduce(1, cell.view(batch, -1), order, "amin")[:, :-1]
    found = least < torch.iinfo(torch.int64).max
    winner = torch.where(found, least % count, torch.zeros_like(least))
    shape = (batch, height, width)
    picked = (position.reshape(batch, -1).gather(1, winner).view(shape) for position in (x, y))
    return (*picked, found.view(shape))  # type: ignore[return-value]


def _spread(x: Tensor, y: Tensor, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cracks one pixel wide take their neighbour's place as a guess; solving then accepts it or not."""
    guess_x, guess_y, known = x, y, found
    for axis, shift in ((2, 1), (2, -1), (1, 1), (1, -1)):
        beside = found.roll(shift, axis)
        edge = beside.select(axis, 0 if shift == 1 else -1)
        edge.zero_()  # what rolled in from the other side is no neighbour
        take = beside & ~known
        guess_x = torch.where(take, x.roll(shift, axis), guess_x)
        guess_y = torch.where(take, y.roll(shift, axis), guess_y)
        known = known | take
    return guess_x, guess_y, known


def _solved(lens: _Lenses, depth_BHW: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source positions that land on the pixels' centres, how far off they still are, and their distances."""
    height, width = depth_BHW.shape[-2:]
    goal_x, goal_y = pixel_grid((width, height), x.device, x.dtype)
    best_x, best_y = x, y
    best_off, best_z = torch.full_like(x, float("inf")), torch.zeros_like(x)
    for _ in range(_NEWTON):
        depth = _distance_at(depth_BHW, x, y)
        at = lens.carry(x, y, depth)
        off_x, off_y = goal_x - at.x, goal_y - at.y
        off = torch.maximum(off_x.abs(), off_y.abs())
        better = off < best_off
        best_x, best_y = torch.where(better, x, best_x), torch.where(better, y, best_y)
        best_off, best_z = torch.where(better, off, best_off), torch.where(better, at.z, best_z)
        a, b, c, d = lens.slopes(at, depth)
        area = a * d - b * c
        area = torch.where(area.abs() > 1e-6, area, torch.full_like(area, 1e-6))
        x = x + ((d * off_x - b * off_y) / area).clamp(-2, 2)
        y = y + ((a * off_y - c * off_x) / area).clamp(-2, 2)
    return best_x, best_y, best_off, best_z


def carried(step: SpaceStep, depth_B1HW: Tensor, x: Tensor, y: Tensor) -> Carried:
    """Where points `[B, h, w]` of the source land, in pixels of the depth; beyond it the edge goes on."""
    size = (depth_B1HW.shape[-1], depth_B1HW.shape[-2])
    depth_BHW = _checked(depth_B1HW, depth_B1HW)
    return _Lenses.of(step, size).carry(x, y, _distance_at(depth_BHW, x, y))


def distances_after(step: SpaceStep, depth_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """What distance each pixel shows after the step, and where nothing is known, `[B, 1, H, W]` each."""
    size = (depth_B1HW.shape[-1], depth_B1HW.shape[-2])
    depth_BHW = _checked(depth_B1HW, depth_B1HW)
    with torch.no_grad():
        _, _, z, holes = seen_from(_Lenses.of(step, size), depth_BHW, size)
    return rearrange(z, "B H W -> B 1 H W"), rearrange(holes, "B H W -> B 1 H W")
