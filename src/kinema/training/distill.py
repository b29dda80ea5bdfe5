"""Few-step distillation: one student step does what several guided steps of its teacher do.

The levels s_0 > ... > s_N = 0 of an N-step sampler are fixed. From x at a random s_i the teacher takes K
small guided steps to s_{i+1}, and the student learns the velocity that gets there at once:

    y = teacher steps from x;    target = (y - x) / (s_{i+1} - s_i);    loss = |student(x, s_i) - target|^2

This is progressive distillation (https://arxiv.org/abs/2202.00512) from any number of teacher steps in one
stage, with guidance folded in (https://arxiv.org/abs/2210.03142). The student has no second call for guidance
and needs no new input; it is sampled by Euler steps on the same levels. With K = 1 the target is the guided
velocity at s_i, which any solver may follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.diffusion.flow import TIMESTEPS, noisy, per_frame, sigmas
from kinema.diffusion.solvers import solver
from kinema.models.dit import Context, VideoDiT
from kinema.training.chance import noise_like
from kinema.training.dit import Held, ObjectiveSettings, TextSource, conditioning, draw_levels, told
from kinema.training.low_rank import without


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSettings:
    """What the student is to do.

    Attributes:
        steps: N, of the student's sampler.
        substeps: K, of the teacher for each.
        midpoint: the teacher's steps are of the second order, two calls each; of the first otherwise.
        guidance: of the teacher.
        guidance_held: of the teacher where frames are held, if that differs.
        shift: of the levels.
        grid: their spacing, a name of `flow.GRIDS`.
        rank: of the student's additions to the teacher's matrices.
        text_dropout: share of captions replaced by the empty prompt, whose velocity the student then keeps.
        own_guidance, own_interval: of the student where it is sampled, and the noise levels at which it
            acts: what could not be learned of the teacher's guidance is added there. Held frames have none.
        solver: that will follow the student. Other than Euler's steps only where the teacher takes one of the
            first order for each: then the student learns the guided velocity itself, whatever follows it.
    """

    steps: int = 6
    substeps: int = 4
    midpoint: bool = False
    guidance: float = 3.0
    guidance_held: float | None = None
    shift: float = 1.0
    grid: str = "wan-euler"
    rank: int = 32
    text_dropout: float = 0.0
    own_guidance: float = 1.0
    own_interval: Sequence[float] = (0.0, 1.0)
    solver: str = "euler"

    def __post_init__(self) -> None:
        if min(self.steps, self.substeps, self.rank) < 1:
            raise ConfigError("steps, substeps and rank of a distillation are whole numbers from 1 up.")
        if self.solver != "euler" and (self.substeps > 1 or self.midpoint):
            raise ConfigError(
                f"solver={self.solver!r} cannot follow a student of jumps; write euler, or substeps: 1."
            )
        sigmas(self.steps, self.shift, self.grid)  # refuses an unknown grid
        solver(self.solver)

    def guidance_for(self, held: Held) -> float:
        """The teacher's guidance for a way to hold frames."""
        return self.guidance if held == "none" or self.guidance_held is None else self.guidance_held


def guided(
    model: VideoDiT, x: Tensor, level_BT: Tensor, asked: Context, empty: Context, scale: float
) -> Tensor:
    """`u + scale (v - u)`, where u has the empty prompt; it is not asked for at scale 1."""
    v = model(x, TIMESTEPS * level_BT, asked).float()
    if scale == 1:
        return v
    u = model(x, TIMESTEPS * level_BT, empty).float()
    return u + scale * (v - u)


@torch.no_grad()
def teacher_jump(
    model: VideoDiT,
    x_BCTYX: Tensor,
    from_BT: Tensor,
    to_BT: Tensor,
    contexts: tuple[Context, Context],
    settings: DistillSettings,
    held: Held = "none",
) -> Tensor:
    """Where `settings.substeps` guided steps lead from level `from_BT` to `to_BT`.

    Args:
        model: the teacher.
        x_BCTYX: latents at the first level.
        from_BT, to_BT: levels; a held frame has 0 in both and does not move.
        contexts: of the captions and of the empty prompt.
        settings: guidance, order and number of steps.
        held: how frames are held, on which the guidance may depend.
    """
    y_BCTYX, stride_BT = x_BCTYX, (to_BT - from_BT) / settings.substeps
    stride, scale = per_frame(stride_BT, x_BCTYX), settings.guidance_for(held)
    for k in range(settings.substeps):
        level_BT = from_BT + k * stride_BT
        v_BCTYX = guided(model, y_BCTYX, level_BT, *contexts, scale)
        if settings.midpoint:
            half = y_BCTYX + stride / 2 * v_BCTYX
            v_BCTYX = guided(model, half, level_BT + stride_BT / 2, *contexts, scale)
        y_BCTYX = y_BCTYX + stride * v_BCTYX
    return y_BCTYX


def distillation(
    model: VideoDiT,
    latents_BCTYX: Tensor,
    captions: Sequence[str],
    text: TextSource,
    settings: DistillSettings,
    *,
    held: Held,
    rng: torch.Generator,
    weights_BTK: Tensor | None = None,
) -> Tensor:
    """The student's loss: `model` with its additions against `model` without them.

    Args:
        model: a transformer after `low_rank.attach`.
        latents_BCTYX: clean clips.
        captions: what they show.
        text: token states of captions.
        settings: what the student is to do.
        held: frames that stay clean; "independent" levels do not occur in sampling and count as "none".
        rng: for levels and noise.
        weights_BTK: of each clip's caption and the next one's in each latent frame, where clips travel.
    """
    B, T = latents_BCTYX.shape[0], latents_BCTYX.shape[2]
    device = latents_BCTYX.device
    levels = sigmas(settings.steps, settings.shift, settings.grid).to(device)
    start_B = torch.randint(settings.steps, (B,), generator=rng).to(device)
    held = "none" if held == "independent" else held
    counted_BT = draw_levels(held, B, T, ObjectiveSettings(), rng).counted_BT.to(device)
    from_BT, to_BT = levels[start_B, None] * counted_BT, levels[start_B + 1, None] * counted_BT
    x_BCTYX = noisy(latents_BCTYX, noise_like(latents_BCTYX, rng), from_BT)
    dropped = torch.rand(B, generator=rng) < settings.text_dropout
    words = told(captions, dropped, travelling=weights_BTK is not None)
    asked, empty = conditioning(text(words).to(device), weights_BTK), conditioning(text([""] * B).to(device))
    with without(model), torch.no_grad():
        contexts = (model.prepare(asked), model.prepare(empty))
        reached = teacher_jump(model, x_BCTYX, from_BT, to_BT, contexts, settings, held)
    jump_B11 = (levels[start_B + 1] - levels[start_B]).view(B, 1, 1, 1, 1)
    target_BCTYX = (reached - x_BCTYX) / jump_B11
    v_BCTYX = model(x_BCTYX, TIMESTEPS * from_BT, model.prepare(asked)).float()
    error_BT = (v_BCTYX - target_BCTYX).square().mean(dim=(1, 3, 4))
    return (error_BT * counted_BT).sum() / counted_BT.sum()
