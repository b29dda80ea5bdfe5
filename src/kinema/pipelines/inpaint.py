"""Painting inside a clip: which latents are free, and the clip's own pixels where nothing was asked for.

A latent is free when any of its pixels may change, so the frames are put together again by pixels: what the
mask keeps is the clip's, bit for bit, and has not been through the autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.diffusion.kept import Kept
from kinema.diffusion.step import Velocity
from kinema.io.video_read import open_video
from kinema.pipelines.known import source_stream
from kinema.pipelines.masks import Mask
from kinema.pipelines.plan import Plan

Wrapper = Callable[[Velocity], Velocity]

LEAST = 0.5 / 255  # of a mask, from which a pixel changes


def painting(plan: Plan, source_BCTYX: Tensor | None) -> Wrapper:
    """What keeps a plan's clip, whose latents these are, where its mask is closed; nothing without one."""
    if plan.given.mask is None or source_BCTYX is None:
        return unchanged
    return partial(Kept, known_BCTYX=source_BCTYX, open_BTYX=open_latents(plan).to(source_BCTYX))


def unchanged(velocity: Velocity) -> Velocity:
    """All of a clip is free."""
    return velocity


def open_latents(plan: Plan) -> Tensor:
    """`[1, T, Y, X]`, 1 where a latent is free and 0 where it is the clip's."""
    g, mask = plan.geometry, _mask(plan)
    rows = []
    for start, stop in pairwise([*g.group_starts(), g.frames]):
        # frames are asked for in rising order, each once
        open_F1HW = torch.cat([mask.at(frame, _feather(plan)) for frame in range(start, stop)])
        pooled = F.adaptive_max_pool2d(open_F1HW.amax(dim=0, keepdim=True), (g.rows, g.columns))
        rows.append(pooled[:, 0])
    return (torch.stack(rows, dim=1) > LEAST).float()


def restored(plan: Plan, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames of a plan, with the clip's own pixels where its mask is closed; as they are without one."""
    return frames if plan.given.mask is None else _restored(plan, frames)


def _restored(plan: Plan, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    mask = _mask(plan)
    for index, (made, own) in enumerate(zip(frames, source_stream(plan), strict=False)):
        open_HW1 = mask.at(index, _feather(plan))[0, 0, :, :, None].numpy()
        mixed = own + open_HW1 * (made.astype(np.float32) - own)
        yield np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _mask(plan: Plan) -> Mask:
    asked, source = plan.given.mask, plan.given.source
    assert asked is not None, "a plan with a mask"
    assert source is not None, "a mask is of a clip"
    return Mask(plan, asked, next(iter(open_video(source))) if asked.outpaints else None)


def _feather(plan: Plan) -> float:
    assert plan.given.mask is not None
    return plan.given.mask.feather
