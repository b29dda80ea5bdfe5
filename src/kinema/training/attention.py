"""Attention for training on a CPU in bf16: a sample at a time where all logits together leave the cache.

Plain products (`kinema.models.attention.by_blocks`) write a whole batch's logits to memory, several times
over, and again on the way back. Forward and backward of nine clips of 320 tokens, 8 heads of 32, one core:
79 ms by plain products, 76 ms by torch's fused kernel, 37 ms a sample at a time (2-vCPU AMD Zen 4).

Letters beside the package's: H heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kinema.models.attention import CHOSEN, CPU_HALF, FORMS, by_blocks

NAME = "samples"
LARGE = 2**19  # logits of one sample, all heads; fewer than these are faster for the whole batch at once


class SampleAttention(torch.autograd.Function):
    """`softmax(q k^T / sqrt(E)) v`; the probabilities are kept for the way back, as precise as the inputs."""

    @staticmethod
    def forward(ctx: Any, q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor) -> Tensor:
        """`[B, H, N, E]`."""
        q_BHNE = q_BHNE * q_BHNE.shape[-1] ** -0.5
        out_BHNE = torch.empty_like(q_BHNE)
        share_BHNL = q_BHNE.new_empty(*q_BHNE.shape[:3], k_BHLE.shape[2])
        for q, k, v, share, out in zip(q_BHNE, k_BHLE, v_BHLE, share_BHNL, out_BHNE, strict=True):
            share.copy_(torch.softmax(q @ k.mT, dim=-1, dtype=torch.float32))
            torch.matmul(share, v, out=out)
        ctx.save_for_backward(q_BHNE, k_BHLE, v_BHLE, share_BHNL, out_BHNE)
        return out_BHNE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v: with P the probabilities, dS = P (dP - sum(g * out))."""
        q_BHNE, k_BHLE, v_BHLE, share_BHNL, out_BHNE = ctx.saved_tensors
        (grad_BHNE,) = grads
        along_BHN1 = (grad_BHNE.float() * out_BHNE.float()).sum(dim=-1, keepdim=True)
        dq_BHNE, dk_BHLE, dv_BHLE = (torch.empty_like(x) for x in (q_BHNE, k_BHLE, v_BHLE))
        for i, grad in enumerate(grad_BHNE):
            share = share_BHNL[i]
            torch.matmul(share.mT, grad, out=dv_BHLE[i])
            inner = (grad @ v_BHLE[i].mT).float().sub_(along_BHN1[i]).mul_(share).to(share.dtype)
            torch.matmul(inner, k_BHLE[i], out=dq_BHNE[i])
            torch.matmul(inner.mT, q_BHNE[i], out=dk_BHLE[i])
        return dq_BHNE.mul_(q_BHNE.shape[-1] ** -0.5), dk_BHLE, dv_BHLE


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
