"""A plan in another diffusers pipeline: its own call, watched step by step; then frames.

frames <- to_uint8 <- pipe(**arguments(plan))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import NumericError
from kinema.io.clip import Clip
from kinema.pipelines.carried import carried_frames
from kinema.pipelines.foreign.arguments import arguments
from kinema.pipelines.foreign.asked import call_of
from kinema.pipelines.foreign.estimate import Look
from kinema.pipelines.foreign.loras import DENOISER, TEXTS, dressed
from kinema.pipelines.foreign.masked import shown_before
from kinema.pipelines.foreign.model import ForeignModel
from kinema.pipelines.foreign.steps import watched
from kinema.pipelines.foreign.travel import travelling
from kinema.pipelines.memory import FORGETFUL, Memory
from kinema.pipelines.plan import Plan
from kinema.pipelines.render import clip_of
from kinema.story.shot import PREVIOUS


def render_plan(
    plan: Plan,
    model: ForeignModel,
    *,
    previous: Clip | None,
    on_progress: OnProgress,
    memory: Memory = FORGETFUL,
) -> Clip:
    """Call the pipeline now; the clip's frames are rounded as they are drawn.

    Args:
        plan: from `make_plan`.
        model: loaded for the plan's model.
        previous: the clip before, for a shot of a storyboard that goes on from it.
        on_progress: called with events; raise from it to stop.
        memory: where to go on, and where to leave the state.
    """
    on_progress(Progress("text", 0, 1))
    call = call_of(plan, model.card)
    shift = plan.sampling.shift if model.family.shift and plan.shot.get("shift") is not None else None
    pipe = model.pipeline(call, plan.sampling.solver, shift)
    given = arguments(plan, model, call, previous)
    look = Look.of(plan, model.family, pipe)
    with (
        dressed(model, plan.loras, TEXTS),
        travelling(pipe, plan) as instead,
        dressed(model, plan.loras, DENOISER),
        watched(pipe, model.denoiser, given["generator"], on_progress, memory, look),
        torch.inference_mode(),
    ):
        out = pipe(**{**given, **instead})
    frames_FCHW: Tensor = out.frames[0]
    on_progress(Progress("decode", 1, 1))
    skip = shown_before(plan)
    made = to_uint8(frames_FCHW[skip : skip + plan.geometry.keep])
    if plan.given.extend in (None, PREVIOUS):  # a previous shot has shown its own frames
        return clip_of(plan, None, made)
    return replace(clip_of(plan, None, made), frames=chain(carried_frames(plan), made))


def to_uint8(frames_FCHW: Tensor) -> Iterator[np.ndarray]:
    """Frames in 0..1 as uint8 `[H, W, 3]`.

    Raises:
        NumericError: a frame is not finite; it would be black in the file.
    """
    for index, frame_CHW in enumerate(frames_FCHW):
        if not bool(torch.isfinite(frame_CHW).all()):
            raise NumericError(f"frame {index} is not finite; run with --dtype float32 or bfloat16.")
        pixels = frame_CHW.float().clamp(0, 1).mul(255).round().byte().cpu()
        yield rearrange(pixels, "C H W -> H W C").contiguous().numpy()
