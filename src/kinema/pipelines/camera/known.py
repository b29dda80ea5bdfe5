"""What a camera tells a video model: the keyframe as it is seen at every frame, and noise that moves along.

A model without camera controls is steered by both. A held frame says exactly what is seen there; noise that
moves is a hint that it may follow, the more the more of it moves.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kinema.animation.noise_warp import moved_noise
from kinema.core.runtime import generator
from kinema.io.clip import Clip
from kinema.pipelines.camera.moves import CameraMoves, NoiseCarry
from kinema.pipelines.camera.plan import CameraPlan
from kinema.pipelines.given import HeldImage
from kinema.pipelines.known import encoded, picture, to_pixels
from kinema.pipelines.model import Model
from kinema.pipelines.plan import Plan


def moved_latents(plan: Plan, camera: CameraPlan, model: Model, previous: Clip | None) -> Tensor:
    """Latents of the clip that the camera sees if nothing moves but itself, `[1, C, T, Y, X]`.

    Each frame shows the last keyframe before it, or the first one before there is any.
    """
    moves, shown = CameraMoves.of(plan, camera), _pictures(plan, previous)

    def seen(f: int) -> Tensor:
        held = _last_before(plan.given.held, f)
        frame_BCHW = moves.warp(shown(held), held.frame, f)[0].clamp(0, 1)
        return (frame_BCHW[:, :, None] * 2 - 1).to(model.device)

    return encoded(map(seen, range(plan.geometry.frames)), plan, model)


def camera_noise(
    plan: Plan, camera: CameraPlan, shape_CYX: tuple[int, int, int], previous: Clip | None
) -> Tensor:
    """White noise `[1, C, T, Y, X]` that moves as the camera does."""
    g = plan.geometry
    at_start = [held for held in plan.given.held if held.frame == 0]
    seen = _pictures(plan, previous)(at_start[0]) if at_start else None
    carry = NoiseCarry(CameraMoves.of(plan, camera), g, seen)
    return moved_noise(
        carry,
        g.latent_frames,
        shape_CYX,
        lambda name: generator(plan.sampling.seed, f"noise/camera {g.first}/{name}"),
    )


def _last_before(held: tuple[HeldImage, ...], frame: int) -> HeldImage:
    return max((h for h in held if h.frame <= frame), key=lambda h: h.frame, default=held[0])


def _pictures(plan: Plan, previous: Clip | None) -> Callable[[HeldImage], Tensor]:
    """Held pictures at the plan's size, float `[1, 3, H, W]` in 0..1, read once each."""
    read: dict[HeldImage, Tensor] = {}

    def shown(held: HeldImage) -> Tensor:
        if held not in read:
            pixels = to_pixels([picture(held, plan, previous)], torch.device("cpu"))
            read[held] = (pixels[:, :, 0] + 1) / 2
        return read[held]

    return shown
