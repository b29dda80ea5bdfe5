"""Normalized attention guidance: away from a second text, inside cross-attention.

    z = s z+ - (s - 1) z-;   z at most tau times as long as z+, token by token;   alpha z + (1 - alpha) z+

z+ is what a token reads from the prompt, z- what it would read from the negative one; lengths are sums of
absolute values (Chen et al. 2025, https://arxiv.org/abs/2505.21179). It needs no second forward, and acts
where there is no classifier-free guidance: in models that were distilled to few steps.

Letters used here beside the package's: H heads, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.contracts import AttentionGuidance


def away(plus_BHNE: Tensor, minus_BHNE: Tensor, by: AttentionGuidance) -> Tensor:
    """What is read of the prompt, led away from what is read of the negative one; in float32, cast back."""
    plus, minus = plus_BHNE.float(), minus_BHNE.float()
    led = by.scale * plus - (by.scale - 1) * minus
    length, grown = (z.abs().sum(dim=(1, 3), keepdim=True) for z in (plus, led))
    led = led * (by.tau * length / grown.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
    return torch.lerp(plus, led, by.alpha).type_as(plus_BHNE)
