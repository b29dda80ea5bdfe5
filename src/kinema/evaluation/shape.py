"""Where the sprite is, how large, of which colour, and how many there are; two measures of each.

Everything is read off the coverage (distance from the ground) of a clip over a flat ground or a gradient.
Clips are `[B, 3, F, H, W]` in -1..1; the frame spans -1..1 with y down.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from kinema.evaluation.background import coverage, nearest_names, oklab
from kinema.evaluation.motion import centroids
from kinema.training.full_drawing import HUES
from kinema.training.numbers import DARK, DYE, LIGHT
from kinema.training.scenes import COLOURS, Background, Motion, Place

ASIDE = 0.22  # further from the middle than this is left, right, top or bottom
SOLID = 0.5
SMALLER, BIGGER = 0.8, 1.08  # of the plain sprite's extent
GRID, LEAST_SHARE = 64, 0.006  # for counting: cells, and the smallest share of the frame that is a subject
RING = 0.05  # width of the frame's border over the frame's
TONES = (0.25, 0.6, 0.9)  # brightness of the sprites that a dye is imagined on
LIGHTNESS = 0.5  # weight beside hue: shading is no colour
LEAST_TRAVEL = 0.5


def box(clips_BCFHW: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and sides of the box around what is solid, `[B, F, 2]` each; NaN where nothing is."""
    solid_BFHW = coverage(clips_BCFHW) > SOLID
    size = clips_BCFHW.shape[-1]
    place = (torch.arange(size) + 0.5) * 2 / size - 1
    found = []
    for axis in (2, 3):  # columns that hold something, then rows
        held = solid_BFHW.any(dim=axis)
        low = torch.where(held, place, torch.inf).amin(dim=-1)
        high = torch.where(held, place, -torch.inf).amax(dim=-1)
        found.append((low, high))
    ends = torch.stack([torch.stack(pair, dim=-1) for pair in found], dim=-1)  # [B, F, low high, x y]
    ends = torch.where(ends.isfinite(), ends, torch.nan)
    return ends.mean(dim=2), ends[:, :, 1] - ends[:, :, 0]


def place_of(x: float, y: float) -> Place:
    """The cell of the 3 x 3 grid."""
    across = "left" if x < -ASIDE else "right" if x > ASIDE else ""
    down = "top" if y < -ASIDE else "bottom" if y > ASIDE else ""
    name = f"{down} {across}".strip() or "middle"
    return name  # type: ignore[return-value]


def places_by_mass(clips_BCFHW: Tensor) -> list[Place]:
    """By the centre of mass."""
    centre_BF2, area_BF = centroids(coverage(clips_BCFHW))
    weight = (area_BF / area_BF.sum(dim=1, keepdim=True).clamp_min(1e-6))[..., None]
    return [place_of(x, y) for x, y in (weight * centre_BF2).sum(dim=1).tolist()]


def places_by_box(clips_BCFHW: Tensor) -> list[Place]:
    """By the middle of the box."""
    return [place_of(x, y) for x, y in box(clips_BCFHW)[0].nanmedian(dim=1).values.tolist()]


def extents_by_mass(clips_BCFHW: Tensor) -> Tensor:
    """The side of a square of the covered area, `[B]`; the median over frames."""
    return coverage(clips_BCFHW).mean(dim=(2, 3)).sqrt().median(dim=1).values


def extents_by_box(clips_BCFHW: Tensor) -> Tensor:
    """The geometric mean of the box's sides, `[B]`; the median over frames."""
    return box(clips_BCFHW)[1].prod(dim=-1).sqrt().nanmedian(dim=1).values


def sizes(extent_B: Tensor, plain_B: Tensor) -> list[str]:
    """Small, big or normal, beside the same sprite without a word about its size."""
    ratios = (extent_B / plain_B.clamp_min(1e-6)).tolist()
    return ["small" if r < SMALLER else "big" if r > BIGGER else "normal" for r in ratios]


def hues_by_mean(clips_BCFHW: Tensor) -> list[str]:
    """The name nearest to the mean colour of what is solid."""
    solid, lab = _solid_colours(clips_BCFHW)
    mean_BC = (lab * solid[..., None]).sum(dim=1) / solid.sum(dim=1, keepdim=True).clamp_min(1)
    nearest = torch.cdist(mean_BC, _references()).argmin(dim=1) // len(TONES)
    return [HUES[i] for i in nearest.tolist()]


def hues_by_vote(clips_BCFHW: Tensor) -> list[str]:
    """The name that most of the solid pixels are nearest to."""
    solid, lab = _solid_colours(clips_BCFHW)
    nearest = torch.cdist(lab, _references().expand(len(lab), -1, -1)).argmin(dim=2) // len(TONES)
    votes = torch.zeros(len(lab), len(HUES)).scatter_add(1, nearest, solid)
    return [HUES[i] for i in votes.argmax(dim=1).tolist()]


def _solid_colours(clips_BCFHW: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each pixel is solid `[B, P]`, and its colour `[B, P, 3]`; of a third of the frames."""
    some = clips_BCFHW[:, :, ::3]
    solid = rearrange(coverage(some) > SOLID, "B F H W -> B (F H W)").float()
    return solid, _weighted(rearrange(some, "B C F H W -> B (F H W) C").add(1).div(2))


def _references() -> Tensor:
    """What each dye makes of each tone, `[hues * tones, 3]`."""
    target_K1C = torch.tensor([COLOURS[name] for name in HUES])[:, None]
    tone_T1 = torch.tensor(TONES)[:, None]
    dyed = (1 - DYE) * tone_T1 + DYE * (DARK + (LIGHT - DARK) * tone_T1) * target_K1C
    return _weighted(dyed.flatten(0, 1))


def _weighted(colours: Tensor) -> Tensor:
    """Oklab with less weight on lightness."""
    return torch.tensor([LIGHTNESS, 1.0, 1.0]) * oklab(colours)


def counts_by_parts(clips_BCFHW: Tensor) -> list[int]:
    """Connected parts of the coverage's mean over time, specks left out."""
    held_BHW = _cells(clips_BCFHW) > 0.4
    cells = torch.arange(1.0, GRID * GRID + 1).view(1, 1, GRID, GRID) * held_BHW[:, None]
    for _ in range(2 * GRID):  # the largest number floods its part
        cells = functional.max_pool2d(cells, 3, 1, 1) * held_BHW[:, None]
    least = LEAST_SHARE * GRID * GRID
    return [
        sum(int((c == label).sum()) > least for label in set(c[c > 0].tolist())) for c in cells.flatten(1)
    ]


def counts_by_columns(clips_BCFHW: Tensor) -> list[int]:
    """Hills of the coverage along the row, between valleys of a fifth of the highest."""
    column_BX = _cells(clips_BCFHW).sum(dim=1)
    column_BX = functional.avg_pool1d(column_BX[:, None], 3, 1, 1)[:, 0]
    high_BX = functional.pad((column_BX > 0.2 * column_BX.amax(dim=1, keepdim=True)).int(), (1, 1))
    return [int((row.diff() == 1).sum()) for row in high_BX]


def _cells(clips_BCFHW: Tensor) -> Tensor:
    """Mean coverage over time on a coarse grid, `[B, GRID, GRID]`."""
    return functional.adaptive_avg_pool2d(coverage(clips_BCFHW).mean(dim=1), GRID)


def directions_by_box(clips_BCFHW: Tensor) -> list[Motion]:
    """Where the box goes from the first frames to the last."""
    centre_BF2 = box(clips_BCFHW)[0]
    some = max(1, clips_BCFHW.shape[2] // 4)
    travel = centre_BF2[:, -some:].nanmean(dim=1) - centre_BF2[:, :some].nanmean(dim=1)
    return [_direction(x, y) for x, y in travel.nan_to_num(0.0).tolist()]


def _direction(x: float, y: float) -> Motion:
    if max(abs(x), abs(y)) < LEAST_TRAVEL:
        return "none"
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def backgrounds_by_ring(clips_BCFHW: Tensor, wanted: list[Background]) -> list[bool]:
    """Whether the frame's outermost pixels show the named colours: their modes, side by side."""
    deep = max(1, round(RING * clips_BCFHW.shape[-1]))
    pixels = clips_BCFHW.add(1).div(2)
    sides = {
        "top": pixels[..., :deep, :],
        "bottom": pixels[..., -deep:, :],
        "left": pixels[..., :deep],
        "right": pixels[..., -deep:],
    }
    votes = {side: _most(rearrange(part, "B C F H W -> B (F H W) C")) for side, part in sides.items()}
    ends = {"vertical": ("top", "bottom"), "horizontal": ("left", "right")}
    right = []
    for i, ground in enumerate(wanted):
        if ground.layout in ends:
            right.append(tuple(votes[side][i] for side in ends[ground.layout]) == ground.names)
        else:
            seen = [votes[side][i] for side in sides]
            right.append(seen.count(ground.names[0]) >= 3)
    return right


def _most(colours_BPC: Tensor) -> list[str]:
    """The name that most of the colours are nearest to."""
    found = []
    for colours_PC in colours_BPC:
        names = nearest_names(oklab(colours_PC[:: max(1, len(colours_PC) // 600)]))
        found.append(max(sorted(set(names)), key=names.count))
    return found
