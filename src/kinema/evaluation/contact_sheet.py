"""A contact sheet: one row per prompt, some frames of each subject's clip side by side, the caption below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

HEAD, CAPTION, GAP = 14, 13, 8
LETTER = 6  # pixels of a letter of Pillow's built-in font, about
LEAST_WIDTH = 360  # pixels that captions need
INK, PAPER = (30, 30, 30), (255, 255, 255)


def contact_sheet(columns: Mapping[str, Tensor], captions: Sequence[str], *, shown: int = 5) -> Image.Image:
    """Draw clips, in as many blocks of rows side by side as make the sheet about square.

    Args:
        columns: clips `[B, 3, F, H, W]` in -1..1 by the name that heads their column.
        captions: the prompt of every row.
        shown: at most so many frames of a clip, from its first to its last.
    """
    strips = {name: _strips(clips, shown) for name, clips in columns.items()}
    height, width = next(iter(strips.values())).shape[1:3]
    block = max(LEAST_WIDTH, len(strips) * (width + GAP))
    row, count = height + CAPTION, len(captions)
    blocks = max(1, round(math.sqrt(count * row / block)))
    rows = math.ceil(count / blocks)
    sheet = Image.new("RGB", (blocks * block, HEAD + rows * row), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, text in enumerate(captions):
        left, top = index // rows * block, HEAD + index % rows * row
        draw.text((left + 1, top + height), text[: block // LETTER], fill=INK)
        for column, (name, strip_BHWC) in enumerate(strips.items()):
            place = left + column * (width + GAP)
            sheet.paste(Image.fromarray(strip_BHWC[index]), (place, top))
            if index % rows == 0:
                draw.text((place, 1), name, fill=INK)
    return sheet


def _strips(clips_BCFHW: Tensor, shown: int) -> np.ndarray:
    """Each clip's chosen frames in one row, uint8 `[B, H, W, 3]`."""
    last = clips_BCFHW.shape[2] - 1
    chosen = sorted({round(i * last / max(1, shown - 1)) for i in range(shown)})
    levels = clips_BCFHW[:, :, chosen].clamp(-1, 1).add(1).mul(127.5).round().byte()
    return np.ascontiguousarray(rearrange(levels, "B C F H W -> B H (F W) C").numpy())
