"""sRGB, linear light and Oklab: three ways to write the same colours.

    linear = ((c + 0.055) / 1.055) ** 2.4  above 0.04045, c / 12.92 below      (IEC 61966-2-1)
    lab    = M2 cbrt(M1 linear)                                               (Ottosson 2020)

Equal steps in Oklab look about equally large, so means and spreads of colours mean something there.
Everything is differentiable; values outside 0..1 are carried through, not clipped.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Björn Ottosson, "A perceptual color space for image processing", 2020: linear sRGB to cones, cones to Lab.
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_SMALLEST = 1e-8  # below it the cube root's slope would grow without bound


def to_linear(srgb_BCHW: Tensor) -> Tensor:
    """sRGB 0..1 as linear light."""
    c = srgb_BCHW
    bent = ((c.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(c <= 0.04045, c / 12.92, bent)


def to_srgb(linear_BCHW: Tensor) -> Tensor:
    """Linear light as sRGB."""
    c = linear_BCHW
    bent = 1.055 * c.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(c <= 0.0031308, c * 12.92, bent)


def to_oklab(srgb_BCHW: Tensor) -> Tensor:
    """sRGB `[B, 3, H, W]` in 0..1 as L 0..1, a and b about -0.4..0.4."""
    cones = _mixed(_CONES, to_linear(srgb_BCHW))
    rooted = torch.sign(cones) * cones.abs().clamp_min(_SMALLEST) ** (1 / 3)
    return _mixed(_LAB, rooted)


def from_oklab(lab_BCHW: Tensor) -> Tensor:
    """Oklab as sRGB; colours that sRGB cannot show lie outside 0..1."""
    return to_srgb(_mixed(_inverse(_CONES), _mixed(_inverse(_LAB), lab_BCHW) ** 3))


def _mixed(matrix: tuple[tuple[float, ...], ...], image_BCHW: Tensor) -> Tensor:
    weights = torch.tensor(matrix, dtype=image_BCHW.dtype, device=image_BCHW.device)
    mixed: Tensor = torch.einsum("oc,bchw->bohw", weights, image_BCHW)
    return mixed


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    inverted = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64))
    return tuple(tuple(row) for row in inverted.tolist())
