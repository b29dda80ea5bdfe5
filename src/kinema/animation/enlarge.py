"""Frames resampled to another size without a network.

Lanczos (three lobes) and bicubic (Catmull-Rom) are Pillow's, on the values as they are stored. Those follow
about how bright a thing looks, so the overshoot beside an edge is as strong on its light side as on its dark
one; in linear light the dark side would ring far more. What overshoots 0..255 is cut off. Colours are
weighted by their alpha meanwhile, so that what is hidden never shows at an edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from PIL import Image

from kinema.core.errors import unknown_name

Rows = tuple[int, int]
Resize = Callable[[np.ndarray, tuple[int, int], Image.Resampling, Rows], np.ndarray]

BAND = 1 << 20  # pixels of the result that are made at a time; with alpha each takes about 60 bytes meanwhile
_REACH = 3  # pixels to each side that Lanczos sees
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}


def enlarged(frame_HWC: np.ndarray, size: tuple[int, int], method: str = "lanczos") -> np.ndarray:
    """A frame at another size; smaller ones are averaged.

    Args:
        frame_HWC: uint8 `[H, W, 3 or 4]`, alpha straight.
        size: (width, height) of the result; for `nearest` whole multiples of the frame's.
        method: `lanczos`, `bicubic`, or `nearest`, which repeats pixels.

    Returns:
        uint8 `[height, width, 3 or 4]`.

    Raises:
        ConfigError: an unknown method.
    """
    height, width, channels = frame_HWC.shape
    if size == (width, height):
        return frame_HWC
    if method == "nearest":
        rows, columns = size[1] // height, size[0] // width
        assert (columns * width, rows * height) == size, f"{width}x{height} does not divide {size}"
        return frame_HWC.repeat(rows, axis=0).repeat(columns, axis=1)
    if method not in FILTERS:
        raise unknown_name("method", method, [*FILTERS, "nearest"])
    resize = _with_alpha if channels == 4 else _resized
    made = np.empty((size[1], size[0], channels), np.uint8)
    step = Fraction(size[1], height).numerator  # rows of the result that begin where rows of the frame do
    rows = max(1, BAND // (size[0] * step)) * step
    for top in range(0, size[1], rows):
        bottom = min(top + rows, size[1])
        made[top:bottom] = _band(frame_HWC, size, (top, bottom), FILTERS[method], resize)
    return made


def _band(
    frame_HWC: np.ndarray,
    size: tuple[int, int],
    band: tuple[int, int],
    resampling: Image.Resampling,
    resize: Resize,
) -> np.ndarray:
    """Some rows of the result, from the rows of the frame that they see: what the whole would have there."""
    height = len(frame_HWC)
    begin, end = (row * height // size[1] for row in band)
    around = math.ceil(_REACH * max(1.0, height / size[1])) + 1
    above = max(0, begin - around)
    part = frame_HWC[above : end + around]
    return resize(part, (size[0], band[1] - band[0]), resampling, (begin - above, end - above))


def _resized(
    values: np.ndarray, size: tuple[int, int], resampling: Image.Resampling, rows: Rows
) -> np.ndarray:
    """Rows first: left to itself, Pillow begins with what is less work, which differs from band to band."""
    across = Image.fromarray(values).resize((size[0], len(values)), resampling)
    return np.asarray(across.resize(size, resampling, (0, rows[0], size[0], rows[1])))


def _with_alpha(
    frame_HWC: np.ndarray, size: tuple[int, int], resampling: Image.Resampling, rows: Rows
) -> np.ndarray:
    alpha_HW = frame_HWC[..., 3].astype(np.float32)
    weighted = [frame_HWC[..., c].astype(np.float32) * alpha_HW for c in range(3)]
    *colours, alpha = (_resized(plane, size, resampling, rows) for plane in (*weighted, alpha_HW))
    # below half a step of alpha nothing is seen, and a colour could not be told
    shown = np.where(alpha >= 0.5, np.stack(colours) / np.maximum(alpha, 0.5), 0)
    return np.stack([*shown, alpha], axis=-1).clip(0, 255).round().astype(np.uint8)
