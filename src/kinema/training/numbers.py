"""Scenes as plain numbers: all that a renderer needs, small enough to be made by worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from kinema.training.grounds import KINDS
from kinema.training.motions import affine, track, view_track
from kinema.training.scenes import COLOURS, Native, Scene, Subject

ON_CPU = ("present_BS", "scale_BS", "kind_B", "dyed_BS", "filmed_B")
SPEEDS: dict[Native, float] = {"plays": 1.0, "frozen": 0.0, "fast": 2.0, "slow": 0.5}
LUMA = np.array([0.30, 0.59, 0.11])
DYE = 0.85  # share of a dyed sprite's colour that comes from the dye
DARK, LIGHT = 0.35, 1.25  # how bright the dye is where the sprite is black and where it is white


@dataclass(frozen=True, slots=True)
class Numbers:
    """B scenes of F frames with at most S subjects. What decides the course of a render stays on the CPU.

    Attributes:
        present_BS: whether there is such a subject.
        rows_BSF: rows of the table of sprite frames.
        theta_BSF23: maps from screen to sprite coordinates.
        opacity_BSF: 0..1.
        dyed_BS: whether it is dyed.
        dye_BS34: colours from premultiplied colours and coverage; the identity where nothing is dyed.
        scale_BS: smallest width of the sprite over the frame's.
        kind_B, rgb_B2C, turns_B, shift_B: the ground, as `grounds.grounds` takes it.
        view_BF3: the camera.
        filmed_B: whether it moves.
    """

    present_BS: Tensor
    rows_BSF: Tensor
    theta_BSF23: Tensor
    opacity_BSF: Tensor
    dye_BS34: Tensor
    scale_BS: Tensor
    kind_B: Tensor
    rgb_B2C: Tensor
    turns_B: Tensor
    shift_B: Tensor
    view_BF3: Tensor
    dyed_BS: Tensor
    filmed_B: Tensor

    def to(self, device: torch.device | str) -> Numbers:
        """The large numbers on another device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **{name: value for name, value in moved.items() if name not in ON_CPU})

    def part(self, start: int, stop: int) -> Numbers:
        """Some of the scenes."""
        return Numbers(*(getattr(self, f.name)[start:stop] for f in fields(self)))


def dye(hue: str) -> np.ndarray:
    """`[3, 4]`: dyed colour = (1 - DYE) colour + DYE target (DARK coverage + (LIGHT - DARK) luma)."""
    if not hue:
        return np.eye(3, 4)
    target = np.array(COLOURS[hue])
    mixed = (1 - DYE) * np.eye(3) + DYE * (LIGHT - DARK) * np.outer(target, LUMA)
    return np.concatenate([mixed, DYE * DARK * target[:, None]], axis=1)


def numbers(
    scenes: Sequence[Scene], offsets: np.ndarray, lengths: np.ndarray, *, frames: int, rate: float
) -> Numbers:
    """The numbers of scenes.

    Args:
        scenes: what to show.
        offsets: each sprite's first row in the table of frames.
        lengths: each sprite's number of rows.
        frames: of a clip.
        rate: frames of a sprite that pass in one frame of the clip.
    """
    B, S = len(scenes), max(len(scene.subjects) for scene in scenes)
    present = np.zeros((B, S), dtype=bool)
    rows = np.zeros((B, S, frames), dtype=np.int64)
    theta = np.zeros((B, S, frames, 2, 3), dtype=np.float32)
    opacity = np.zeros((B, S, frames), dtype=np.float32)
    dyes = np.zeros((B, S, 3, 4), dtype=np.float32)
    scale = np.ones((B, S), dtype=np.float32)
    views = np.stack([view_track(scene.view, frames) for scene in scenes])
    for b, scene in enumerate(scenes):
        for s, subject in enumerate(scene.subjects):
            path = track(subject, frames)
            present[b, s], opacity[b, s], dyes[b, s] = True, path.opacity_F, dye(subject.hue)
            rows[b, s] = _rows(subject, offsets, lengths, frames, rate)
            theta[b, s] = affine(path, subject.scale, views[b])
            scale[b, s] = subject.scale * (path.size_F * views[b, :, 2]).min()
    grounds = [scene.background for scene in scenes]
    return Numbers(
        present_BS=torch.from_numpy(present),
        rows_BSF=torch.from_numpy(rows),
        theta_BSF23=torch.from_numpy(theta),
        opacity_BSF=torch.from_numpy(opacity),
        dye_BS34=torch.from_numpy(dyes),
        scale_BS=torch.from_numpy(scale),
        kind_B=torch.tensor([KINDS.index(ground.layout) for ground in grounds]),
        rgb_B2C=torch.tensor([[ground.rgb[0], ground.rgb[-1]] for ground in grounds], dtype=torch.float32),
        turns_B=torch.tensor([ground.turns for ground in grounds]),
        shift_B=torch.tensor([ground.shift for ground in grounds]),
        view_BF3=torch.from_numpy(views.astype(np.float32)),
        dyed_BS=torch.from_numpy((dyes != np.eye(3, 4)).any(axis=(2, 3)) & present),
        filmed_B=torch.tensor([scene.view != "still" for scene in scenes]),
    )


def _rows(subject: Subject, offsets: np.ndarray, lengths: np.ndarray, frames: int, rate: float) -> np.ndarray:
    """Rows `[F]` of the table; time wraps around, and a frozen sprite stays where it starts."""
    index = subject.identity.index
    length = int(lengths[index])
    time_F = np.floor(subject.phase * length + rate * SPEEDS[subject.native] * np.arange(frames))
    return offsets[index] + time_F.astype(np.int64) % length
