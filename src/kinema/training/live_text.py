"""Token states for batches on a GPU: encoded anew each step, padded to few lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from kinema.models.text import EmbeddedTextEncoder, TextStates

LENGTH = 48  # tokens; a caption of every factor has about thirty


class LiveText:
    """A text source for training on a GPU, where a batch of captions takes milliseconds.

    Args:
        encoder: frozen, on the device.
    """

    def __init__(self, encoder: EmbeddedTextEncoder) -> None:
        self.encoder = encoder

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> TextStates:
        """States of the captions, in order, padded to a multiple of `LENGTH`."""
        states = self.encoder.encode(captions)
        missing = -states.mask_KL.shape[1] % LENGTH
        return replace(
            states,
            states_KLD=F.pad(states.states_KLD, (0, 0, 0, missing)),
            mask_KL=F.pad(states.mask_KL, (0, missing)),
            bias_KL=None if states.bias_KL is None else F.pad(states.bias_KL, (0, missing)),
        )
