"""A plan and a loaded model become what the loop starts from: contexts, the noise table, known latents.

Every mode is data here. A held frame is one whose level is 0 in the table; a clip to make over is a start at its
strength; a clip to go on from is a few more held frames in front. Models that read masks (Wan I2V, FLF2V) get extra
input channels instead, behind the same call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from kinema.core.errors import MediaError
from kinema.core.runtime import frame_noise
from kinema.diffusion.flow import noisy, sigmas, table
from kinema.io.clip import Clip
from kinema.io.image import fit_image, read_image
from kinema.io.reader import resample
from kinema.io.video_read import open_video
from kinema.models.dit import Conditioning, Context
from kinema.models.text import TextStates
from kinema.pipelines.model import Model, require_image_encoder
from kinema.pipelines.plan import Plan, Prompts

GRAY = (127, 127, 127)


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One side of the guidance: contexts, each with its share per latent frame `[T, K]`.

    `attention` and `embedding` blends have one context with the weights inside it and no shares here; the `velocity`
    blend has one context per prompt.
    """

    contexts: tuple[Context, ...]
    shares_TK: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """What the loop needs.

    Attributes:
        positive, negative: the two sides of the guidance.
        start_BCTYX: latents at the table's first levels.
        table_SBT: noise levels per step and latent frame.
        channels_BCTYX: appended to the latents at every call, for models that read masks.
        tail_BCTYX: latents of the clip that is extended, to be decoded in front.
        tail_frames: pixel frames that those give.
    """

    positive: Branch
    negative: Branch
    start_BCTYX: Tensor
    table_SBT: Tensor
    channels_BCTYX: Tensor | None = None
    tail_BCTYX: Tensor | None = None
    tail_frames: int = 0


@torch.inference_mode()
def condition(plan: Plan, model: Model, *, previous: Clip | None = None) -> Conditions:
    """Encode everything that is given.

    Args:
        plan: from `make_plan`.
        model: loaded for the same card.
        previous: the clip that is extended, when it is at hand with its latents.
    """
    g = plan.geometry
    tail, tail_frames = _tail(plan, model, previous)
    context = 0 if tail is None else min(g.context, tail.shape[2])
    T = context + g.latent_frames
    shape = (model.card.latent_channels, g.rows, g.columns)
    noise = frame_noise(plan.sampling.seed, shape, g.latent_frames).to(model.device)
    known, caps = torch.zeros_like(noise), torch.ones(1, g.latent_frames)
    if plan.given.source is not None:
        known, caps = _source_latents(plan, model), caps * plan.given.strength
    images = _images(plan, model)
    channels = image_tokens = None
    if model.card.mechanism == "channels":
        channels, image_tokens = _mask_channels(plan, model, images), _image_tokens(plan, model, images)
    else:
        for held, image in images:
            known[:, :, held] = _image_latent(model, image, first=held == 0)
            caps[:, held] = 1 - next(h.strength for h in plan.given.held if h.latent == held)
    grid = sigmas(plan.sampling.steps, plan.sampling.shift, plan.sampling.grid)
    if context and tail is not None:
        known = torch.cat([tail[:, :, -context:], known], dim=2)
        noise = torch.cat([torch.zeros_like(known[:, :, :context]), noise], dim=2)
        caps = torch.cat([torch.zeros(1, context), caps], dim=1)
    levels = table(grid, caps)
    start = torch.where(
        caps.to(noise)[:, None, :, None, None] >= 1, noise, noisy(known, noise, levels[0].to(noise))
    )
    return Conditions(
        positive=_branch(plan.prompts, plan, model, context, image_tokens),
        negative=_branch(plan.negatives, plan, model, context, image_tokens),
        start_BCTYX=start,
        table_SBT=levels,
        channels_BCTYX=channels,
        tail_BCTYX=tail,
        tail_frames=tail_frames,
    )


def _branch(prompts: Prompts, plan: Plan, model: Model, context: int, image_BND: Tensor | None) -> Branch:
    """Contexts of one side; frames of an earlier clip read what the first new frame reads."""
    states = model.text.encode(prompts.spans)
    weights_TK = torch.tensor(prompts.weights)
    weights_TK = torch.cat([weights_TK[:1].expand(context, -1), weights_TK]).to(model.device)
    several = weights_TK.shape[1] > 1
    if several and plan.sampling.blend == "velocity":
        contexts = [
            model.dit.prepare(_conditioning(_only(states, k), None, image_BND))
            for k in range(weights_TK.shape[1])
        ]
        return Branch(tuple(contexts), weights_TK)
    if several and plan.sampling.blend == "embedding":
        states, weights_TK = _mixed(states, weights_TK)
    given = _conditioning(states, weights_TK[None] if several else None, image_BND)
    return Branch((model.dit.prepare(given),))


def _conditioning(states: TextStates, weights_BTK: Tensor | None, image_BND: Tensor | None) -> Conditioning:
    states_KLD, bias_KL = states.for_attention()
    return Conditioning(
        states_BKLD=states_KLD[None],
        bias_BKL=None if bias_KL is None else bias_KL[None],
        weights_BTK=weights_BTK,
        pooled_BKD=None if states.pooled_KD is None else states.pooled_KD[None],
        image_BND=image_BND,
    )


def _only(states: TextStates, k: int) -> TextStates:
    """One of the prompts."""
    return TextStates(
        states_KLD=states.states_KLD[k : k + 1],
        mask_KL=states.mask_KL[k : k + 1],
        pooled_KD=None if states.pooled_KD is None else states.pooled_KD[k : k + 1],
        bias_KL=None if states.bias_KL is None else states.bias_KL[k : k + 1],
        pad_count_K=None if states.pad_count_K is None else states.pad_count_K[k : k + 1],
    )


def _mixed(states: TextStates, weights_TK: Tensor) -> tuple[TextStates, Tensor]:
    """Token states mixed before the model reads them: one prompt for every distinct row of weights.

    A token counts as present where any prompt with weight has one; log-weights mix like states.
    """
    rows_RK, which_T = torch.unique(weights_TK, dim=0, return_inverse=True)
    used_RKL = (rows_RK[:, :, None] > 0) & states.mask_KL[None]
    bias_KL = (
        torch.zeros_like(states.mask_KL, dtype=torch.float32) if states.bias_KL is None else states.bias_KL
    )
    share_RKL = rows_RK[:, :, None] * used_RKL
    mixed = TextStates(
        states_KLD=torch.einsum("rk,kld->rld", rows_RK.to(states.states_KLD), states.states_KLD),
        mask_KL=used_RKL.any(dim=1),
        pooled_KD=None if states.pooled_KD is None else rows_RK.to(states.pooled_KD) @ states.pooled_KD,
        bias_KL=torch.where(share_RKL > 0, share_RKL * bias_KL, 0.0).sum(dim=1),
        pad_count_K=None if states.pad_count_K is None else _padding(states, used_RKL.any(dim=1)),
    )
    return mixed, torch.nn.functional.one_hot(which_T, len(rows_RK)).to(weights_TK)


def _padding(states: TextStates, mask_RL: Tensor) -> Tensor:
    """Zero rows that follow the tokens of a mixed prompt, so that the total length stays what the model knows."""
    assert states.pad_count_K is not None
    total = int(states.pad_count_K[0] + states.mask_KL[0].sum())
    had_padding = bool((states.pad_count_K > 0).any())
    return (total - mask_RL.sum(dim=1)) * had_padding


def _images(plan: Plan, model: Model) -> list[tuple[int, np.ndarray]]:
    """Latent frame and fitted picture `[H, W, 3]` of everything that is held."""
    g = plan.geometry
    return [
        (held.latent, fit_image(read_image(held.image), g.width, g.height, plan.given.fit))
        for held in plan.given.held
    ]


def to_pixels(frames_FHWC: Iterable[np.ndarray] | np.ndarray, device: torch.device) -> Tensor:
    """uint8 frames as `[1, 3, F, H, W]` in -1..1."""
    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(list(frames_FHWC))))
    pixels: Tensor = rearrange(stacked, "F H W C -> 1 C F H W").to(device).float() / 127.5 - 1
    return pixels


def _image_latent(model: Model, image_HWC: np.ndarray, *, first: bool) -> Tensor:
    """`[1, C, Y, X]`: the picture as a clip's first frame, or as a group of equal frames inside it."""
    frames = 1 if first else 1 + model.card.stride.time
    pixels = repeat(to_pixels([image_HWC], model.device), "B C 1 H W -> B C F H W", F=frames)
    return model.vae.encode(pixels)[:, :, -1]


def _source_latents(plan: Plan, model: Model) -> Tensor:
    """The clip to make over, at the plan's size, rate and length; its last frame is repeated if it is short."""
    assert plan.given.source is not None
    g = plan.geometry
    frames = list(islice(resample(open_video(plan.given.source), Fraction(g.fps)), g.frames))
    if not frames:
        raise MediaError(f"{plan.given.source} has no frames.")
    frames += frames[-1:] * (g.frames - len(frames))
    fitted = [fit_image(frame, g.width, g.height, plan.given.fit) for frame in frames]
    return model.vae.encode(to_pixels(fitted, model.device))


def _tail(plan: Plan, model: Model, previous: Clip | None) -> tuple[Tensor | None, int]:
    """Latents of the end of the clip that is extended, and the pixel frames they decode to.

    They are its own latents when it still has them; else its last frames are encoded once.
    """
    if plan.given.extend is None:
        return None, 0
    if previous is not None and previous.latents is not None:
        latents = previous.latents.to(model.device)
        return latents, model.card.stride.pixel_frames(latents.shape[2])
    clip, time = previous or Clip.open(plan.given.extend), model.card.stride.time
    frames = clip.array()
    groups = min((len(frames) - 1) // time, 2 * plan.geometry.context)
    keep = frames[len(frames) - 1 - time * groups :, :, :, :3]
    return model.vae.encode(to_pixels(keep, model.device)), len(keep)


def _mask_channels(plan: Plan, model: Model, images: Sequence[tuple[int, np.ndarray]]) -> Tensor:
    """Wan I2V and FLF2V: 4 mask channels (one per pixel frame of a latent group), then the latents of a clip that
    shows the pictures where they are and mid-gray elsewhere.
    """
    g = plan.geometry
    pixels = torch.zeros(1, 3, g.frames, g.height, g.width, device=model.device)
    mask_F = torch.zeros(g.frames, device=model.device)
    for latent, image in images:
        frame = 0 if latent == 0 else g.frames - 1
        pixels[:, :, frame] = to_pixels([image], model.device)[:, :, 0]
        mask_F[frame] = 1
    padded_F = torch.cat([mask_F[:1].expand(g.time), mask_F[1:]])
    mask = repeat(padded_F, "(T c) -> 1 c T Y X", c=g.time, Y=g.rows, X=g.columns)
    return torch.cat([mask, model.vae.encode(pixels)], dim=1)


def _image_tokens(plan: Plan, model: Model, images: Sequence[tuple[int, np.ndarray]]) -> Tensor | None:
    """CLIP tokens of the pictures, one row; None for models without an image branch."""
    if model.dit.config.image_dim is None:
        return None
    tokens_KND = require_image_encoder(model).encode([image for _, image in images])
    tokens_BND: Tensor = rearrange(tokens_KND, "K N D -> 1 (K N) D")
    return tokens_BND
