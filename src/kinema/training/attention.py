"""Attention for training on a CPU in bf16: a sample or less at a time where all logits leave the cache.

Plain products (`kinema.models.attention.by_blocks`) write a whole batch's logits to memory, several times
over, and again on the way back. Forward and backward of nine clips of 320 tokens, 8 heads of 32, one core:
79 ms by plain products, 76 ms by torch's fused kernel, 37 ms a sample at a time (2-vCPU AMD Zen 4).

Letters beside the package's: H heads, E width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kinema.models.attention import CHOSEN, CPU_HALF, FORMS, by_blocks

NAME = "samples"
LARGE = 2**19  # logits of one sample, all heads; fewer than these are faster for the whole batch at once
BLOCK = 2**20  # logits at once


class SampleAttention(torch.autograd.Function):
    """`softmax(q k^T / sqrt(E)) v`; the probabilities are kept for the way back, as precise as the inputs."""

    @staticmethod
    def forward(ctx: Any, q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor) -> Tensor:
        """`[B, H, N, E]`."""
        q_BHNE = q_BHNE * q_BHNE.shape[-1] ** -0.5
        share_BHNL = q_BHNE.new_empty(*q_BHNE.shape[:3], k_BHLE.shape[2])
        out_BHNE = torch.empty_like(q_BHNE)
        for i, share_HNL in enumerate(share_BHNL):
            for rows in blocks(share_HNL):
                logits = q_BHNE[i, :, rows] @ k_BHLE[i].mT
                share_HNL[:, rows] = torch.softmax(logits, dim=-1, dtype=torch.float32)
                out_BHNE[i, :, rows] = share_HNL[:, rows] @ v_BHLE[i]
        ctx.save_for_backward(q_BHNE, k_BHLE, v_BHLE, share_BHNL, out_BHNE)
        return out_BHNE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v: with P the probabilities, dS = P (dP - sum(g * out))."""
        q_BHNE, k_BHLE, v_BHLE, share_BHNL, out_BHNE = ctx.saved_tensors
        (grad_BHNE,) = grads
        along_BHN1 = (grad_BHNE.float() * out_BHNE.float()).sum(dim=-1, keepdim=True)
        dq_BHNE, dk_BHLE, dv_BHLE = (torch.empty_like(x) for x in (q_BHNE, k_BHLE, v_BHLE))
        inner_HNL = torch.empty_like(share_BHNL[0])
        for i, share_HNL in enumerate(share_BHNL):
            for rows in blocks(share_HNL):
                inner = (grad_BHNE[i, :, rows] @ v_BHLE[i].mT).float().sub_(along_BHN1[i, :, rows])
                inner_HNL[:, rows] = inner.mul_(share_HNL[:, rows])
            dq_BHNE[i] = inner_HNL @ k_BHLE[i]
            dk_BHLE[i] = inner_HNL.mT @ q_BHNE[i]
            dv_BHLE[i] = share_HNL.mT @ grad_BHNE[i]
        return dq_BHNE.mul_(q_BHNE.shape[-1] ** -0.5), dk_BHLE, dv_BHLE


def blocks(logits_HNL: Tensor) -> list[slice]:
    """Rows of queries whose logits, all heads together, stay in the cache."""
    H, N, L = logits_HNL.shape
    rows = math.ceil(N / math.ceil(H * N * L / BLOCK))
    return [slice(first, first + rows) for first in range(0, N, rows)]


def by_samples(q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias_BL: Tensor | None) -> Tensor:
    """A sample at a time where that is faster, plain products elsewhere."""
    logits = q_BHNE.shape[1] * q_BHNE.shape[2] * k_BHLE.shape[2]
    if bias_BL is not None or logits < LARGE:
        return by_blocks(q_BHNE, k_BHLE, v_BHLE, bias_BL)
    out: Tensor = SampleAttention.apply(q_BHNE, k_BHLE, v_BHLE)  # type: ignore[no-untyped-call]
    return out


def attend_by_samples() -> None:
    """From now on, bf16 attention of this process on a CPU is `by_samples`."""
    FORMS[NAME] = by_samples
    CHOSEN[CPU_HALF] = (NAME,)
