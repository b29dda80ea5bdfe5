"""Linear layers whose matrix is kept in 8 bits, with a scale for each output channel.

    W[o, i] ~ scale[o] code[o, i]

    fp8     code = e4m3(W / scale),    scale[o] = max_i |W[o, i]| / 448
    int8    code = round(W / scale),   scale[o] = max_i |W[o, i]| / 127

`weight` is the matrix that the codes stand for, made anew each time it is asked for, in the layer's own
precision: whoever reads it computes with the same numbers as the layer itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Code = Literal["fp8", "int8"]

PEAKS: Mapping[str, float] = {"fp8": 448.0, "int8": 127.0}
TYPES: Mapping[str, torch.dtype] = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}


def encode(weight_OI: Tensor, code: Code) -> tuple[Tensor, Tensor]:
    """A matrix as codes `[O, I]` and float32 scales `[O, 1]`; a row of zeros has the scale 1."""
    weight_OI = weight_OI.float()
    peak_O1 = weight_OI.abs().amax(dim=1, keepdim=True)
    scale_O1 = torch.where(peak_O1 > 0, peak_O1 / PEAKS[code], torch.ones_like(peak_O1))
    steps_OI = (weight_OI / scale_O1).clamp_(-PEAKS[code], PEAKS[code])
    return (steps_OI.round_() if code == "int8" else steps_OI).to(TYPES[code]), scale_O1


def decode(codes_OI: Tensor, scale_O1: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix that codes stand for; the product is taken in float32 and rounded once."""
    return (codes_OI.float() * scale_O1).to(dtype)


class CodedLinear(nn.Linear):
    """A linear layer with its matrix in 8 bits; the bias is as it was.

    Args:
        width_in, width_out: features.
        bias: whether there is one.
        code: how the matrix is kept.
        dtype: in which the layer computes.
    """

    def __init__(self, width_in: int, width_out: int, *, bias: bool, code: Code, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # Linear's own would make the matrix
        self.in_features, self.out_features, self.code, self.compute = width_in, width_out, code, dtype
        self.codes = nn.Parameter(torch.empty(width_out, width_in, dtype=TYPES[code]), requires_grad=False)
        self.scale = nn.Parameter(torch.empty(width_out, 1), requires_grad=False)
        empty = nn.Parameter(torch.empty(width_out, dtype=dtype), requires_grad=False) if bias else None
        self.register_parameter("bias", empty)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """`[O, I]`, as the layer uses it."""
        return decode(self.codes, self.scale, self.compute)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., I] -> [..., O]`."""
        return F.linear(x, self.weight, self.bias)


def coded(layer: nn.Linear, code: Code, dtype: torch.dtype) -> CodedLinear:
    """A layer of the same shape and bias, for codes that it does not have yet."""
    width_in, width_out, bias = layer.in_features, layer.out_features, layer.bias
    with torch.device("meta"):
        empty = CodedLinear(width_in, width_out, bias=bias is not None, code=code, dtype=dtype)
    empty.bias = bias
    return empty
