"""Training of the patch codec: principal axes for its encoder, then gradient descent for its decoder."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor

from kinema.models.codec import PatchCodec


class _Moments:
    """Count, sum and sum of outer products of rows, in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.outer = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        self.count += rows.shape[0]
        self.total += rows.double().sum(dim=0)
        self.outer += (rows.T @ rows).double()

    def axes(self, keep: int, *, centred: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Centre (zero when not `centred`), the `keep` largest principal axes `[width, keep]`, deviations along them."""
        centre = self.total / self.count if centred else torch.zeros_like(self.total)
        covariance = self.outer / self.count - torch.outer(centre, centre)
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
        # An axis has no sign of its own: the largest entry is positive, so that every machine fits the same one.
        sign = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
        return centre, vectors * sign, values.clamp_min(0).sqrt()


def fit_linear(codec: PatchCodec, clips: Iterable[Tensor]) -> int:
    """Fit the codec's frozen encoder to data: principal axes of group means, and of deviations from them.

    Single frames (a clip's first) count as means. Deviations keep their zero: a frozen clip has none.

    Args:
        codec: changed in place; its decoder is left alone.
        clips: batches `[B, 3, F, H, W]` in -1..1, F = 1 + a multiple of the codec's group.

    Returns:
        How many patches were seen.
    """
    config = codec.config
    means = _Moments(config.pixels)
    deviations = _Moments(config.time * config.pixels)
    for frames_BCFHW in clips:
        patches = rearrange(
            frames_BCFHW, "b c f (y p) (x q) -> (b y x) f (c p q)", p=config.patch, q=config.patch
        )
        means.add(patches[:, 0])
        for group in patches[:, 1:].split(config.time, dim=1):
            mean = group.mean(dim=1)
            means.add(mean)
            deviations.add(rearrange(group - mean.unsqueeze(1), "n f d -> n (f d)"))
    centre, mean_basis, mean_std = means.axes(config.mean_channels, centred=True)
    _, deviation_basis, deviation_std = deviations.axes(config.deviation_channels, centred=False)
    codec.projection.set_axes(centre, mean_basis, mean_std, deviation_basis, deviation_std)
    return means.count


def vary(frames_BCFHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each clip mirrored, turned over its diagonal, played backwards and recoloured by a coin per clip.

    Colours vary by permuting red, green and blue, so that no axis is spent on the data's favourite hues only.
    """
    clips = []
    for clip_CFHW in frames_BCFHW:
        mirrored, turned, backwards = (torch.rand(3, generator=generator) < 0.5).tolist()
        clip = clip_CFHW[torch.randperm(3, generator=generator)]
        clip = clip.flip(3) if mirrored else clip
        clip = clip.transpose(2, 3) if turned and clip.shape[2] == clip.shape[3] else clip
        clips.append(clip.flip(1) if backwards else clip)
    return torch.stack(clips)
