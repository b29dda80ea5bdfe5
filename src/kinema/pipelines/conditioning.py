"""A plan and a loaded model become what the loop starts from: contexts, the noise table, known latents.

    x = (1 - s) known + s noise,   s = min(grid, cap) for each latent frame

Every mode is data here. A held frame has cap 0; a keyframe below full strength, or a clip to make over, a cap
between; a clip to go on from is a few more held frames in front. Models that read masks (Wan I2V, FLF2V) get
extra input channels instead, behind the same call. A clip that is painted inside is known at some places of
each frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from kinema.animation.noise_warp import mixed
from kinema.core.errors import ConfigError
from kinema.core.runtime import frame_noise
from kinema.diffusion.flow import noisy, per_frame, sigmas, table
from kinema.io.clip import Clip
from kinema.models.dit import VideoDiT
from kinema.models.experts import Experts
from kinema.models.text import TextStates
from kinema.pipelines import known
from kinema.pipelines.camera.known import camera_noise, moved_latents
from kinema.pipelines.inpaint import Wrapper, painting, unchanged
from kinema.pipelines.model import Model
from kinema.pipelines.plan import Plan, Prompts
from kinema.pipelines.texts import Branch, branch_of, encoded, shares
from kinema.pipelines.worn import worn


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """What the loop needs.

    Attributes:
        positive, negative: the two sides of the guidance.
        start_BCTYX: latents at the table's first levels.
        table_SBT: noise levels per step and latent frame, held context included.
        channels_BCTYX: appended to the latents at every call, for models that read masks.
        tail: the end of the clip that is extended, to be decoded in front.
        painting: around the guided velocity; leads to what is known where a mask is closed.
    """

    positive: Branch
    negative: Branch
    start_BCTYX: Tensor
    table_SBT: Tensor
    channels_BCTYX: Tensor | None = None
    tail: known.Tail | None = None
    painting: Wrapper = unchanged

    def at(self, frames: list[int]) -> Conditions:
        """What a window of latent frames is told.

        A model that reads masks learned that its clips begin with the picture, so every window's first frame
        carries the clip's first channels; `coverage.Fused.lead` keeps the picture out of the result.
        """
        channels = self.channels_BCTYX
        if channels is not None:
            channels = channels[:, :, [0, *frames[1:]]]
        return replace(
            self,
            positive=self.positive.at(frames),
            negative=self.negative.at(frames),
            channels_BCTYX=channels,
        )

    def prepared(self, dit: VideoDiT | Experts) -> Conditions:
        """With the texts read once more by the transformer as it is now."""
        return replace(self, positive=self.positive.prepared(dit), negative=self.negative.prepared(dit))


@torch.inference_mode()
def condition(
    plan: Plan,
    model: Model,
    *,
    previous: Clip | None = None,
    noise_BCTYX: Tensor | None = None,
    max_length: int | None = None,
    told: Callable[[str], None] | None = None,
) -> Conditions:
    """Encode everything that is given.

    Args:
        plan: from `make_plan`.
        model: loaded for the same card.
        previous: the shot before in a storyboard: its latents, and its last frame as frames.
        noise_BCTYX: the new frames' noise; by default it follows from the plan's seed.
        max_length: text tokens kept of each prompt; None for as many as the model was trained on.
        told: called with one line for what was dealt with on the way; None writes it to the log.
    """
    tail = known.tail_of(plan, model, previous)
    source = None if plan.given.source is None else known.source_latents(plan, model)
    latents, caps_BT = _known(plan, model, previous, source)
    noise = _noise(plan, model, previous) if noise_BCTYX is None else _checked(noise_BCTYX, latents)
    if tail is not None:
        held = tail.latents_BCTYX[:, :, -tail.held :]
        latents = torch.cat([held.to(latents), latents], dim=2)
        noise = torch.cat([torch.zeros_like(held).to(noise), noise], dim=2)
        caps_BT = torch.cat([torch.zeros(1, tail.held), caps_BT], dim=1)
    levels = table(sigmas(plan.sampling.steps, plan.sampling.shift, plan.sampling.grid), caps_BT)
    masked = model.card.mechanism == "channels"
    with worn(model.dit, plan.loras):  # texts' keys and values are the transformer's too
        tokens_BND = known.image_tokens(plan.given.held, model, previous)
        read = partial(encoded, model=model, max_length=max_length, told=told)
        positive, negative = _branches(plan, model, 0 if tail is None else tail.held, read, tokens_BND)
    return Conditions(
        positive=positive,
        negative=negative,
        start_BCTYX=_start(latents, noise, levels[0], caps_BT),
        table_SBT=levels,
        channels_BCTYX=known.mask_channels(plan, model, previous) if masked else None,
        tail=tail,
        painting=painting(plan, source),
    )


def _known(plan: Plan, model: Model, previous: Clip | None, source: Tensor | None) -> tuple[Tensor, Tensor]:
    """Latents of what is given (zero where nothing is), and how far each new frame is open `[1, T]`."""
    g = plan.geometry
    if source is not None:
        latents = source.clone()
        caps_BT = torch.full((1, g.latent_frames), plan.given.strength)
    else:
        shape = (1, model.card.latent_channels, g.latent_frames, g.rows, g.columns)
        latents, caps_BT = torch.zeros(shape, device=model.device), torch.ones(1, g.latent_frames)
    if model.card.mechanism != "channels":
        for held in plan.given.held:
            latents[:, :, held.latent] = known.picture_latent(held, plan, model, previous)
            caps_BT[:, held.latent] = 1 - held.strength
    if plan.camera is not None and any(plan.camera.follow):
        moved = moved_latents(plan, plan.camera, model, previous)
        for t, strength in enumerate(plan.camera.follow):
            if 1 - strength < caps_BT[0, t]:
                latents[:, :, t], caps_BT[:, t] = moved[:, :, t], 1 - strength
    return latents, caps_BT


def _noise(plan: Plan, model: Model, previous: Clip | None) -> Tensor:
    g = plan.geometry
    shape = (model.card.latent_channels, g.rows, g.columns)
    if plan.sampling.noise == "clip":
        drawn = torch.Generator().manual_seed(plan.sampling.seed)
        channels, rows, columns = shape
        own = torch.randn((1, channels, g.latent_frames, rows, columns), generator=drawn)
    else:
        own = frame_noise(plan.sampling.seed, shape, g.latent_frames, first=g.first)
    if plan.camera is not None and plan.camera.noise:
        moved = camera_noise(plan, plan.camera, shape, previous)
        return mixed(moved, own, plan.camera.noise).to(model.device)
    return own.to(model.device)


def _checked(noise_BCTYX: Tensor, like_BCTYX: Tensor) -> Tensor:
    if noise_BCTYX.shape != like_BCTYX.shape:
        raise ConfigError(
            f"latents have the shape {list(noise_BCTYX.shape)}; this request needs {list(like_BCTYX.shape)}."
        )
    return noise_BCTYX.to(like_BCTYX)


def _start(latents: Tensor, noise: Tensor, sigma_BT: Tensor, caps_BT: Tensor) -> Tensor:
    """Latents at the first levels; open frames are pure noise even on grids that begin just below 1."""
    return torch.where(per_frame(caps_BT, noise) >= 1, noise, noisy(latents, noise, sigma_BT))


def _branches(
    plan: Plan,
    model: Model,
    context: int,
    read: Callable[[Prompts], TextStates],
    tokens_BND: Tensor | None,
) -> tuple[Branch, Branch]:
    """Of both sides; each encoder is asked once for all that it has to say, so that it can leave then."""
    sides = (plan.prompts, plan.negatives)
    states = [read(prompts) for prompts in sides]
    positive, negative = (
        branch_of(
            one,
            shares(prompts, model, context),
            model,
            blend=plan.sampling.blend,
            image_BND=tokens_BND,
        )
        for prompts, one in zip(sides, states, strict=True)
    )
    nag = plan.sampling.nag
    return (positive if nag is None else positive.led(negative, nag)), negative
