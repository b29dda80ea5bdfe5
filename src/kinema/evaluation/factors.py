"""Two measures of every factor of a question; a clip's mark is 1 where the measure finds what was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kinema.evaluation.background import matches
from kinema.evaluation.flow import (
    spins,
    turns_by_correlation,
    turns_by_gradients,
    views,
    views_by_correlation,
    views_by_gradients,
)
from kinema.evaluation.identity import IdentityJudge, ranks
from kinema.evaluation.motion import directions
from kinema.evaluation.questions import Question
from kinema.evaluation.shape import (
    backgrounds_by_ring,
    counts_by_columns,
    counts_by_parts,
    directions_by_box,
    extents_by_box,
    extents_by_mass,
    hues_by_mean,
    hues_by_vote,
    places_by_box,
    places_by_mass,
    sizes,
)
from kinema.evaluation.silhouette import Gallery
from kinema.training.scenes import Scene

Marks = dict[str, Tensor]  # by measure, `[B]`, 1 or 0
Reader = Callable[[Tensor], Sequence[object]]


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips `[B, 3, F, H, W]` in -1..1 that answer questions, and those of the plain prompts where asked."""

    asked_BCFHW: Tensor
    plain_BCFHW: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """Who says who is shown: the frozen net, and where the sprites are at hand the gallery of renders."""

    net: IdentityJudge
    gallery: Gallery | None = None


READERS: dict[str, tuple[tuple[str, Reader], tuple[str, Reader], Callable[[Question], object]]] = {
    "sprite colour": (("mean", hues_by_mean), ("vote", hues_by_vote), lambda q: q.prompt.scene.hue),
    "place": (("mass", places_by_mass), ("box", places_by_box), lambda q: q.prompt.scene.place),
    "direction": (("slope", directions), ("box", directions_by_box), lambda q: q.prompt.scene.motion),
    "spin": (
        ("gradients", lambda c: spins(turns_by_gradients(c))),
        ("correlation", lambda c: spins(turns_by_correlation(c))),
        lambda q: q.prompt.scene.motion,
    ),
    "camera": (
        ("gradients", lambda c: views(views_by_gradients(c))),
        ("correlation", lambda c: views(views_by_correlation(c))),
        lambda q: q.prompt.scene.view,
    ),
    "count": (
        ("parts", counts_by_parts),
        ("columns", counts_by_columns),
        lambda q: len(q.prompt.scene.subjects),
    ),
}


@torch.no_grad()
def marks(factor: str, clips: Clips, asked: Sequence[Question], panel: Panel) -> dict[str, Marks]:
    """The marks of a factor, by row of the table ("identity" has two rows), then by measure."""
    if factor == "identity":
        return identities(clips.asked_BCFHW, [question.prompt.scene for question in asked], panel)
    if factor == "background":
        grounds = [question.prompt.scene.background for question in asked]
        ring = torch.tensor(backgrounds_by_ring(clips.asked_BCFHW, grounds))
        return {factor: {"corners": matches(clips.asked_BCFHW, grounds).float(), "ring": ring.float()}}
    if factor == "size":
        return {factor: _size(clips, asked)}
    *readers, wanted = READERS[factor]
    answers = {name: read(clips.asked_BCFHW) for name, read in readers}
    return {
        factor: {
            name: torch.tensor([float(a == wanted(q)) for a, q in zip(found, asked, strict=True)])
            for name, found in answers.items()
        }
    }


def _size(clips: Clips, asked: Sequence[Question]) -> Marks:
    assert clips.plain_BCFHW is not None
    wanted = [question.prompt.scene.size for question in asked]
    found = {
        name: sizes(extent(clips.asked_BCFHW), extent(clips.plain_BCFHW))
        for name, extent in (("mass", extents_by_mass), ("box", extents_by_box))
    }
    return {
        name: torch.tensor([float(a == b) for a, b in zip(answers, wanted, strict=True)])
        for name, answers in found.items()
    }


def identities(clips_BCFHW: Tensor, scenes: Sequence[Scene], panel: Panel) -> dict[str, Marks]:
    """Whether a clip's subject is the judges' first choice, and among their first five."""
    names = [scene.identity.name for scene in scenes]
    found = {"net": panel.net.ranks(fitted(clips_BCFHW, panel.net.net.config.size), names)}
    if panel.gallery is not None:
        size = panel.gallery.bank.size
        nearness = -panel.gallery.distances(fitted(clips_BCFHW, size), scenes)
        found["gallery"] = ranks(nearness, [scene.identity.index for scene in scenes])
    return {f"identity top-{n}": {name: (rank < n).float() for name, rank in found.items()} for n in (1, 5)}


def fitted(clips_BCFHW: Tensor, size: int) -> Tensor:
    """Clips at the size that a judge looks at."""
    if clips_BCFHW.shape[-1] == size:
        return clips_BCFHW
    frames = clips_BCFHW.shape[2]
    return functional.interpolate(clips_BCFHW, (frames, size, size), mode="area")
