"""Rotary positions as inference applies them: norm and rotation of queries and keys in two passes.

    y_n = w x_n / rms(x_n), turned by angle_n          rms over all heads together

On the CPU neighbouring channels are one complex number, the norm's factor is part of the rotation, and a
table of N x E/2 numbers serves every block and step. Compiled code turns pairs of real numbers instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinema.models.layers import rotary_table, rotate

TABLES_KEPT = 8


@lru_cache(TABLES_KEPT)
def _angles(
    head_width: int, grid_TYX: tuple[int, int, int], device: torch.device, *, complex_numbers: bool
) -> tuple[Tensor, ...]:
    """Of every token, as one complex table, or as cosines and sines; `[N, E / 2]` each."""
    with torch.inference_mode(False):
        angle_NE = rotary_table(head_width, grid_TYX)
        if complex_numbers:
            return (torch.polar(torch.ones_like(angle_NE), angle_NE).to(device),)
        return (angle_NE.cos().to(device), angle_NE.sin().to(device))


@dataclass(frozen=True, slots=True)
class Turn:
    """Normalises and turns queries or keys.

    Attributes:
        complex_numbers: whether channel pairs are complex numbers, or pairs of real ones.
    """

    complex_numbers: bool

    def table(
        self, head_width: int, grid_TYX: tuple[int, int, int], device: torch.device
    ) -> tuple[Tensor, ...]:
        """The angles of a grid of tokens, in this form; made once per shape."""
        return _angles(head_width, grid_TYX, device, complex_numbers=self.complex_numbers)

    def __call__(
        self, x_BND: Tensor, weight_D: Tensor, eps: float, heads: int, table: tuple[Tensor, ...]
    ) -> Tensor:
        """`[B, N, D] -> [B, H, N, E]`, in the type of `x_BND`."""
        if not self.complex_numbers:
            normed = F.rms_norm(x_BND, x_BND.shape[-1:], weight_D, eps)
            return rotate(rearrange(normed, "B N (H E) -> B H N E", H=heads), *table)
        wide_BND = x_BND.float()
        length_BN1 = torch.linalg.vector_norm(wide_BND, dim=-1, keepdim=True)
        factor_BN1 = torch.rsqrt(length_BN1.square() / x_BND.shape[-1] + eps)
        pairs = rearrange(wide_BND * weight_D, "B N (H E two) -> B N H E two", H=heads, two=2)
        turn_BN1E = rearrange(table[0] * factor_BN1, "B N E -> B N 1 E")
        turned = torch.view_as_real(torch.view_as_complex(pairs).mul_(turn_BN1E))
        return rearrange(turned, "B N H E two -> B H N (E two)").type_as(x_BND)


def turn_for(device: torch.device, *, complex_numbers: bool) -> Turn:
    """The form for a device."""
    return Turn(complex_numbers and device.type == "cpu")
