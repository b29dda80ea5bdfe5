"""What is known of a clip before it is sampled, as latents: pictures, a clip to make over, one to go on from.

A picture is coded as a first frame, or as a group of equal frames inside the clip; a clip that goes on is
carried as latents and never passes through pixels again while they are at hand.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from kinema.core.errors import MediaError
from kinema.io.clip import Clip
from kinema.io.image import fit_image, read_image
from kinema.io.reader import resample
from kinema.io.video_read import open_video
from kinema.pipelines.carried import carried_frames
from kinema.pipelines.given import HeldImage
from kinema.pipelines.model import Model, require_image_encoder
from kinema.pipelines.plan import Plan
from kinema.story.shot import PREVIOUS


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """The end of a clip that is extended.

    Attributes:
        latents_BCTYX: its last latent frames; the decoder starts with them.
        held: how many of them, from the end, the transformer sees.
        frames: pixel frames that they decode to, which were shown already.
    """

    latents_BCTYX: Tensor
    held: int
    frames: int


def to_pixels(frames_FHWC: Iterable[np.ndarray], device: torch.device) -> Tensor:
    """uint8 frames `[H, W, 3]` as float32 `[1, 3, F, H, W]` in -1..1."""
    stacked = torch.from_numpy(np.stack(list(frames_FHWC)))
    pixels: Tensor = rearrange(stacked, "F H W C -> 1 C F H W").to(device).float() / 127.5 - 1
    return pixels


def read_held(held: HeldImage, previous: Clip | None) -> np.ndarray:
    """A held picture as it is, uint8 `[H, W, 3 or 4]`: from its file, or the end of the shot before."""
    if held.image != PREVIOUS:
        return read_image(held.image)
    assert previous is not None, "a storyboard's first shot matches no other"
    last: np.ndarray = previous.array()[-1]
    return last


def picture(held: HeldImage, plan: Plan, previous: Clip | None) -> np.ndarray:
    """A held picture at the plan's size, uint8 `[H, W, 3]`."""
    return fit_image(read_held(held, previous), plan.geometry.width, plan.geometry.height, plan.given.fit)


def picture_latent(held: HeldImage, plan: Plan, model: Model, previous: Clip | None) -> Tensor:
    """`[1, C, Y, X]` of a held picture at its place."""
    frames = 1 if held.latent == 0 and plan.geometry.lone else 1 + model.card.stride.time
    pixels = to_pixels([picture(held, plan, previous)], model.device)
    return model.vae.encode(repeat(pixels, "B C 1 H W -> B C F H W", F=frames))[:, :, -1]


def source_stream(plan: Plan) -> Iterator[np.ndarray]:
    """The clip to make over at the plan's size, rate and length, uint8 `[H, W, 3]` each; a short one stays
    on its last frame.
    """
    assert plan.given.source is not None
    g, frame = plan.geometry, None
    rate, count = Fraction(g.fps), 0
    for there in islice(resample(open_video(plan.given.source, still_fps=rate), rate), g.frames):
        frame, count = fit_image(there, g.width, g.height, plan.given.fit), count + 1
        yield frame
    if frame is None:
        raise MediaError(f"{plan.given.source} has no frames; give a clip with one at least.")
    yield from itertools.repeat(frame, g.frames - count)


def source_frames(plan: Plan) -> list[np.ndarray]:
    """All of `source_stream`."""
    return list(source_stream(plan))


def source_latents(plan: Plan, model: Model) -> Tensor:
    """The latents of the clip to make over."""
    return encoded((to_pixels([frame], model.device) for frame in source_stream(plan)), plan, model)


def encoded(frames_BC1HW: Iterable[Tensor], plan: Plan, model: Model) -> Tensor:
    """`[1, C, T, Y, X]` of every frame of the plan, `[1, 3, 1, H, W]` each in -1..1.

    Frames are asked for as they are encoded: a few are in memory at a time, of a loop all.
    """
    g, time = plan.geometry, model.card.stride.time
    if not g.loop:
        return model.vae.encode_parts(_parts(frames_BC1HW, time))
    # the encoder, too, comes to a loop's first frame from its end
    before, around = model.card.stride.pixel_frames(1 + model.vae.memory), list(frames_BC1HW)
    places = (around[place % g.frames] for place in range(-before, g.frames))
    return model.vae.encode_parts(_parts(places, time))[:, :, -g.latent_frames :]


def _parts(frames_BC1HW: Iterable[Tensor], time: int) -> Iterator[Tensor]:
    """The first frame alone, then `time` frames together."""
    source, count = iter(frames_BC1HW), 1
    while part := list(islice(source, count)):
        yield torch.cat(part, dim=2)
        count = time


def tail_of(plan: Plan, model: Model, previous: Clip | None) -> Tail | None:
    """The end of the clip that the plan extends; None for a plan that extends nothing.

    Twice the held frames are kept, so that the decoder has seen some of the clip before the first new frame.
    """
    if plan.given.extend is None:
        return None
    time, most = model.card.stride.time, 2 * plan.geometry.context
    carried = carried_frames(plan) if plan.given.extend != PREVIOUS else previous
    assert carried is not None, "a storyboard's first shot extends no other"
    if isinstance(carried, Clip) and carried.latents is not None:
        latents = carried.latents.to(model.device)[:, :, -most:]
    else:
        frames = list(deque(carried, maxlen=1 + time * (most - 1)))
        kept = frames[(len(frames) - 1) % time :]
        latents = model.vae.encode(to_pixels([frame[..., :3] for frame in kept], model.device))
    count = latents.shape[2]
    return Tail(latents, min(plan.geometry.context, count), model.card.stride.pixel_frames(count))


def mask_channels(plan: Plan, model: Model, previous: Clip | None = None) -> Tensor:
    """Wan I2V and FLF2V: 4 mask channels (a pixel frame of a latent group each), then the latents of a clip
    that shows the pictures where they are and mid-gray elsewhere.
    """
    g = plan.geometry
    gray = torch.zeros(1, 3, 1, g.height, g.width, device=model.device)
    shown: dict[int, Tensor] = {}
    mask_F = torch.zeros(g.frames, device=model.device)
    for held in plan.given.held:
        shown[held.frame] = to_pixels([picture(held, plan, previous)], model.device)
        mask_F[held.frame] = 1
    padded_F = torch.cat([mask_F[:1].expand(g.time), mask_F[1:]])
    mask = repeat(padded_F, "(T c) -> 1 c T Y X", c=g.time, Y=g.rows, X=g.columns)
    frames = (shown.get(frame, gray) for frame in range(g.frames))
    return torch.cat([mask, model.vae.encode_parts(_parts(frames, g.time))], dim=1)


def image_tokens(held: Sequence[HeldImage], model: Model, previous: Clip | None = None) -> Tensor | None:
    """CLIP tokens of the pictures as they are on disk, in one row; None for models that take none."""
    if model.dit.config.image_dim is None:
        return None
    pictures = [read_held(h, previous) for h in held]
    opaque = [fit_image(p, p.shape[1], p.shape[0]) for p in pictures]
    tokens_BND: Tensor = rearrange(require_image_encoder(model).encode(opaque), "K N D -> 1 (K N) D")
    return tokens_BND
