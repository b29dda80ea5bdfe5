"""Equal tokens at the end of a text, merged into one whose logits say how many it stands for.

    sum_i exp(q k + b_i) v  over n equal keys k and values v  =  exp(q k + log sum_i exp b_i) v

A text padded to 512 rows with the same row costs cross-attention 512 keys and gives what a few dozen give,
exactly. Where logits are added in half precision, one number cannot say 507 well: then a second row has what
the first leaves over.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.models.dit import Conditioning

KEYS_MULTIPLE = 32
"""On CUDA, keys are filled up to a multiple of this, so that kernels and graphs serve other prompts."""


def condense(given: Conditioning) -> Conditioning:
    """The same texts with each prompt's equal rows at its end merged."""
    states, bias = given.states_BKLD, given.bias_BKL
    cuda = states.device.type == "cuda"
    states, bias = merged(states, bias, half=states.dtype if cuda and states.itemsize == 2 else None)
    if cuda:
        states, bias = padded(states, bias, KEYS_MULTIPLE)
    negative = None if given.negative is None else condense(given.negative)
    return replace(given, states_BKLD=states, bias_BKL=bias, negative=negative)


def merged(
    states_BKLD: Tensor, bias_BKL: Tensor | None, *, half: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """Merge each prompt's equal rows at its end.

    Args:
        states_BKLD: token states of K prompts.
        bias_BKL: log-weight of each token; None when all are 0.
        half: the precision in which biases will be added to logits, when it is not float32.

    Returns:
        States `[B, K, M, D]` and float32 biases `[B, K, M]`, M <= L + 1, that give the same attention;
        the biases are None when all are 0.
    """
    L = states_BKLD.shape[2]
    bias = states_BKLD.new_zeros(states_BKLD.shape[:3], dtype=torch.float32)
    bias = bias if bias_BKL is None else bias_BKL.float()
    same_BKL = (states_BKLD == states_BKLD[:, :, -1:]).all(dim=-1)
    run_BKL = same_BKL.flip(-1).cumprod(dim=-1).flip(-1).bool()  # rows of the run that ends the text
    first_BK = run_BKL.int().argmax(dim=-1)
    total_BK = bias.masked_fill(~run_BKL, -torch.inf).logsumexp(dim=-1)
    place_L = torch.arange(L, device=bias.device)
    bias = torch.where(place_L == first_BK[..., None], total_BK[..., None], bias)
    bias = bias.masked_fill(place_L > first_BK[..., None], -torch.inf)
    kept = int(first_BK.max()) + 1
    states, bias = states_BKLD[:, :, :kept], bias[:, :, :kept]
    if half is not None and not torch.equal(bias, bias.to(half).float()):
        states, bias = _split(states, bias, first_BK, half)
    return states, bias if bool((bias != 0).any()) else None


def _split(
    states_BKMD: Tensor, bias_BKM: Tensor, first_BK: Tensor, half: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Say the merged rows' weights as two numbers that half precision has, one after the other."""
    index = first_BK[..., None]
    total = bias_BKM.gather(-1, index)
    below = (total - total.abs() * torch.finfo(half).eps).to(half).float()
    rest = (total.double().exp() - below.double().exp()).clamp(min=0).log().float()
    bias = torch.cat([bias_BKM.scatter(-1, index, below), rest], dim=-1)
    rows = index[..., None].expand(-1, -1, 1, states_BKMD.shape[-1])
    return torch.cat([states_BKMD, states_BKMD.gather(2, rows)], dim=2), bias


def padded(states_BKLD: Tensor, bias_BKL: Tensor | None, multiple: int) -> tuple[Tensor, Tensor]:
    """Hidden rows at the end up to a multiple, so that texts of about the same length share a shape."""
    shape = states_BKLD.shape[:3]
    bias = states_BKLD.new_zeros(shape, dtype=torch.float32) if bias_BKL is None else bias_BKL
    missing = -shape[2] % multiple
    return F.pad(states_BKLD, (0, 0, 0, missing)), F.pad(bias, (0, missing), value=-torch.inf)
