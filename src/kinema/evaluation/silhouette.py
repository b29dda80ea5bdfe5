"""Who is shown, measured a second way that learns nothing: the nearest real render in DCT space.

    signature = low frequencies of DCT([a, a L, a m, a n])       a: coverage; L, m, n: Oklab

inside a window that is centred on the sprite and as wide as its spread, which takes place and size out. The
gallery holds renders of every identity over the very background that the prompt names, so that what vanishes
into that background vanishes on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from kinema.evaluation.background import coverage, oklab
from kinema.evaluation.motion import centroids
from kinema.training.data import SpriteBank, render
from kinema.training.scenes import Background, Scene

WINDOW, FREQUENCIES, REACH = 32, 10, 2.4
PHASES, FRAMES = 4, 5


def signatures(frames_BCFHW: Tensor) -> Tensor:
    """The signature of every frame, `[B, F, D]`."""
    coverage_BFHW = coverage(frames_BCFHW)
    frames_BFHWC = rearrange(frames_BCFHW.add(1).div(2), "B C F H W -> B F H W C")
    colours_BFCHW = rearrange(oklab(frames_BFHWC), "B F H W C -> B F C H W")
    layers_BFCHW = coverage_BFHW.unsqueeze(2) * functional.pad(colours_BFCHW, (0, 0, 0, 0, 1, 0), value=1.0)
    layers_NCHW = rearrange(layers_BFCHW, "B F C H W -> (B F) C H W")
    grid_NHW2 = functional.affine_grid(
        _windows(coverage_BFHW), [len(layers_NCHW), 4, WINDOW, WINDOW], align_corners=False
    )
    window_NCHW = functional.grid_sample(layers_NCHW, grid_NHW2, align_corners=False)
    basis_KP = _cosines(FREQUENCIES, WINDOW)
    low_NCKL = basis_KP @ window_NCHW @ basis_KP.T
    return rearrange(low_NCKL, "(B F) C K L -> B F (C K L)", F=frames_BCFHW.shape[2])


class Gallery:
    """Real renders of every identity of a bank, made for each scene that is asked about, once.

    Args:
        bank: the sprites; ranks count all of its identities.
    """

    def __init__(self, bank: SpriteBank) -> None:
        self.bank = bank
        self._kept: dict[tuple[Background, float], Tensor] = {}

    def distances(self, frames_BCFHW: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """From each clip to each identity, `[B, identities]`: the mean over frames to the nearest phase."""
        rows = [self._row(clip.unsqueeze(0), scene) for clip, scene in zip(frames_BCFHW, scenes, strict=True)]
        return torch.stack(rows)

    def _row(self, frames_BCFHW: Tensor, scene: Scene) -> Tensor:
        shown_BCFHW = frames_BCFHW[:, :, clearest(coverage(frames_BCFHW)[0])]
        clip_FD = signatures(shown_BCFHW)[0]
        distance_FN = torch.cdist(clip_FD, rearrange(self._renders(scene), "K P D -> (K P) D"))
        distance_FKP = rearrange(distance_FN, "F (K P) -> F K P", P=PHASES)
        return distance_FKP.amin(dim=2).mean(dim=0)

    def _renders(self, scene: Scene) -> Tensor:
        """Signatures `[identities, phases, D]` of whole sprites over the scene's background."""
        key = (scene.background, scene.scale)
        if key not in self._kept:
            base = replace(scene, motion="none", native="frozen", start=(0.0, 0.0), end=(0.0, 0.0))
            phases = [self._at(replace(base, phase=phase / PHASES)) for phase in range(PHASES)]
            self._kept[key] = torch.stack(phases, dim=1)
        return self._kept[key]

    def _at(self, scene: Scene) -> Tensor:
        scenes = [replace(scene, identity=identity) for identity in self.bank.identities]
        stills = render(self.bank, scenes, frames=1, fps=self.bank.fps, size=self.bank.size)
        return signatures(stills)[:, 0]


def clearest(coverage_FHW: Tensor) -> list[int]:
    """The frames, at most `FRAMES`, in which most of the sprite is away from the frame's edge, in order."""
    inner = coverage_FHW[:, 2:-2, 2:-2].sum(dim=(1, 2))
    edge = coverage_FHW.sum(dim=(1, 2)) - inner
    order = (inner - edge).argsort(descending=True, stable=True)
    return sorted(order[:FRAMES].tolist())


def _windows(coverage_BFHW: Tensor) -> Tensor:
    """Maps `[N, 2, 3]` from the window to the frame: centred on the sprite, `REACH` times its spread."""
    centre_NC = rearrange(centroids(coverage_BFHW)[0], "B F C -> (B F) C")
    coverage_NHW = rearrange(coverage_BFHW, "B F H W -> (B F) H W")
    size = coverage_NHW.shape[-1]
    place_S = (torch.arange(size) + 0.5) * 2 / size - 1
    across_NS = coverage_NHW.sum(dim=1) * (place_S - centre_NC[:, :1]).square()
    down_NS = coverage_NHW.sum(dim=2) * (place_S - centre_NC[:, 1:]).square()
    variance_N = (across_NS + down_NS).sum(dim=1) / coverage_NHW.sum(dim=(1, 2)).clamp_min(1e-6)
    half_N = (REACH * (variance_N / 2).sqrt()).clamp_min(0.05)
    theta_N23 = torch.zeros(len(half_N), 2, 3)
    theta_N23[:, 0, 0] = theta_N23[:, 1, 1] = half_N
    theta_N23[:, :, 2] = centre_NC
    return theta_N23


def _cosines(count: int, size: int) -> Tensor:
    """The first rows of the orthonormal DCT-II, `[count, size]`."""
    phase_KP = torch.arange(count)[:, None] * (torch.arange(size) + 0.5) * math.pi / size
    rows_KP = torch.cos(phase_KP) * math.sqrt(2 / size)
    rows_KP[0] /= math.sqrt(2)
    return rows_KP
