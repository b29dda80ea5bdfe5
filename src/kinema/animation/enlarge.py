"""Frames resampled to another size without a network.

Lanczos (three lobes) and bicubic (Catmull-Rom) are Pillow's, on the values as they are stored. Those follow
about how bright a thing looks, so the overshoot beside an edge is as strong on its light side as on its dark
one; in linear light the dark side would ring far more. What overshoots 0..255 is cut off. Colours are
weighted by their alpha meanwhile, so that what is hidden never shows at an edge.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from kinema.core.errors import unknown_name

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
    if channels == 4:
        return _with_alpha(frame_HWC, size, FILTERS[method])
    return np.asarray(Image.fromarray(frame_HWC).resize(size, FILTERS[method]))


def _with_alpha(frame_HWC: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    alpha_HW = frame_HWC[..., 3].astype(np.float32)
    weighted = [frame_HWC[..., c].astype(np.float32) * alpha_HW for c in range(3)]
    *colours, alpha = (
        np.asarray(Image.fromarray(plane).resize(size, resampling)) for plane in (*weighted, alpha_HW)
    )
    # below half a step of alpha nothing is seen, and a colour could not be told
    shown = np.where(alpha >= 0.5, np.stack(colours) / np.maximum(alpha, 0.5), 0)
    return np.stack([*shown, alpha], axis=-1).clip(0, 255).round().astype(np.uint8)
