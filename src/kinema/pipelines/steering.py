"""Guidance beside the classifier-free one, checked against what a model has."""

from __future__ import annotations

from kinema.core.contracts import AttentionGuidance
from kinema.core.errors import ConfigError
from kinema.pipelines.card import ModelCard
from kinema.pipelines.plan import Prompts, Sampling, Skip
from kinema.story.shot import Shot


def attention_guidance(shot: Shot, card: ModelCard, negatives: Prompts) -> AttentionGuidance | None:
    """How far a shot leads attention away from its negative prompt.

    Raises:
        ConfigError: another pipeline runs the model, or its negative prompts do not meet inside attention.
    """
    nag = shot.nag
    if nag is None:
        return None
    _own(card, "nag")
    if shot.blend == "velocity" and len(negatives.spans) > 1:  # some may come from the prompt: (fog:-1)
        raise ConfigError("nag: several negative prompts meet inside attention; leave blend: velocity out.")
    return AttentionGuidance(scale=nag.scale, tau=nag.tau, alpha=nag.alpha)


def skipped_layers(shot: Shot, card: ModelCard) -> Skip | None:
    """The blocks without which a weaker network draws.

    Raises:
        ConfigError: another pipeline runs the model, or it has no such blocks, or no others.
    """
    skip = shot.skip_layers
    if skip is None:
        return None
    _own(card, "skip_layers")
    count = int(card.transformer["num_layers"])
    if skip.layers[-1] >= count:
        raise ConfigError(
            f"skip_layers names block {skip.layers[-1]}, and {card.id!r} has {count}; name 0 to {count - 1}."
        )
    if len(skip.layers) == count:
        raise ConfigError(f"skip_layers names all {count} blocks of {card.id!r}; leave at least one.")
    if skip.side == "negative" and shot.guidance is not None and shot.guidance.constant == 1:
        raise ConfigError("skip_layers.side: negative acts through guidance, which is off; write side: own.")
    scale = skip.scale if skip.side == "own" else None
    return Skip(layers=skip.layers, scale=scale, interval=skip.interval)


def unheard_negative(card: ModelCard, negatives: Prompts, sampling: Sampling) -> tuple[str, ...]:
    """That there is a negative prompt and nothing that leads away from it."""
    scales = (*sampling.guidance, *(sampling.guidance_low or ()))
    words = any(text.strip() for spans in negatives.spans for text, _ in spans)
    if card.borrowed or not words or sampling.nag is not None or any(scale != 1 for scale in scales):
        return ()
    return ("the negative prompt does not act: without guidance, that takes nag.",)


def unreached_levels(sampling: Sampling, strength: float) -> tuple[str, ...]:
    """Guidance whose interval holds no noise level of the run, and which therefore never acts.

    Args:
        sampling: of a model whose sampler is kinema's.
        strength: noise level that the run begins at; 1 for one from noise.
    """
    import torch

    from kinema.diffusion.flow import sigmas, table

    scales = (*sampling.guidance, *(sampling.guidance_low or ()))
    asked = {"guidance": sampling.interval} if any(scale != 1 for scale in scales) else {}
    if sampling.skip is not None:
        asked["skip_layers"] = sampling.skip.interval
    grid = sigmas(sampling.steps, sampling.shift, sampling.grid)
    levels = table(grid, torch.tensor([[strength]]))[:-1].flatten()
    visited = ", ".join(f"{level:.3g}" for level in (levels if len(levels) < 4 else levels[[0, -1]]).tolist())
    visited = visited if len(levels) < 4 else visited.replace(", ", " to ")
    return tuple(
        f"{name} acts in no step: none begins at a noise level from {low:g} to {high:g} (they begin at "
        f"{visited}); give it another interval."
        for name, (low, high) in asked.items()
        if len(levels) and not bool(((levels >= low) & (levels <= high)).any())
    )


def _own(card: ModelCard, name: str) -> None:
    if card.borrowed:
        raise ConfigError(
            f"{name} acts inside kinema's own transformers, and {card.id!r} runs in diffusers' pipeline; "
            "leave it out."
        )
