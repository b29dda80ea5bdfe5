"""A plan becomes a clip: condition, sample, decode as the frames are drawn.

frames <- stream(vae) <- sample(guided(network)) <- condition(plan)
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from kinema.core.contracts import OnProgress, Progress
from kinema.diffusion.guidance import AdaptiveProjected, CFGZero, ClassifierFree, Guidance, Guided
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.step import FrameNoise
from kinema.io.clip import Clip
from kinema.pipelines.conditioning import Conditions, condition
from kinema.pipelines.model import Model
from kinema.pipelines.network import Network
from kinema.pipelines.plan import Plan, Sampling

GUIDANCE: dict[str, type[ClassifierFree]] = {
    "cfg": ClassifierFree,
    "cfg-zero": CFGZero,
    "apg": AdaptiveProjected,
}


def render_plan(plan: Plan, model: Model, *, previous: Clip | None, on_progress: OnProgress) -> Clip:
    """Sample a plan's latents now; the clip's frames are decoded as they are drawn.

    Args:
        plan: from `make_plan`.
        model: loaded for the plan's model.
        previous: the clip before, for a shot of a storyboard that goes on from it.
        on_progress: called with events; raise from it to stop.
    """
    on_progress(Progress("text", 0, 1))
    conditions = condition(plan, model, previous=previous)
    on_progress(Progress("text", 1, 1))
    x_BCTYX = denoise(plan, model, conditions, on_progress)
    new = x_BCTYX[:, :, x_BCTYX.shape[2] - plan.geometry.latent_frames :]
    tail = conditions.tail_BCTYX
    latents = new if tail is None else torch.cat([tail, new], dim=2)
    # What a clip on disk already shows is kept as it is; a previous shot has shown its own frames.
    kept = Clip.open(plan.given.extend) if plan.given.extend not in (None, "previous") else None
    frames = _frames(plan, model, latents, kept, conditions.tail_frames, on_progress)
    g = plan.geometry
    count = g.keep + (len(kept) if kept is not None else 0)
    return Clip(frames, Fraction(g.fps), latents=latents.cpu(), count=count, size=(g.width, g.height))


def denoise(plan: Plan, model: Model, conditions: Conditions, on_progress: OnProgress) -> Tensor:
    """Clean latents `[1, C, T, Y, X]`, held context included."""
    context = conditions.table_SBT.shape[2] - plan.geometry.latent_frames
    return sample(
        Guided(Network(model.dit, conditions, plan.sampling), guidance(plan.sampling, context)),
        conditions.start_BCTYX,
        conditions.table_SBT,
        solver(plan.sampling.solver),
        noise=FrameNoise(plan.sampling.seed),
        on_step=on_progress,
    )


def guidance(sampling: Sampling, context: int = 0) -> Guidance:
    """The rule of a plan; held context frames are guided like the first new one."""
    scale_BT = torch.tensor([[sampling.guidance[0]] * context + list(sampling.guidance)])
    rule = GUIDANCE[sampling.method]
    return rule(scale=scale_BT, interval=sampling.interval, rescale=sampling.rescale)


def _frames(
    plan: Plan, model: Model, latents_BCTYX: Tensor, kept: Clip | None, skip: int, on_progress: OnProgress
) -> Iterator[np.ndarray]:
    """The kept clip's frames, then the decoded ones without the first `skip`, trimmed to the length asked for."""
    if kept is not None:
        yield from kept
    yield from islice(decoded(model, latents_BCTYX, on_progress), skip, skip + plan.geometry.keep)


def decoded(model: Model, latents_BCTYX: Tensor, on_progress: OnProgress) -> Iterator[np.ndarray]:
    """uint8 frames `[H, W, 3]`, one latent frame decoded at a time."""
    total, chunks, shown = latents_BCTYX.shape[2], model.vae.stream(latents_BCTYX), 0
    while True:
        with torch.inference_mode():
            frames_BCfHW = next(chunks, None)
        if frames_BCfHW is None:
            return
        shown += frames_BCfHW.shape[2]
        on_progress(Progress("decode", model.card.stride.latent_frames(shown), total))
        yield from to_uint8(frames_BCfHW)


def to_uint8(frames_BCfHW: Tensor) -> np.ndarray:
    """Decoded frames of one clip, -1..1, as uint8 `[f, H, W, 3]`."""
    pixels = frames_BCfHW[0].float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    array: np.ndarray = pixels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return array
