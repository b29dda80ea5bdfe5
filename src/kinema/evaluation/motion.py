"""How a clip moves: the path of the sprite's centroid, how much changes between frames, and what flickers.

    centre_f = sum_p a_fp p / sum_p a_fp            a: predicted coverage, p: pixel places in -1..1, y down

Coverage is the distance from the background's colour, so nothing here was learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.evaluation.background import corners, coverage
from kinema.training.scenes import Motion

LEAST_TRAVEL = (
    0.5  # in a frame that spans -1..1; real crossings travel 1.2 or more, sprites in place below 0.2
)


def centroids(coverage_BFHW: Tensor) -> tuple[Tensor, Tensor]:
    """Centres `[B, F, 2]` as (x, y) in -1..1, y down, and areas `[B, F]` as shares of the frame."""
    height, width = coverage_BFHW.shape[-2:]
    y_H = (torch.arange(height) + 0.5) * 2 / height - 1
    x_W = (torch.arange(width) + 0.5) * 2 / width - 1
    mass_BF = coverage_BFHW.sum(dim=(2, 3))
    x_BF = (coverage_BFHW.sum(dim=2) * x_W).sum(dim=-1)
    y_BF = (coverage_BFHW.sum(dim=3) * y_H).sum(dim=-1)
    centre_BF2 = torch.stack([x_BF, y_BF], dim=-1) / mass_BF.clamp_min(1e-6).unsqueeze(-1)
    return centre_BF2, mass_BF / (height * width)


def travel(frames_BCFHW: Tensor) -> Tensor:
    """How far the sprite goes from the first frame to the last, `[B, 2]` as (x, y); the frame spans -1..1.

    The slope of a straight line through the centroids, each weighted by its area: a sprite half outside
    counts half, and an empty frame not at all.
    """
    centre_BF2, area_BF = centroids(coverage(frames_BCFHW))
    frames = frames_BCFHW.shape[2]
    weight_BF1 = (area_BF / area_BF.sum(dim=1, keepdim=True).clamp_min(1e-6)).unsqueeze(-1)
    time_F1 = torch.linspace(0, 1, frames).unsqueeze(-1)
    time_BF1 = time_F1 - (weight_BF1 * time_F1).sum(dim=1, keepdim=True)
    spread_B1 = (weight_BF1 * time_BF1.square()).sum(dim=1)
    return (weight_BF1 * time_BF1 * centre_BF2).sum(dim=1) / spread_B1.clamp_min(1e-6)


def directions(frames_BCFHW: Tensor) -> list[Motion]:
    """Where each clip's sprite goes: the direction of the longer axis, or "none" below `LEAST_TRAVEL`."""
    return [_direction(x, y) for x, y in travel(frames_BCFHW).tolist()]


def amounts(frames_BCFHW: Tensor) -> Tensor:
    """The mean change of a pixel from one frame to the next, `[B]`, where black and white are 1 apart."""
    return frames_BCFHW.diff(dim=2).abs().mean(dim=(1, 2, 3, 4)) / 2


def flicker(frames_BCFHW: Tensor) -> Tensor:
    """The same in the corners, where nothing should change, `[B]`; the median of the four."""
    change_BK = corners(frames_BCFHW).diff(dim=2).abs().mean(dim=(2, 3, 4))
    flicker_B: Tensor = change_BK.median(dim=1).values
    return flicker_B


def _direction(x: float, y: float) -> Motion:
    if max(abs(x), abs(y)) < LEAST_TRAVEL:
        return "none"
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"
