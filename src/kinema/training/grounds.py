"""What lies behind, at any place of the world: two colours and how they share it.

ground = (1 - m) first + m last,   m = pattern((screen - d) / z) in 0..1
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kinema.training.scenes import Layout

Pattern = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
EDGE = 14.0  # steepness of a pattern's edges
WAVES = ((1, 2, 5), (2, -1, 7), (3, 1, 11), (-2, 3, 13), (1, -3, 17))  # of clouds: along x, along y, phase


def _columns(u: Tensor, v: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    return torch.sigmoid(EDGE * torch.sin(2 * math.pi * (turns * u + shift)))


def _rows(u: Tensor, v: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    return _columns(v, u, turns, shift)


def _slanted(u: Tensor, v: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    return _columns((u + v) * math.sqrt(0.5), v, turns, shift)


def _checks(u: Tensor, v: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    across, down = (torch.sin(math.pi * (turns * w + shift)) for w in (u, v))
    return torch.sigmoid(3 * EDGE * across * down)


def _dots(u: Tensor, v: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    across, down = ((turns * w + shift).remainder(1) - 0.5 for w in (u, v))
    return torch.sigmoid(2 * EDGE * (0.27 - torch.sqrt(across.square() + down.square())))


def _clouds(u: Tensor, v: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    waves = [torch.sin(math.pi * (turns / 3 * (a * u + b * v)) + 6.283 * c * shift) for a, b, c in WAVES]
    return torch.sigmoid(1.5 * torch.stack(waves).sum(dim=0))


def _horizon(u: Tensor, v: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    return torch.sigmoid(6 * EDGE * (v - shift))


PATTERN: dict[Layout, Pattern] = {
    "flat": lambda u, v, turns, shift: torch.zeros_like(u),
    "vertical": lambda u, v, turns, shift: v.clamp(0, 1),
    "horizontal": lambda u, v, turns, shift: u.clamp(0, 1),
    "columns": _columns,
    "rows": _rows,
    "slanted": _slanted,
    "checks": _checks,
    "dots": _dots,
    "clouds": _clouds,
    "horizon": _horizon,
}
RAMPS = ("vertical", "horizontal")  # reach their colours at the outermost pixels
KINDS: tuple[Layout, ...] = tuple(PATTERN)


def grounds(
    kind_B: Tensor, rgb_B2C: Tensor, turns_B: Tensor, shift_B: Tensor, view_BF3: Tensor, size: int
) -> Tensor:
    """Grounds `[B, 3, F, H, W]`, sRGB in 0..1.

    Args:
        kind_B: places in `KINDS`.
        rgb_B2C: first and last colour.
        turns_B: repetitions of a pattern.
        shift_B: where it starts.
        view_BF3: the camera: shift right, shift down, zoom.
        size: height and width in pixels.
    """
    line = (torch.arange(size, device=rgb_B2C.device) + 0.5) * (2 / size) - 1
    dx, dy, zoom = (view_BF3[..., i, None, None] for i in range(3))
    u_BFHW = ((line - dx) / zoom + 1) / 2
    v_BFHW = ((line[:, None] - dy) / zoom + 1) / 2
    u_BFHW, v_BFHW = u_BFHW + 0 * v_BFHW, v_BFHW + 0 * u_BFHW
    share_BFHW = torch.empty(u_BFHW.shape, device=u_BFHW.device)
    for number in sorted(set(kind_B.tolist())):
        chosen = (kind_B == number).nonzero()[:, 0]
        turns, shift = (value[chosen, None, None, None] for value in (turns_B, shift_B))
        u, v = u_BFHW[chosen], v_BFHW[chosen]
        if KINDS[number] in RAMPS:
            u, v = (0.5 + (w - 0.5) * size / max(1, size - 1) for w in (u, v))
        share_BFHW[chosen] = PATTERN[KINDS[number]](u, v, turns, shift)
    first, last = (rgb_B2C[:, i, :, None, None, None] for i in (0, 1))
    return torch.lerp(first, last, share_BFHW[:, None])
