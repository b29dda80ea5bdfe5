"""Token states of captions, computed once per distinct caption and kept in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.models.text import TextStates


class Encoder(Protocol):
    """What turns captions into states."""

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """States of each prompt, padded to the longest."""


class CaptionCache:
    """A text source for training: looks captions up, encodes the new ones.

    Each is encoded alone: how an encoder rounds depends on what else is in the batch, and a run that goes on
    begins with an empty cache.

    Args:
        encoder: frozen text encoder.
        capacity: distinct captions to keep; the cache starts over when it is full.
    """

    def __init__(self, encoder: Encoder, capacity: int = 60_000) -> None:
        self.encoder, self.capacity = encoder, capacity
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, captions: Sequence[str]) -> TextStates:
        """States of the captions, in order, padded to the longest."""
        distinct = list(dict.fromkeys(captions))
        new = [c for c in distinct if c not in self.kept]
        if len(self.kept) + len(new) > self.capacity:
            self.kept.clear()
            new = distinct  # those of this batch that were kept are gone too
        for caption in new:
            self.kept[caption] = self._encoded(caption)
        found = [self.kept[c] for c in captions]
        longest = max(len(states) for states, _ in found)
        states = torch.stack([F.pad(s.float(), (0, 0, 0, longest - len(s))) for s, _ in found])
        mask = torch.tensor([[i < len(s) for i in range(longest)] for s, _ in found])
        pooled = torch.stack([p.float() for _, p in found])
        return TextStates(states_KLD=states, mask_KL=mask, pooled_KD=pooled)

    def _encoded(self, caption: str) -> tuple[Tensor, Tensor]:
        """Token states `[L, D]` and the pooled state `[D]`."""
        with torch.no_grad():
            states = self.encoder.encode([caption])
        assert states.pooled_KD is not None
        return states.states_KLD[0, : int(states.mask_KL.sum())].half(), states.pooled_KD[0].half()
