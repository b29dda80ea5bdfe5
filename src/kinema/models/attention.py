"""Attention: softmax(q k^T / sqrt(E) + bias) v, by the kernel that is fast and right on this machine.

    sdpa      torch's fused kernel
    blocks    plain products, a block of queries at a time
    plain     the definition, with all logits at once
    cudnn, flash, efficient, math      what torch's fused kernel may run on CUDA, each by name

`PREFERRED` is their order; `selftest.settle` tries them against float64 and leaves in `CHOSEN` what passed.

Letters used here beside the package's: H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

QUERY_BLOCK = 256

_plain: ContextVar[bool] = ContextVar("plain attention", default=False)

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}

Kernel = tuple[str, torch.dtype]
"""A device's type and a precision."""

CPU_HALF = ("cpu", torch.bfloat16)

CHOSEN: dict[Kernel, tuple[str, ...]] = {}
"""Kernels that passed the self-test, best first; a property of the machine, the same for every model."""


def preferred(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """The kernels to try, fastest first."""
    if device.type == "cuda":
        hopper = torch.cuda.get_device_capability(device) >= (9, 0)
        # cuDNN's is written for Hopper; before that, the flash kernel is the faster one.
        return ("cudnn", "flash", "efficient", "math") if hopper else ("flash", "efficient", "cudnn", "math")
    if device.type == "cpu" and dtype == torch.bfloat16:
        return ("blocks", "sdpa", "plain")
    return ("sdpa", "plain")


@contextmanager
def kernels(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """While the block runs, torch's fused kernel is one of the chosen ones, in their order; CUDA only."""
    if device.type != "cuda":
        yield
        return
    names = CHOSEN.get((device.type, dtype)) or preferred(device, dtype)
    with sdpa_kernel([BACKENDS[name] for name in names], set_priority=True):
        yield


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by plain products for as long as the block runs, whatever kernels there are."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def attend(q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias_BL: Tensor | None = None) -> Tensor:
    """Softmax attention; `bias_BL` is added to each key's logits (log of its weight, -inf to hide it)."""
    device, dtype = q_BHNE.device.type, q_BHNE.dtype
    name = CHOSEN.get((device, dtype), ("blocks" if (device, dtype) == CPU_HALF else "sdpa",))[0]
    plain = not torch.compiler.is_compiling() and _plain.get()  # compiled code is never the careful one
    form = by_blocks if plain else FORMS.get(name, by_sdpa)
    return form(q_BHNE, k_BHLE, v_BHLE, bias_BL)


def by_sdpa(q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias_BL: Tensor | None) -> Tensor:
    """By torch's fused kernel."""
    mask = None if bias_BL is None else bias_BL[:, None, None, :].type_as(q_BHNE)
    return F.scaled_dot_product_attention(q_BHNE, k_BHLE, v_BHLE, attn_mask=mask)


def by_blocks(
    q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias_BL: Tensor | None, *, rows: int = QUERY_BLOCK
) -> Tensor:
    """By plain products, `rows` queries at a time.

    torch's fused CPU kernel does not use bf16 dot products: forward and backward of 64 tokens take it 36 ms
    where this takes 8 (32 samples, 8 heads of 32, one core).
    """
    mask = None if bias_BL is None else bias_BL[:, None, None, :].float()
    scale, keys_BHEL = q_BHNE.shape[-1] ** -0.5, k_BHLE.transpose(-1, -2)
    blocks = []
    for q in torch.split(q_BHNE, rows, dim=2):
        logits = torch.matmul(q * scale, keys_BHEL).float()
        logits = logits if mask is None else logits + mask
        blocks.append(torch.matmul(logits.softmax(dim=-1).type_as(v_BHLE), v_BHLE))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)


def by_definition(q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias_BL: Tensor | None) -> Tensor:
    """With all logits at once, in float32: slow and large, but hardly wrong anywhere."""
    rows = max(1, q_BHNE.shape[2])
    return by_blocks(q_BHNE.float(), k_BHLE.float(), v_BHLE.float(), bias_BL, rows=rows).type_as(v_BHLE)


Form = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
FORMS: dict[str, Form] = {"sdpa": by_sdpa, "blocks": by_blocks, "plain": by_definition}
