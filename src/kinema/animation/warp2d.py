"""A picture through a 3x3 map of its pixels: each destination pixel reads where it came from.

out(q) = picture(p),    p ~ M^-1 q
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinema.animation.matrices import Matrix
from kinema.animation.sampling import pixel_grid, precise, read_at
from kinema.animation.steps import PlaneStep
from kinema.core.errors import ConfigError


def warp_plane(frame_BCHW: Tensor, step: PlaneStep) -> tuple[Tensor, Tensor]:
    """The moved picture, and where it shows nothing of the source.

    Args:
        frame_BCHW: any values, at the step's size or another: the map is then of shares of the frame.
        step: the map.

    Returns:
        `[B, C, H, W]`, and bool `[B, 1, H, W]`: True where the source has nothing.
    """
    if step.still:
        return frame_BCHW.clone(), torch.zeros_like(frame_BCHW[:, :1], dtype=torch.bool)
    height, width = frame_BCHW.shape[-2:]
    matrix = scaled(step.matrix_33, step.size, (width, height))
    x, y, ahead = source_of(matrix, (width, height), frame_BCHW.device)
    holes = ~(ahead & inside(x, y, (width, height)))
    far = torch.full_like(x, float("inf"))
    warped = read_at(frame_BCHW, torch.where(ahead, x, far), torch.where(ahead, y, far), step.edge)
    return warped, rearrange(holes, "1 H W -> 1 1 H W").expand(frame_BCHW.shape[0], -1, -1, -1)


def source_of(
    matrix_33: Matrix, size: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Where every destination pixel came from: x and y `[1, H, W]`, and whether that is before the camera.

    Raises:
        ConfigError: a map that leaves nothing of the picture.
    """
    if not np.isfinite(matrix_33).all() or abs(float(np.linalg.det(matrix_33))) < 1e-12:
        raise ConfigError("the camera's step leaves nothing of the picture; zoom by more than 0.")
    inverse = np.linalg.inv(matrix_33)
    x, y = pixel_grid(size, device, precise(device))
    (a, b, c), (d, e, f), (g, h, i) = inverse.tolist()
    if g == h == 0 and i == 1:  # no division, so that whole shifts stay whole
        return a * x + b * y + c, d * x + e * y + f, torch.ones_like(x, dtype=torch.bool)
    w = g * x + h * y + i
    ahead = w > 1e-9
    w = torch.where(ahead, w, torch.ones_like(w))
    return (a * x + b * y + c) / w, (d * x + e * y + f) / w, ahead


def inside(x_BHW: Tensor, y_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Within the picture, whose pixels reach half a pixel around their centres."""
    width, height = size
    slack = 1e-6
    return (
        (x_BHW >= -0.5 - slack)
        & (x_BHW <= width - 0.5 + slack)
        & (y_BHW >= -0.5 - slack)
        & (y_BHW <= height - 0.5 + slack)
    )


def scaled(matrix_33: Matrix, size: tuple[int, int], to: tuple[int, int]) -> Matrix:
    """The same move of the same picture at another size."""
    if size == to:
        return matrix_33
    x, y = to[0] / size[0], to[1] / size[1]
    grow = np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2], [0.0, 0.0, 1.0]])
    return grow @ matrix_33 @ np.linalg.inv(grow)


def flow(matrix_33: Matrix, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """How far each pixel of the source goes, `[1, 2, H, W]`, x then y, pixels."""
    x, y = pixel_grid(size, torch.device(device), precise(torch.device(device)))
    (a, b, c), (d, e, f), (g, h, i) = matrix_33.tolist()
    w = g * x + h * y + i
    return torch.stack([(a * x + b * y + c) / w - x, (d * x + e * y + f) / w - y], dim=1)
