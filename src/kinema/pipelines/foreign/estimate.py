"""What a pipeline's step thinks the clean latents are, for previews and for a render that is cut off.

    x_0 = x_s - s v            flow matching; with a level of its own for every token where it has them
    x_0                        as the scheduler itself computed it: returned, or remembered for its next step

Each of diffusers' schedulers has the estimate in its hands at every step; nothing is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from kinema.pipelines.foreign.families import Family
from kinema.pipelines.foreign.masked import shown_before
from kinema.pipelines.plan import Plan
from kinema.pipelines.render import Sampled

PLUSPLUS = ("dpmsolver++", "sde-dpmsolver++")


@dataclass(frozen=True, slots=True)
class Look:
    """How to see a step's latents as kinema's own.

    Attributes:
        layout: axes of the pipeline's latents, of `B C T Y X`; tokens are told by having three.
        shape_TYX: of the clip's latents.
        patch: latents that a token spans in time, rows and columns.
        skip, keep: of the decoded frames, those shown before and those to show.
    """

    layout: str
    shape_TYX: tuple[int, int, int]
    patch: tuple[int, int, int]
    skip: int
    keep: int

    @staticmethod
    def of(plan: Plan, family: Family, pipe: Any) -> Look:
        """For one call of a pipeline."""
        g = plan.geometry
        frames = g.frames + shown_before(plan)
        patch = getattr(pipe, "transformer_spatial_patch_size", 1)
        return Look(
            layout=family.layout,
            shape_TYX=(1 + (frames - 1) // g.time, g.rows, g.columns),
            patch=(getattr(pipe, "transformer_temporal_patch_size", 1), patch, patch),
            skip=shown_before(plan),
            keep=g.keep,
        )

    def __call__(
        self, scheduler: Any, given: Mapping[str, Any], answer: Sequence[Any], seen: Tensor | None
    ) -> Tensor | None:
        """The clean estimate `[B, C, T, Y, X]` after a step; None where the scheduler has none.

        Args:
            scheduler: after its step.
            given: the step's arguments by name.
            answer: what the step returned, its parts in order.
            seen: what the denoiser was given, where it is tokens.
        """
        found = estimated(scheduler, given, answer)
        clean_BCTYX = None if found is None else self.arranged(found)
        if clean_BCTYX is None:
            return None
        frames = self.shape_TYX[
            0
        ]  # some are rounded up to whole patches of time; the first are then left out
        clean_BCTYX = clean_BCTYX[:, :, -frames:]
        if clean_BCTYX.shape[2] != frames - 1 or seen is None:
            return clean_BCTYX
        held_BCTYX = self.arranged(seen[-1:])  # a first frame that is held is not stepped
        return None if held_BCTYX is None else torch.cat([held_BCTYX[:, :, :1], clean_BCTYX], dim=2)

    def arranged(self, latents: Tensor) -> Tensor | None:
        """A pipeline's latents as `[B, C, T, Y, X]`; None for tokens that are not those of the clip."""
        if latents.ndim == 5:
            return rearrange(latents, f"{self.layout} -> B C T Y X").detach()
        t, y, x = self.patch
        rows = [side // step for side, step in zip(self.shape_TYX, self.patch, strict=True)]
        count = math.prod(rows)
        if latents.ndim != 3 or latents.shape[1] < count:
            return None
        # pictures at frames are tokens in front of the clip's own
        return rearrange(
            latents[:, -count:],
            "B (T Y X) (C t y x) -> B C (T t) (Y y) (X x)",
            T=rows[0], Y=rows[1], X=rows[2], t=t, y=y, x=x,
        ).detach()  # fmt: skip

    def sampled(self, clean_BCTYX: Tensor) -> Sampled:
        """What a preview of a kept state is decoded from."""
        return Sampled(clean_BCTYX, self.skip, self.keep)


def estimated(scheduler: Any, given: Mapping[str, Any], answer: Sequence[Any]) -> Tensor | None:
    """The clean estimate after a scheduler's step, in the pipeline's own arrangement; None where it has none.

    Args:
        scheduler: after its step.
        given: the step's arguments by name.
        answer: what the step returned.
    """
    sample: Tensor = given["sample"]
    if len(answer) > 1 and isinstance(answer[1], Tensor) and answer[1].shape == sample.shape:
        return answer[1]
    remembered = getattr(scheduler, "model_outputs", None)
    if remembered and isinstance(remembered[-1], Tensor):
        clean = getattr(scheduler, "predict_x0", False) or scheduler.config.get("algorithm_type") in PLUSPLUS
        found: Tensor | None = remembered[-1] if clean else None
        return found
    return _flowed(scheduler, given)


def _flowed(scheduler: Any, given: Mapping[str, Any]) -> Tensor | None:
    """By the straight path, for schedulers of flow matching, which return the next latents alone."""
    if "FlowMatch" not in type(scheduler).__name__:
        return None
    sample, velocity = given["sample"], given["model_output"]
    levels = given.get("per_token_timesteps")
    if levels is not None:  # told with the velocity turned round
        sigma = rearrange(levels / scheduler.config.num_train_timesteps, "B N -> B N 1")
        return (sample + sigma * velocity).float()
    sigma = scheduler.sigmas[scheduler.step_index - 1].to(sample.device)
    return (sample - sigma * velocity).float()
