"""A contact sheet: one row per prompt, some frames of each subject's clip side by side, the caption below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

HEAD, CAPTION, GAP = 14, 13, 8
INK, PAPER = (30, 30, 30), (255, 255, 255)


def contact_sheet(columns: Mapping[str, Tensor], captions: Sequence[str], *, shown: int = 5) -> Image.Image:
    """Draw clips.

    Args:
        columns: clips `[B, 3, F, H, W]` in -1..1 by the name that heads their column.
        captions: the prompt of every row.
        shown: at most so many frames of a clip, from its first to its last.
    """
    strips = {name: _strips(clips, shown) for name, clips in columns.items()}
    height, width = next(iter(strips.values())).shape[1:3]
    row = height + CAPTION
    size = (len(strips) * (width + GAP) - GAP, HEAD + len(captions) * row)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, (name, strip_BHWC) in enumerate(strips.items()):
        left = column * (width + GAP)
        draw.text((left, 1), name, fill=INK)
        for index, strip_HWC in enumerate(strip_BHWC):
            sheet.paste(Image.fromarray(strip_HWC), (left, HEAD + index * row))
    for index, text in enumerate(captions):
        draw.text((1, HEAD + index * row + height), text, fill=INK)
    return sheet


def _strips(clips_BCFHW: Tensor, shown: int) -> np.ndarray:
    """Each clip's chosen frames in one row, uint8 `[B, H, W, 3]`."""
    last = clips_BCFHW.shape[2] - 1
    chosen = sorted({round(i * last / max(1, shown - 1)) for i in range(shown)})
    levels = clips_BCFHW[:, :, chosen].clamp(-1, 1).add(1).mul(127.5).round().byte()
    return np.ascontiguousarray(rearrange(levels, "B C F H W -> B H (F W) C").numpy())
