"""Spherical interpolation: the way between two directions that keeps the length on the way.

    slerp(a, b, t) = (sin((1-t) w) a + sin(t w) b) / sin(w),    cos(w) = <a, b> / (|a| |b|)

Standard normal noise lies close to a sphere; a straight mean of two such vectors is shorter by 1 / sqrt(2),
which a network takes for less noise and answers with a blurred picture. Lengths that differ are interpolated
linearly. Which axes make up one vector is the caller's to say: the whole of a picture's noise, but only the
width of a text token.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARALLEL = 1 - 1e-4  # cosine above which the arc is a straight line to the last bits of float32


def slerp(a: Tensor, b: Tensor, t: float | Tensor, *, dims: tuple[int, ...]) -> Tensor:
    """The point at `t` of the way from `a` to `b`.

    Args:
        a, b: of one shape; computed in float32.
        t: 0 gives `a` and 1 gives `b`, bit for bit; a number, or one for each vector (size 1 along `dims`).
        dims: the axes that make up one vector; every vector goes its own way.

    Returns:
        Shaped and typed like `a`. Vectors that are (nearly) parallel, opposite or zero go straight.
    """
    x, y = a.float(), b.float()
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    lengths = [torch.linalg.vector_norm(v, dim=dims, keepdim=True) for v in (x, y)]
    unit_x, unit_y = (v / length.clamp(min=1e-12) for v, length in zip((x, y), lengths, strict=True))
    cosine = (unit_x * unit_y).sum(dim=dims, keepdim=True)
    angle = cosine.clamp(-1, 1).acos()
    arc = (((1 - t) * angle).sin() * unit_x + (t * angle).sin() * unit_y) / angle.sin().clamp(min=1e-12)
    length = (1 - t) * lengths[0] + t * lengths[1]
    straight = (1 - t) * x + t * y
    usable = (cosine.abs() < PARALLEL) & (lengths[0] > 0) & (lengths[1] > 0)
    between = torch.where(usable, arc * length, straight)
    return torch.where(t == 0, x, torch.where(t == 1, y, between)).to(a.dtype)
