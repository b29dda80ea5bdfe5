"""Frames from numbers, on any device: premultiplied sprites warped over a ground, back to front.

    frame = o warp(sprite) + (1 - o warp(alpha)) * behind

Warping premultiplied colours mixes colour and coverage together and leaves no halo.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from kinema.training.grounds import grounds
from kinema.training.numbers import Numbers

Gather = Callable[[Tensor], Tensor]  # rows [N] -> uint8 premultiplied sprites [N, H, W, 4] on the device
TINY = 0.4  # sprites narrower than this share of the frame are halved first, or their pixels would flicker


def compose(values: Numbers, gather: Gather, *, size: int) -> Tensor:
    """Clips `[B, 3, F, H, W]` in -1..1 on the device of `values`.

    Args:
        values: the scenes.
        gather: looks sprites up.
        size: height and width; divides the sprites'.
    """
    canvas_BCFHW = _behind(values, size)
    for s in reversed(range(values.present_BS.shape[1])):
        tiny_B = values.scale_BS[:, s] < TINY
        for halvings in (0, 1):
            chosen = (values.present_BS[:, s] & (tiny_B == bool(halvings))).nonzero()[:, 0]
            if len(chosen):
                _draw(canvas_BCFHW, chosen, s, values, gather, halvings)
    return canvas_BCFHW.mul_(2).sub_(1).clamp_(-1, 1)


def _behind(values: Numbers, size: int) -> Tensor:
    """The grounds; those under a resting camera are computed once for all frames."""
    B, F = values.view_BF3.shape[:2]
    canvas = torch.empty(B, 3, F, size, size, device=values.rgb_B2C.device)
    for moving in (False, True):
        chosen = (values.filmed_B == moving).nonzero()[:, 0]
        if len(chosen):
            view = values.view_BF3[chosen] if moving else values.view_BF3[chosen, :1]
            canvas[chosen] = grounds(
                values.kind_B[chosen],
                values.rgb_B2C[chosen],
                values.turns_B[chosen],
                values.shift_B[chosen],
                view,
                size,
            ).expand(-1, -1, F, -1, -1)
    return canvas


def _draw(
    canvas_BCFHW: Tensor, chosen: Tensor, s: int, values: Numbers, gather: Gather, halvings: int
) -> None:
    """Draw subject `s` of the chosen clips over what is there."""
    F, size = canvas_BCFHW.shape[2], canvas_BCFHW.shape[-1]
    rows_N = rearrange(values.rows_BSF[chosen, s], "B F -> (B F)")
    sprites_NCHW = rearrange(gather(rows_N), "N H W C -> N C H W").to(torch.float32, copy=True)
    factor = max(1, sprites_NCHW.shape[-1] // size) * 2**halvings
    if factor > 1:
        sprites_NCHW = functional.avg_pool2d(sprites_NCHW, factor)
    theta_N23 = rearrange(values.theta_BSF23[chosen, s], "B F R C -> (B F) R C")
    grid_NHW2 = functional.affine_grid(theta_N23, [len(rows_N), 4, size, size], align_corners=False)
    warped_NCHW = functional.grid_sample(sprites_NCHW, grid_NHW2, mode="bilinear", align_corners=False)
    opacity_N = rearrange(values.opacity_BSF[chosen, s], "B F -> (B F) 1 1 1")
    warped_BCFHW = rearrange(warped_NCHW.mul_(opacity_N / 255), "(B F) C H W -> B C F H W", F=F)
    colour, alpha = warped_BCFHW[:, :3], warped_BCFHW[:, 3:]
    dyes_B34 = values.dye_BS34[chosen, s]
    if bool(values.dyed_BS[chosen, s].any()):
        dyed = torch.einsum("bkc,bcfhw->bkfhw", dyes_B34, warped_BCFHW)
        colour = torch.minimum(dyed.clamp_min(0), alpha)
    canvas_BCFHW[chosen] = torch.addcmul(colour, 1 - alpha, canvas_BCFHW[chosen])
