"""What lies behind: the corners of the frame, their colour in Oklab, and the nearest of the grammar's names.

Of the frame's border the corners are what sprites cover least: faces are round, and crossings go through
the middle of a side. Oklab (Björn Ottosson, https://bottosson.github.io/posts/oklab) measures differences as
eyes do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from kinema.training.scenes import COLOURS, Background

CORNER_SHARE = 0.08  # side of a corner over the side of the frame
FLAT_DISTANCE = 0.1  # in sRGB, where black and white are 1.7 apart; Oklab magnifies the noise of dark pixels
FLAT_SHARE = 0.75  # of the corners that must lie this near to their median, or else the ground is a gradient
CLEAR, SOLID = 0.1, 0.3  # distances from the ground, in sRGB, at which coverage starts and is full

LMS_FROM_RGB = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB_FROM_LMS = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(colours_C: Tensor) -> Tensor:
    """sRGB in 0..1 to Oklab (lightness 0..1, green to red, blue to yellow); channels are the last axis."""
    encoded = colours_C.clamp(0, 1)
    linear = torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    lms = (linear @ LMS_FROM_RGB.T).clamp_min(0) ** (1 / 3)
    return lms @ LAB_FROM_LMS.T


def nearest_names(lab_NC: Tensor) -> list[str]:
    """The nearest of the grammar's named colours to each Oklab colour."""
    names = list(COLOURS)
    named_KC = oklab(torch.tensor([COLOURS[name] for name in names]))
    return [names[index] for index in torch.cdist(lab_NC, named_KC).argmin(dim=1).tolist()]


def flat_colours(frames_BCFHW: Tensor) -> Tensor:
    """The median colour `[B, C]`, sRGB in 0..1, of the four corners over all frames."""
    colours_BC: Tensor = corners(frames_BCFHW).flatten(1, 3).median(dim=1).values
    return colours_BC


def side_colours(frames_BCFHW: Tensor) -> dict[str, Tensor]:
    """The colour `[B, C]`, sRGB in 0..1, of each side: the mean of its two corners' medians."""
    upper_left, upper_right, lower_left, lower_right = (
        corners(frames_BCFHW).flatten(2, 3).median(dim=2).values.unbind(dim=1)
    )
    return {
        "top": (upper_left + upper_right) / 2,
        "bottom": (lower_left + lower_right) / 2,
        "left": (upper_left + lower_left) / 2,
        "right": (upper_right + lower_right) / 2,
    }


def matches(frames_BCFHW: Tensor, backgrounds: Sequence[Background]) -> Tensor:
    """Whether each clip, in -1..1, shows the named background, `[B]`: every name at its place."""
    flat = nearest_names(oklab(flat_colours(frames_BCFHW)))
    sides = {side: nearest_names(oklab(colour)) for side, colour in side_colours(frames_BCFHW).items()}
    ends = {"vertical": ("top", "bottom"), "horizontal": ("left", "right")}
    seen = [
        (flat[i],) if ground.layout == "flat" else tuple(sides[side][i] for side in ends[ground.layout])
        for i, ground in enumerate(backgrounds)
    ]
    return torch.tensor([found == ground.names for found, ground in zip(seen, backgrounds, strict=True)])


def ground(frames_BCFHW: Tensor) -> Tensor:
    """The background without the sprite, `[B, C, H, W]`, sRGB in 0..1: one colour or a plane."""
    colour_BC = flat_colours(frames_BCFHW)
    corners_BPC = corners(frames_BCFHW).flatten(1, 3)
    near_BP = (corners_BPC - colour_BC[:, None]).norm(dim=-1) < FLAT_DISTANCE
    is_flat_B = near_BP.float().mean(dim=1) >= FLAT_SHARE
    sides = {side: colour[:, :, None, None] for side, colour in side_colours(frames_BCFHW).items()}
    height, width = frames_BCFHW.shape[-2:]
    down_H1, across_1W = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    plane_BCHW = (sides["top"] + sides["bottom"]) / 2
    plane_BCHW = plane_BCHW + down_H1 * (sides["bottom"] - sides["top"]) / 2
    plane_BCHW = plane_BCHW + across_1W * (sides["right"] - sides["left"]) / 2
    flat_BCHW = colour_BC[:, :, None, None].expand_as(plane_BCHW)
    return torch.where(is_flat_B[:, None, None, None], flat_BCHW, plane_BCHW).clamp(0, 1)


def coverage(frames_BCFHW: Tensor) -> Tensor:
    """How much each pixel belongs to the sprite, `[B, F, H, W]` in 0..1: its distance from the ground."""
    distance_BFHW = (frames_BCFHW.add(1).div(2) - ground(frames_BCFHW).unsqueeze(2)).norm(dim=1)
    return ((distance_BFHW - CLEAR) / (SOLID - CLEAR)).clamp(0, 1)


def corners(frames_BCFHW: Tensor) -> Tensor:
    """The pixels of the four corners, row by row, `[B, 4, F, P, C]`, sRGB in 0..1."""
    deep = max(1, round(CORNER_SHARE * frames_BCFHW.shape[-1]))
    near, far = slice(None, deep), slice(-deep, None)
    parts = [frames_BCFHW[..., rows, columns] for rows in (near, far) for columns in (near, far)]
    pixels = [rearrange(part, "B C F H W -> B F (H W) C") for part in parts]
    return torch.stack(pixels, dim=1).add(1).div(2)
