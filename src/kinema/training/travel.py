"""Clips that travel: one scene turns into another, and every latent frame reads both captions by its weight.

    frame f        (1 - m) one + m other        with m = w^2 (3 - 2 w), w the other's weight in frame f
    latent frame   captions with weights 1 - w and w, where w is the mean over its pixel frames

It is what prompt travel asks of a model, in the same numbers. A model that only ever saw one subject in a
clip holds on to it, whatever later frames are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from einops import rearrange
from torch import Tensor

WHOLE = 0.5  # share of clips that travel from the first frame to the last; the others do within a part of it


def draw_course(rng: Random, frames: int) -> list[float]:
    """The second caption's weight in each frame: from 0 to 1, evenly, between two moments of the clip."""
    first, last = 0.0, frames - 1.0
    if rng.random() >= WHOLE:
        first, last = sorted(rng.uniform(0, frames - 1) for _ in range(2))
    span = max(last - first, 1e-6)
    return [min(max((frame - first) / span, 0.0), 1.0) for frame in range(frames)]


def others(captions: Sequence[str]) -> list[str]:
    """What each clip of a batch turns into: the next one, and the last into the first."""
    return [*captions[1:], captions[0]]


def dissolve(clips_BCFHW: Tensor, weights_BF: Tensor) -> Tensor:
    """Each clip turned into the next one of the batch.

    Args:
        clips_BCFHW: the scenes by themselves.
        weights_BF: of the next scene.
    """
    mix_BF = weights_BF.square() * (3 - 2 * weights_BF)
    return torch.lerp(clips_BCFHW, clips_BCFHW.roll(-1, dims=0), mix_BF[:, None, :, None, None])


def per_latent(weights_BF: Tensor, group: int, *, first: bool) -> Tensor:
    """Weights over two captions `[B, T, 2]`: means over the pixel frames of each latent frame.

    Args:
        weights_BF: the second caption's.
        group: pixel frames of a latent frame.
        first: the first latent frame stands for one pixel frame, as at the start of a clip.
    """
    groups = weights_BF[:, 1:] if first else weights_BF
    mean_BT = rearrange(groups, "B (T f) -> B T f", f=group).mean(dim=2)
    w_BT = torch.cat([weights_BF[:, :1], mean_BT], dim=1) if first else mean_BT
    return torch.stack([1 - w_BT, w_BT], dim=2)
