"""Does attention on this machine compute what it should? Tens of milliseconds against a float64 reference.

Fused kernels differ by build, device and precision, and a wrong one gives black or noisy video without any
error.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kinema.models.layers import attend

# Largest error allowed on values of size about 1: rounding of the type, with room for the order of sums.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


def reference(q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias_BL: Tensor | None) -> Tensor:
    """Softmax attention as its definition says, in float64 on the CPU."""
    q, k, v = (t.double().cpu() for t in (q_BHNE, k_BHLE, v_BHLE))
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if bias_BL is not None:
        logits = logits + bias_BL.double().cpu()[:, None, None, :]
    return logits.softmax(dim=-1) @ v


def attention_errors(device: torch.device) -> Iterator[tuple[str, float, float]]:
    """Name, largest error and allowed error of every case: each precision, with and without hidden keys."""
    generator = torch.Generator().manual_seed(0)
    for dtype, bound in BOUNDS.items():
        for hidden in (False, True):
            q, k, v = (torch.randn(1, 2, 65, 64, generator=generator).to(device, dtype) for _ in range(3))
            bias = torch.zeros(1, 65, device=device)
            bias[:, 50:] = float("-inf")
            given = bias if hidden else None
            error = (attend(q, k, v, given).double().cpu() - reference(q, k, v, given)).abs().max()
            yield f"{str(dtype).removeprefix('torch.')}{', masked' if hidden else ''}", float(error), bound
