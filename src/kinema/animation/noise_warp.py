"""Noise that moves with the camera and stays noise: unit variance, every value independent of every other.

Each value of the first frame's noise is cut into k x k cells that are noise themselves and add up to it,

    c_j = x / k + z_j - mean(z),    sum_j c_j / k = x        (z fresh; the c are independent, of variance 1)

beyond the frame the cells are fresh. The camera carries cells, each into one pixel of a later frame, which is

    y = sum of its n cells / sqrt(n)

No cell is used twice in a frame, so y is white exactly, whatever the path; whole shifts give the same
numbers. (After Chang et al. 2024, "How I Warped Your Noise", and Burgert et al. 2025, "Go-with-the-Flow".)
Where a path zooms in until cells grow larger than pixels, or leaves the neighbourhood, the noise of the frame
before is cut anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

CELLS = 4  # along each side of a pixel
_MOST_GROWTH = 0.6 * CELLS  # above it some pixels would stay without a cell
_REACH = 1  # frames on every side that fresh cells are kept for
_HIDDEN = 1.1  # cells farther than the nearest by this factor are behind it


class Carry(Protocol):
    """Where points of one frame are in another, in latent pixels."""

    def __call__(self, a: int, b: int, x_N: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and distance `[N]` in frame b of points of frame a; a distance of 0 or less is unseen."""


def moved_noise(
    carry: Carry,
    frames: int,
    shape_CYX: tuple[int, int, int],
    generator: Callable[[str], torch.Generator],
) -> Tensor:
    """White noise `[1, C, T, Y, X]` whose values follow the camera from frame to frame.

    Args:
        carry: the camera.
        frames: T.
        shape_CYX: channels, rows, columns.
        generator: of a name; frames that a longer clip adds do not change the others.
    """
    found = [torch.randn(shape_CYX, generator=generator("first"))]
    anchor = 0
    canvas: _Canvas | None = None
    for t in range(1, frames):
        if not _within(carry, anchor, t, shape_CYX):
            anchor, canvas = t - 1, None
        if canvas is None:
            canvas = _Canvas(found[anchor], anchor, generator)
        fresh = torch.randn(shape_CYX, generator=generator(f"uncovered {t}"))
        found.append(canvas.at(carry, t, fresh))
    return torch.stack(found, dim=1).unsqueeze(0)


def _within(carry: Carry, anchor: int, t: int, shape_CYX: tuple[int, int, int]) -> bool:
    """Whether frame t lies in the anchor's neighbourhood and no cell is much larger than its pixels."""
    _, rows, columns = shape_CYX
    y, x = torch.meshgrid(
        torch.linspace(-0.5, rows - 0.5, 5, dtype=torch.float64),
        torch.linspace(-0.5, columns - 0.5, 5, dtype=torch.float64),
        indexing="ij",
    )
    x, y = x.flatten(), y.flatten()
    back_x, back_y, z = carry(t, anchor, x, y)
    near = (
        (back_x >= -_REACH * columns - 0.5)
        & (back_x <= (1 + _REACH) * columns - 0.5)
        & (back_y >= -_REACH * rows - 0.5)
        & (back_y <= (1 + _REACH) * rows - 0.5)
    )
    right_x, right_y, _ = carry(t, anchor, x + 0.5, y)
    down_x, down_y, _ = carry(t, anchor, x, y + 0.5)
    least = torch.minimum(
        torch.hypot(right_x - back_x, right_y - back_y), torch.hypot(down_x - back_x, down_y - back_y)
    )
    return bool(near.all() and (z > 0).all() and (2 * least * _MOST_GROWTH >= 1).all())


class _Canvas:
    """A frame's noise as cells, and fresh cells around it."""

    def __init__(self, noise_CYX: Tensor, anchor: int, generator: Callable[[str], torch.Generator]) -> None:
        self._anchor = anchor
        self._shape = tuple(noise_CYX.shape)
        self._generator = generator
        self._tiles: dict[tuple[int, int], Tensor] = {(0, 0): self._cut(noise_CYX)}

    def _cells(self, name: str) -> Tensor:
        channels, rows, columns = self._shape
        shape = (channels, rows * CELLS, columns * CELLS)
        return torch.randn(shape, generator=self._generator(f"{name} of {self._anchor}")).double()

    def _cut(self, noise_CYX: Tensor) -> Tensor:
        """Cells that add up to the noise, in float64 so that whole shifts are exact."""
        z = self._cells("cells")
        mean = torch.nn.functional.avg_pool2d(z, CELLS)
        spread = (noise_CYX.double() / CELLS - mean).repeat_interleave(CELLS, 1)
        return z + spread.repeat_interleave(CELLS, 2)

    def at(self, carry: Carry, t: int, fresh_CYX: Tensor) -> Tensor:
        """The noise of frame t; `fresh_CYX` where no cell lands."""
        channels, rows, columns = self._shape
        total = torch.zeros(channels, rows * columns, dtype=torch.float64)
        count = torch.zeros(rows * columns, dtype=torch.float64)
        landings = [(tile, self._landed(carry, t, tile)) for tile in self._neighbours(carry, t)]
        nearest = torch.full((rows * columns,), math.inf, dtype=torch.float64)
        for _, (place, z, _) in landings:
            nearest.scatter_reduce_(0, place, z, "amin")
        for tile, (place, z, which) in landings:
            seen = z <= nearest[place] * _HIDDEN
            cells = self._tile(tile).flatten(1)[:, which[seen]]
            total.index_add_(1, place[seen], cells)
            count.index_add_(0, place[seen], torch.ones_like(z[seen]))
        noise = (total / count.clamp_min(1).sqrt()).view(self._shape).float()
        return torch.where((count > 0).view(1, rows, columns), noise, fresh_CYX)

    def _landed(self, carry: Carry, t: int, tile: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Pixel, distance and number of the tile's cells that land in frame t."""
        _, rows, columns = self._shape
        y, x = torch.meshgrid(
            (torch.arange(rows * CELLS, dtype=torch.float64) + 0.5) / CELLS - 0.5 + tile[0] * rows,
            (torch.arange(columns * CELLS, dtype=torch.float64) + 0.5) / CELLS - 0.5 + tile[1] * columns,
            indexing="ij",
        )
        to_x, to_y, z = carry(self._anchor, t, x.flatten(), y.flatten())
        column, row = (to_x + 0.5).floor(), (to_y + 0.5).floor()
        lands = (z > 0) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        which = torch.nonzero(lands)[:, 0]
        return (row[which] * columns + column[which]).long(), z[which], which

    def _neighbours(self, carry: Carry, t: int) -> list[tuple[int, int]]:
        """Tiles that frame t may see."""
        _, rows, columns = self._shape
        y, x = torch.meshgrid(
            torch.linspace(-0.5, rows - 0.5, 9, dtype=torch.float64),
            torch.linspace(-0.5, columns - 0.5, 9, dtype=torch.float64),
            indexing="ij",
        )
        back_x, back_y, _ = carry(t, self._anchor, x.flatten(), y.flatten())
        spans = []
        for back, side in ((back_y, rows), (back_x, columns)):
            low, high = (math.floor((float(v) + 0.5) / side) for v in (back.min() - 1, back.max() + 1))
            spans.append(range(max(low, -_REACH), min(high, _REACH) + 1))
        return [(i, j) for i in spans[0] for j in spans[1]]

    def _tile(self, tile: tuple[int, int]) -> Tensor:
        if tile not in self._tiles:
            self._tiles[tile] = self._cells(f"cells {tile[0]},{tile[1]}")
        return self._tiles[tile]


def mixed(moved_BCTYX: Tensor, own_BCTYX: Tensor, share: float) -> Tensor:
    """White noise of which `share` of the variance moves, the rest being each frame's own."""
    return math.sqrt(share) * moved_BCTYX + math.sqrt(1 - share) * own_BCTYX
