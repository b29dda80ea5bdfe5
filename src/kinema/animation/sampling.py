"""Pictures read between their pixels, in plain torch: exact at whole pixels, differentiable, any border.

    out(q) = sum_k w_k(frac x) w_l(frac y) picture(floor x + k, floor y + l)

Pixel centres are at whole numbers. At whole positions one weight is 1 and the others 0, so a picture that
is read where it is comes back to the last bit. Bicubic is Catmull and Rom's (a = -1/2), which keeps
straight slopes straight and blurs less than bilinear when a picture is read again and again.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from kinema.animation.steps import Edge

_A = -0.5


def read_at(picture_BCHW: Tensor, x_BHW: Tensor, y_BHW: Tensor, edge: Edge) -> Tensor:
    """The picture at positions `[B, h, w]`, giving `[B, C, h, w]`.

    Args:
        picture_BCHW: any values; C is 3 where the edge is a colour that is not black.
        x_BHW: pixels from the left, float; not finite counts as far outside.
        y_BHW: pixels from the top.
        edge: what is beyond the border, and how pixels between pixels are read.
    """
    height, width = picture_BCHW.shape[-2:]
    x, y = _finite(x_BHW, width), _finite(y_BHW, height)
    left, top = x.floor(), y.floor()
    across, down = _weights(x - left, edge.sampling), _weights(y - top, edge.sampling)
    total = torch.zeros((), dtype=picture_BCHW.dtype, device=picture_BCHW.device)
    for l_step, w_y in down.items():
        row, inside_y = _place(top.long() + l_step, height, edge)
        for k_step, w_x in across.items():
            column, inside_x = _place(left.long() + k_step, width, edge)
            tap = _gather(picture_BCHW, row, column)
            if edge.border == "colour":
                inside = rearrange(inside_x & inside_y, "B h w -> B 1 h w")
                tap = torch.where(inside, tap, _colour(edge, tap))
            total = total + rearrange((w_x * w_y).to(tap.dtype), "B h w -> B 1 h w") * tap
    return total


def _finite(position: Tensor, side: int) -> Tensor:
    far = 8.0 * side  # beyond it every border mode but wrap looks the same, and whole numbers stay exact
    return torch.nan_to_num(position, nan=-far, posinf=far, neginf=-far).clamp(-1e6, 1e6)


def _weights(fraction: Tensor, sampling: str) -> dict[int, Tensor]:
    """By offset from the pixel to the left; each set sums to 1."""
    t = fraction
    if sampling == "nearest":
        right = (t >= 0.5).to(t.dtype)
        return {0: 1 - right, 1: right}
    if sampling == "bilinear":
        return {0: 1 - t, 1: t}
    return {
        -1: _A * t * (1 - t) ** 2,
        0: 1 - (_A + 3) * t**2 + (_A + 2) * t**3,
        1: -_A * t + (2 * _A + 3) * t**2 - (_A + 2) * t**3,
        2: _A * (t**2 - t**3),
    }


def _place(index: Tensor, side: int, edge: Edge) -> tuple[Tensor, Tensor]:
    """Where a tap is read instead when it lies outside, and whether it was inside."""
    inside = (index >= 0) & (index < side)
    if edge.border == "wrap":
        return index.remainder(side), inside
    if edge.border == "reflect" and side > 1:
        folded = index.remainder(2 * side - 2)
        return torch.where(folded < side, folded, 2 * side - 2 - folded), inside
    return index.clamp(0, side - 1), inside


def _gather(picture_BCHW: Tensor, row_BHW: Tensor, column_BHW: Tensor) -> Tensor:
    flat = rearrange(picture_BCHW, "B C H W -> B C (H W)")
    index = rearrange(row_BHW * picture_BCHW.shape[-1] + column_BHW, "B h w -> B 1 (h w)")
    found = flat.gather(2, index.expand(flat.shape[0], flat.shape[1], -1))
    return rearrange(found, "B C (h w) -> B C h w", h=row_BHW.shape[1])


def _colour(edge: Edge, like_BCHW: Tensor) -> Tensor:
    channels = like_BCHW.shape[1]
    colour = edge.colour if channels == 3 else (0.0,) * channels
    return torch.tensor(colour, dtype=like_BCHW.dtype, device=like_BCHW.device)[None, :, None, None]


def pixel_grid(size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x and y of every pixel centre, `[1, H, W]` each."""
    width, height = size
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype),
        torch.arange(width, device=device, dtype=dtype),
        indexing="ij",
    )
    return x[None], y[None]


def precise(device: torch.device) -> torch.dtype:
    """The precision that positions are kept in; Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
