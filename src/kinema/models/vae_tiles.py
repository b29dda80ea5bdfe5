"""Overlapping spatial tiles, blended by weights that sum to one at every pixel.

Along one axis tile i weighs `w_i(p) = r_i(p) / sum_j r_j(p)`, where r_i rises linearly from its borders over
the overlap. The canvas is the sum of the weighted tiles: no seam, whatever a tile gets wrong at its border.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tiles:
    """How to cut latents into tiles.

    Attributes:
        size: rows and columns of a tile, in latent positions.
        overlap: positions that neighbours share, 0 < overlap < size.
    """

    size: int = 32
    overlap: int = 8

    def __post_init__(self) -> None:
        """Refuse tiles that cannot cover a plane without seams."""
        if not 0 < self.overlap < self.size:
            raise ConfigError(
                f"overlap={self.overlap} must lie between 0 and the tile's size={self.size}; "
                f"try {max(self.size // 4, 1)}."
            )

    def areas(self, rows: int, columns: int, scale: int) -> list[Area]:
        """The tiles of a plane of latents whose positions are `scale` pixels wide."""
        tops, lefts = self.starts(rows), self.starts(columns)
        height, width = min(self.size, rows), min(self.size, columns)
        weights_H = blend_weights(tops, height, self.overlap, scale)
        weights_W = blend_weights(lefts, width, self.overlap, scale)
        return [
            Area(top, left, height, width, scale, weight_H[:, None] * weight_W)
            for top, weight_H in zip(tops, weights_H, strict=True)
            for left, weight_W in zip(lefts, weights_W, strict=True)
        ]

    def starts(self, length: int) -> list[int]:
        """First positions of the tiles along an axis; the last tile ends where the axis ends."""
        last = max(length - self.size, 0)
        return [*range(0, last, self.size - self.overlap), last]


def blend_weights(starts: list[int], size: int, overlap: int, scale: int) -> list[Tensor]:
    """Weight of each tile at each of its `size * scale` pixels along an axis; all tiles' sum to 1."""
    position = torch.arange(size * scale, dtype=torch.float64) + 0.5
    rise = torch.minimum(position, position.flip(0)).clamp(max=overlap * scale)
    total = torch.zeros((starts[-1] + size) * scale, dtype=torch.float64)
    for start in starts:
        total[start * scale : (start + size) * scale] += rise
    return [(rise / total[start * scale : (start + size) * scale]).float() for start in starts]


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """One tile: where it lies in the latents, and its weight `[H, W]` at each of its pixels."""

    top: int
    left: int
    rows: int
    columns: int
    scale: int
    weight_HW: Tensor

    def cut(self, latents_BCTYX: Tensor) -> Tensor:
        """The tile's latents."""
        return latents_BCTYX[..., self.top : self.top + self.rows, self.left : self.left + self.columns]

    def blend_into(self, canvas_BCFHW: Tensor, frames_BCFHW: Tensor) -> None:
        """Add the tile's weighted frames to the canvas."""
        y, x = self.top * self.scale, self.left * self.scale
        weight = self.weight_HW.to(frames_BCFHW)
        height, width = weight.shape
        canvas_BCFHW[..., y : y + height, x : x + width].addcmul_(frames_BCFHW, weight)
