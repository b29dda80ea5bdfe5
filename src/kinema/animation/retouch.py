"""Touches on a picture between two drawings: noise, contrast, sharpening, blur.

    noise      x + n z             z with mean 0: blending towards noise instead, (1-n) x + n u, would also
                                   take a share n of the contrast away at every frame of a loop
    contrast   m + c (x - m)       m the mean of each channel, so that brightness does not run away
    sharpen    x + a (x - G x)     G a Gaussian; only where |x - G x| is above a threshold
    blur       G x

Pictures are float32 `[B, 3, H, W]` in 0..1; what leaves that range is clamped once, by `clamped`, since
rounding to 8 bits after every touch wraps or bands.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.core.errors import unknown_name

PERLIN_CELLS = (4, 8, 16, 32)  # across the longer side; each half as strong as the one before
NOISES = ("uniform", "gaussian", "perlin")


def add_noise(picture_BCHW: Tensor, amount: float, kind: str, generator: torch.Generator) -> Tensor:
    """The picture with `amount` times `noise`."""
    if amount == 0.0:
        return picture_BCHW
    return picture_BCHW + amount * noise(picture_BCHW.shape, kind, generator).to(picture_BCHW)


def noise(shape_BCHW: torch.Size, kind: str, generator: torch.Generator) -> Tensor:
    """Noise with mean 0, float32 on the CPU: `uniform` in -0.5..0.5, `gaussian` with deviation 1/4, or soft
    `perlin` clouds in -0.5..0.5.
    """
    if kind == "uniform":
        return torch.rand(shape_BCHW, generator=generator) - 0.5
    if kind == "gaussian":
        return torch.randn(shape_BCHW, generator=generator) / 4
    if kind == "perlin":
        return _perlin(shape_BCHW, generator)
    raise unknown_name("noise kind", kind, NOISES)


def _perlin(shape_BCHW: torch.Size, generator: torch.Generator) -> Tensor:
    """Gradient noise (Perlin 2002) in four sizes, the same in all channels, scaled to -0.5..0.5."""
    batch, _, height, width = shape_BCHW
    total = torch.zeros(batch, 1, height, width)
    for octave, cells in enumerate(PERLIN_CELLS):
        cell = max(height, width) / cells
        total += _gradient_noise(batch, height, width, cell, generator) * 0.5**octave
    total = total - total.mean(dim=(2, 3), keepdim=True)
    return (total / total.abs().amax(dim=(2, 3), keepdim=True).clamp(min=1e-6) / 2).expand(shape_BCHW)


def _gradient_noise(batch: int, height: int, width: int, cell: float, generator: torch.Generator) -> Tensor:
    rows, columns = math.ceil(height / cell) + 1, math.ceil(width / cell) + 1
    angle = torch.rand((batch, rows, columns), generator=generator) * 2 * math.pi
    y_H, x_W = torch.arange(height) / cell, torch.arange(width) / cell
    row_H, column_W = y_H.long(), x_W.long()
    dy_H1, dx_1W = (y_H - row_H)[:, None], (x_W - column_W)[None]
    fade_y, fade_x = _fade(dy_H1), _fade(dx_1W)

    def corner(down: int, right: int) -> Tensor:
        turn = angle[:, row_H + down][:, :, column_W + right]
        return turn.cos() * (dx_1W - right) + turn.sin() * (dy_H1 - down)

    top = torch.lerp(corner(0, 0), corner(0, 1), fade_x.expand(height, width))
    bottom = torch.lerp(corner(1, 0), corner(1, 1), fade_x.expand(height, width))
    return torch.lerp(top, bottom, fade_y.expand(height, width))[:, None]


def _fade(t: Tensor) -> Tensor:
    return t * t * t * (t * (t * 6 - 15) + 10)


def contrast(picture_BCHW: Tensor, factor: float) -> Tensor:
    """Contrast about the mean of each channel; 1 changes nothing."""
    if factor == 1.0:
        return picture_BCHW
    mean = picture_BCHW.mean(dim=(2, 3), keepdim=True)
    return mean + factor * (picture_BCHW - mean)


def sharpen(picture_BCHW: Tensor, amount: float, radius: float, threshold: float = 0.0) -> Tensor:
    """Unsharp mask with a Gaussian of `radius` pixels; differences up to `threshold` are left alone."""
    if amount == 0.0:
        return picture_BCHW
    detail = picture_BCHW - blur(picture_BCHW, radius)
    return picture_BCHW + amount * detail * (detail.abs() > threshold)


def blur(picture_BCHW: Tensor, radius: float) -> Tensor:
    """A Gaussian of deviation `radius` pixels, the border repeated outwards; 0 changes nothing."""
    if radius == 0.0:
        return picture_BCHW
    reach = max(1, math.ceil(3 * radius))
    at = torch.arange(-reach, reach + 1, dtype=torch.float32, device=picture_BCHW.device)
    weight = torch.exp(-0.5 * (at / radius) ** 2)
    weight = weight / weight.sum()
    channels = picture_BCHW.shape[1]
    across = weight.expand(channels, 1, 1, -1)
    padded = F.pad(picture_BCHW, (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(padded, across, groups=channels)
    return F.conv2d(rows, across.transpose(2, 3), groups=channels)


def clamped(picture_BCHW: Tensor) -> Tensor:
    """Within 0..1."""
    return picture_BCHW.clamp(0.0, 1.0)
