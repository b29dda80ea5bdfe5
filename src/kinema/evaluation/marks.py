"""Marks of clips against what was asked for, one per factor, and their summary with 95 % intervals.

A factor's mark is the share of clips that get it right. Identity is measured twice, by a net and by hand; the
lower of the two counts. Motion amount and flicker count as right inside the 5 to 95 % band of real clips
after the codec's round trip, since nothing better can come out of that codec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinema.evaluation.background import matches
from kinema.evaluation.identity import IdentityJudge, ranks
from kinema.evaluation.motion import amounts, directions, flicker
from kinema.evaluation.silhouette import Gallery
from kinema.training.scenes import Scene

RESAMPLES = 2000
NORMAL = 1.959964  # the 97.5 % point of the normal distribution
LEVEL = 1 / 255  # the smallest change that an 8-bit file can hold; flat real backgrounds change by nothing
Band = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Marks:
    """What the judges say about each of B clips; NaN where a factor was not asked for.

    Attributes:
        net_rank: identities that the net finds likelier than the wanted one.
        gallery_rank: identities whose real renders are nearer than the wanted one's.
        background: 1 where every background colour is the named one.
        direction: 1 where the sprite goes the named way, of clips that name one.
        in_place: 1 where the sprite stays, of clips that name no direction.
        amount: mean change from frame to frame.
        flicker: mean change in the corners, which should be background.
    """

    net_rank: NDArray[np.float64]
    gallery_rank: NDArray[np.float64]
    background: NDArray[np.float64]
    direction: NDArray[np.float64]
    in_place: NDArray[np.float64]
    amount: NDArray[np.float64]
    flicker: NDArray[np.float64]

    def select(self, rows: Sequence[int]) -> Marks:
        """The marks of some of the clips."""
        chosen = np.array(rows, dtype=np.int64)
        return Marks(*(getattr(self, field.name)[chosen] for field in fields(self)))


def mark(
    frames_BCFHW: Tensor,
    wanted: Sequence[Scene],
    judge: IdentityJudge,
    gallery: Gallery,
    *,
    shown: Sequence[Scene] | None = None,
) -> Marks:
    """Judge clips in -1..1.

    Args:
        frames_BCFHW: the clips.
        wanted: what each was asked to show.
        judge: the frozen net.
        gallery: real renders, whose bank holds the wanted identities.
        shown: the scenes whose backgrounds the gallery uses, when clips are judged against others' prompts.
    """
    log_BK = judge.log_probabilities(frames_BCFHW)
    net_B = ranks(log_BK, [judge.index(scene.identity.name) for scene in wanted])
    distance_BK = gallery.distances(frames_BCFHW, shown or wanted)
    gallery_B = ranks(-distance_BK, [scene.identity.index for scene in wanted])
    moves = frames_BCFHW.shape[2] > 1
    found = directions(frames_BCFHW) if moves else [None] * len(wanted)
    right = np.array([float(a == scene.motion) for a, scene in zip(found, wanted, strict=True)])
    stays = np.array([scene.motion == "none" for scene in wanted])
    nothing = np.full(len(wanted), np.nan)
    return Marks(
        net_rank=_numbers(net_B),
        gallery_rank=_numbers(gallery_B),
        background=_numbers(matches(frames_BCFHW, [scene.background for scene in wanted])),
        direction=np.where(stays, np.nan, right) if moves else nothing,
        in_place=np.where(stays, right, np.nan) if moves else nothing,
        amount=_numbers(amounts(frames_BCFHW)) if moves else nothing,
        flicker=_numbers(flicker(frames_BCFHW)) if moves else nothing,
    )


def bands(marks: Marks) -> dict[str, Band]:
    """The 5 to 95 % band of motion amount; for flicker all up to its 95 % point, at least `LEVEL`."""
    low, high = np.quantile(marks.amount, [0.05, 0.95])
    most = max(LEVEL, float(np.quantile(marks.flicker, 0.95)))
    return {"amount": (float(low), float(high)), "flicker": (0.0, most)}


def summary(marks: Marks, band: Mapping[str, Band], *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Each factor's share with its 95 % interval over the clips that were asked for it."""
    columns = {
        "identity top-1, net": marks.net_rank < 1,
        "identity top-5, net": marks.net_rank < 5,
        "identity top-1, gallery": marks.gallery_rank < 1,
        "identity top-5, gallery": marks.gallery_rank < 5,
        "background": marks.background,
        "direction": marks.direction,
        "in place": marks.in_place,
    }
    for name, (low, high) in band.items():
        value = getattr(marks, name)
        columns[f"{name} in band"] = np.where(np.isnan(value), np.nan, (value >= low) & (value <= high))
    found = {name: values.astype(np.float64) for name, values in columns.items()}
    asked = {name: values[~np.isnan(values)] for name, values in found.items()}
    return {name: interval(values, seed=seed) for name, values in asked.items() if len(values)}


def interval(values_B: NDArray[np.float64], *, seed: int = 0) -> dict[str, float]:
    """The mean and its 95 % interval: Wilson's where all values are 0 or 1, else a bootstrap over the clips.

    Resampling eight clips that are all right gives all right again, an interval of no width; Wilson's begins
    at 68 % there (https://doi.org/10.1080/01621459.1927.10502953).
    """
    count, mean = len(values_B), float(values_B.mean())
    if np.isin(values_B, (0.0, 1.0)).all():
        inner = 1 + NORMAL**2 / count
        centre = (mean + NORMAL**2 / (2 * count)) / inner
        half = NORMAL * ((mean * (1 - mean) + NORMAL**2 / (4 * count)) / count) ** 0.5 / inner
        # Rounding must not put the ends of the scale outside.
        low, high = min(mean, max(0.0, centre - half)), max(mean, min(1.0, centre + half))
    else:
        rng = np.random.default_rng(seed)
        means = values_B[rng.integers(count, size=(RESAMPLES, count))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return {"mean": mean, "low": low, "high": high, "clips": count}


def psnr(frames_BCFHW: Tensor, target_BCFHW: Tensor) -> float:
    """In dB, errors pooled over everything; frames are in -1..1."""
    error = ((frames_BCFHW - target_BCFHW) / 2).square().mean().clamp_min(1e-10)
    return float(-10 * torch.log10(error))


def _numbers(values_B: Tensor) -> NDArray[np.float64]:
    return values_B.double().numpy()
