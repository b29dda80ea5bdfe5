"""Training of the video transformer by flow matching, with a noise level of its own for every latent frame.

A batch is made in one of a few ways, drawn by fixed odds: all frames share one level (text to video); every
frame has its own (https://arxiv.org/abs/2407.01392); some frames are held clean and their loss is left out
(the first: image to video; first and last: keyframes; a clean start inside a clip: extension). The levels are
logit-normal (https://arxiv.org/abs/2403.03206), shifted towards noise: `t -> s t / (1 + (s - 1) t)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import torch
from einops import rearrange
from torch import Tensor

from kinema.core.errors import ConfigError, unknown_name
from kinema.core.runtime import generator
from kinema.diffusion.flow import noisy, velocity
from kinema.models.dit import Conditioning, Context, VideoDiT
from kinema.models.text import TextStates
from kinema.training.chance import noise_like
from kinema.training.travel import others

Held = Literal["none", "independent", "first", "ends", "continue"]
HELD_FRAMES: dict[Held, int] = {"first": 1, "ends": 2, "continue": 1}
"""Latent frames that do not count, at least; a clip needs one more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveSettings:
    """How batches are noised.

    Attributes:
        shift: of the training noise levels; above 1 there is more noise.
        text_dropout: share of captions replaced by the empty prompt, for guidance.
        odds: relative frequency of each way to hold frames; "none" alone when clips have one frame.
        spread: standard deviation of the logit-normal levels.
    """

    shift: float = 1.0
    text_dropout: float = 0.1
    spread: float = 1.0
    odds: Mapping[Held, float] = field(default_factory=lambda: {"none": 1.0})

    def __post_init__(self) -> None:
        if not self.shift > 0 or not self.spread > 0 or not 0 <= self.text_dropout <= 1:
            raise ConfigError(
                f"shift={self.shift:g} and spread={self.spread:g} must be above 0, "
                f"text_dropout={self.text_dropout:g} in 0..1."
            )
        for way, odds in self.odds.items():
            if way not in get_args(Held):
                raise unknown_name("way to hold frames", way, get_args(Held))
            if type(odds) not in (int, float) or not 0 <= odds < float("inf"):
                raise ConfigError(f"odds of {way!r} are {odds!r}; write a number from 0 up.")
        if not sum(self.odds.values()) > 0:
            raise ConfigError("odds are all 0; write {none: 1.0}.")


@dataclass(frozen=True, slots=True)
class Noising:
    """Levels and the share of each frame in the loss, `[B, T]` both."""

    sigma_BT: Tensor
    counted_BT: Tensor


def draw_held(settings: ObjectiveSettings, rng: torch.Generator) -> Held:
    """One way to hold frames, by the odds."""
    ways = list(settings.odds)
    odds = torch.tensor([settings.odds[way] for way in ways], dtype=torch.float32)
    return ways[int(torch.multinomial(odds, 1, generator=rng))]


def draw_levels(
    held: Held, batch: int, frames: int, settings: ObjectiveSettings, rng: torch.Generator
) -> Noising:
    """Noise levels for a batch; held frames are at 0 and do not count."""
    columns = frames if held == "independent" else 1
    level = torch.sigmoid(settings.spread * torch.randn(batch, columns, generator=rng)).expand(batch, frames)
    sigma_BT = settings.shift * level / (1 + (settings.shift - 1) * level)
    counted_BT = torch.ones(batch, frames)
    if held in ("first", "ends", "continue"):
        counted_BT[:, 0] = 0
    if held == "ends":
        counted_BT[:, -1] = 0
    if held == "continue" and frames > 3:
        counted_BT[:, 1] = (torch.rand(batch, generator=rng) < 0.5).float()
    return Noising(sigma_BT * counted_BT, counted_BT)


class TextSource(Protocol):
    """Captions to token states; cached by whoever implements it."""

    def __call__(self, captions: Sequence[str]) -> TextStates:
        """States of each caption, in order."""


def conditioning(states: TextStates, weights_BTK: Tensor | None = None) -> Conditioning:
    """One prompt per sample, or K with weights.

    Args:
        states: of the samples' prompts; of K each, those of all samples' first ones, then of the second ones.
        weights_BTK: of each prompt in each latent frame.
    """
    states_KLD, bias_KL = states.for_attention()
    prompts = 1 if weights_BTK is None else weights_BTK.shape[2]

    def per_sample(values: Tensor | None) -> Tensor | None:
        return None if values is None else rearrange(values, "(K B) ... -> B K ...", K=prompts)

    states_BKLD = per_sample(states_KLD)
    assert states_BKLD is not None
    return Conditioning(
        states_BKLD=states_BKLD,
        bias_BKL=per_sample(bias_KL),
        weights_BTK=weights_BTK,
        pooled_BKD=per_sample(states.pooled_KD),
    )


def told(captions: Sequence[str], dropped_B: Tensor, *, travelling: bool) -> list[str]:
    """Samples' captions, then those of what they turn into; nothing where they are dropped."""
    sides = [captions, others(captions)] if travelling else [captions]
    return ["" if drop else words for side in sides for drop, words in zip(dropped_B, side, strict=True)]


@dataclass(frozen=True, slots=True)
class Task:
    """A noised batch: what a model is given and what it is to say.

    Attributes:
        x_BCTYX: noisy latents.
        sigma_BT: their levels.
        context: the captions.
        v_BCTYX: the velocity.
        counted_BT: the share of each frame in the loss.
    """

    x_BCTYX: Tensor
    sigma_BT: Tensor
    context: Context
    v_BCTYX: Tensor
    counted_BT: Tensor


def draw_task(
    model: VideoDiT,
    latents_BCTYX: Tensor,
    captions: Sequence[str],
    text: TextSource,
    settings: ObjectiveSettings,
    *,
    held: Held,
    rng: torch.Generator,
    weights_BTK: Tensor | None = None,
) -> Task:
    """Noise a batch and drop some captions.

    Where clips travel, `weights_BTK` has the shares of a clip's caption and of the next one's.
    """
    B, T = latents_BCTYX.shape[0], latents_BCTYX.shape[2]
    levels = draw_levels(held, B, T, settings, rng)
    dropped = torch.rand(B, generator=rng) < settings.text_dropout
    device = latents_BCTYX.device
    words = told(captions, dropped, travelling=weights_BTK is not None)
    asked = conditioning(text(words).to(device), weights_BTK)
    noise, sigma_BT = noise_like(latents_BCTYX, rng), levels.sigma_BT.to(device)
    x_BCTYX, v_BCTYX = noisy(latents_BCTYX, noise, sigma_BT), velocity(latents_BCTYX, noise)
    return Task(x_BCTYX, sigma_BT, model.prepare(asked), v_BCTYX, levels.counted_BT.to(device))


def objective(model: VideoDiT, task: Task) -> Tensor:
    """Mean squared error of the velocity over the frames that count."""
    v_BCTYX = model(task.x_BCTYX, 1000 * task.sigma_BT, task.context)
    error_BT = (v_BCTYX.float() - task.v_BCTYX).square().mean(dim=(1, 3, 4))
    return (error_BT * task.counted_BT).sum() / task.counted_BT.sum()


def matrices(model: VideoDiT) -> list[str]:
    """The parameters for Muon: every matrix inside a block."""
    return [n for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step, the same whether or not the run was interrupted before it."""
    return generator(seed, f"train/step {step}")
