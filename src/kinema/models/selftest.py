"""Does attention on this machine compute what it should? Tens of milliseconds against a float64 reference.

Fused kernels differ by build, device, precision and head width, and a wrong one gives black or noisy video
without any error. `settle` keeps those that are right, in the order of their speed; loading a model calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kinema.core.errors import ModelError
from kinema.models import attention
from kinema.models.attention import CHOSEN, preferred

# Largest error allowed on values of size about 1: rounding of the type, with room for the order of sums.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
QUERIES, KEYS, HIDDEN = 300, 65, 15


@dataclass(frozen=True, slots=True)
class Trial:
    """One kernel against the reference.

    Attributes:
        kernel: its name.
        error: the largest, with and without hidden keys; not finite where it gave none or failed.
        bound: allowed.
    """

    kernel: str
    error: float
    bound: float

    @property
    def right(self) -> bool:
        """Whether the kernel may be used."""
        return self.error <= self.bound


def reference(q_BHNE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias_BL: Tensor | None) -> Tensor:
    """Softmax attention as its definition says, in float64 on the CPU."""
    q, k, v = (t.double().cpu() for t in (q_BHNE, k_BHLE, v_BHLE))
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if bias_BL is not None:
        logits = logits + bias_BL.double().cpu()[:, None, None, :]
    return logits.softmax(dim=-1) @ v


def trial(kernel: str, device: torch.device, dtype: torch.dtype, head_width: int = 64) -> Trial:
    """A kernel by name, on more queries than one block of them, with and without hidden keys."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 2, rows, head_width, generator=generator).to(device, dtype)
        for rows in (QUERIES, KEYS, KEYS)
    )
    bias = torch.zeros(1, KEYS, device=device)
    bias[:, -HIDDEN:] = -torch.inf
    error = 0.0
    for given in (None, bias):
        try:
            got = _by(kernel, q, k, v, given)
        except RuntimeError:  # this build or device does not have it
            return Trial(kernel, torch.inf, BOUNDS[dtype])
        gap = (got.double().cpu() - reference(q, k, v, given)).abs().max()
        error = max(error, float(gap) if bool(torch.isfinite(gap)) else torch.inf)
    return Trial(kernel, error, BOUNDS[dtype])


def _by(kernel: str, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention by one kernel alone; a fused one that takes no bias leaves that to the last resort."""
    if kernel in attention.FORMS:
        return attention.FORMS[kernel](q, k, v, bias)
    names = [kernel] if bias is None else [kernel, "math"]
    with torch.nn.attention.sdpa_kernel([attention.BACKENDS[name] for name in names], set_priority=True):
        return attention.by_sdpa(q, k, v, bias)


def settle(device: torch.device, dtype: torch.dtype, head_width: int = 64) -> tuple[Trial, ...]:
    """Try every kernel for a device and a precision once, and let `attend` use those that are right.

    Raises:
        ModelError: none is.
    """
    trials = _trials(device, dtype, head_width)
    right = tuple(t.kernel for t in trials if t.right)
    if not right:
        found = ", ".join(f"{t.kernel} {t.error:.1e}" for t in trials)
        raise ModelError(
            f"attention on {device} in {_name(dtype)} is wrong by more than {BOUNDS[dtype]:.0e} ({found}); "
            "run with --dtype float32 or --device cpu."
        )
    CHOSEN[device.type, dtype] = right
    return trials


@lru_cache
def _trials(device: torch.device, dtype: torch.dtype, head_width: int) -> tuple[Trial, ...]:
    """Until one is right on CPUs; every one on CUDA, where torch goes down the list by itself."""
    trials: list[Trial] = []
    for kernel in preferred(device, dtype):
        trials.append(trial(kernel, device, dtype, head_width))
        if trials[-1].right and device.type != "cuda":
            break
    return tuple(trials)


def findings(device: torch.device) -> Iterator[tuple[str, bool]]:
    """For every precision, which kernel is used and how far the tried ones are off; for people."""
    for dtype in BOUNDS:
        try:
            trials, good = settle(device, dtype), True
        except ModelError:
            trials, good = _trials(device, dtype, 64), False
        used = next((t.kernel for t in trials if t.right), "none is right")
        errors = ", ".join(f"{t.kernel} {t.error:.1e}" for t in trials)
        yield f"{_name(dtype)}: {used} (largest errors: {errors}; allowed {trials[0].bound:.0e})", good


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
