"""Guidance of image models: what of a shot's guidance and negative prompts acts, and what is only written.

    v = v_neg + s (v_pos - v_neg)       s: `guidance`; of Flux, the option `true_cfg_scale`

Flux was trained with its guidance as an input of the network (`guidance_embeds`), or without any (Schnell).
A negative prompt of it acts through a second forward, with a scale of its own that is off unless asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kinema.core.errors import ConfigError, unknown_name
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.images.cards import KANDINSKY, kind_of_card
from kinema.pipelines.plan import Prompts, Sampling
from kinema.story.own_options import Options

if TYPE_CHECKING:
    from kinema.story.shot import Shot

TRUE_CFG = "true_cfg_scale"
FLUX = "FluxPipeline"


def true_cfg(options: Options) -> float:
    """The scale of Flux's second forward; 1, where it is not run, unless the shot says another."""
    return float(dict(options).get(TRUE_CFG, 1.0))


def plan_guidance(
    shot: Shot, card: ModelCard, sampling: Sampling, negatives: Prompts
) -> tuple[Prompts, Options, tuple[str, ...]]:
    """The negative prompts that are read, options of the pipeline, and notes of what cannot act.

    Args:
        shot: as asked for.
        card: of an image model.
        sampling: with the guidance of every frame.
        negatives: as written; none are left where none would be read.

    Raises:
        ConfigError: an option that the model does not have, or a value out of its range.
    """
    kind = kind_of_card(card)
    _check_options(shot, card)
    if kind.name == KANDINSKY:  # its prior reads the negative prompt whatever the guidance
        return negatives, (), ()
    notes: tuple[str, ...] = ()
    if kind.name != FLUX:
        acts, way = max(sampling.guidance) > 1, f"guidance is {max(sampling.guidance):g}: give one above 1"
    else:
        acts, way = true_cfg(shot.options) > 1, f"add --option {TRUE_CFG}=4, which runs its network twice"
        embeds = read_json(card.folder / kind.denoiser / "config.json").get("guidance_embeds")
        if not embeds and any(scale != 1 for scale in sampling.guidance):
            notes = (f"guidance is no input of {card.id!r} and changes nothing; its default is 1.",)
    if acts:
        return negatives, shot.options, notes
    if any(text.strip() for spans in negatives.spans for text, _ in spans):
        notes = (*notes, f"the negative prompt does not act: {way}.")
    nothing = Prompts(spans=((),), weights=((1.0,),) * len(negatives.weights))
    return nothing, shot.options, notes


def _check_options(shot: Shot, card: ModelCard) -> None:
    if shot.options and kind_of_card(card).name != FLUX:
        raise ConfigError(
            f"options are arguments of another diffusers pipeline, which {card.id!r} is not; leave them out."
        )
    for name, value in shot.options:
        if name != TRUE_CFG:
            raise unknown_name(f"option of {card.id!r}", name, (TRUE_CFG,))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(float(value)) or float(value) < 1:
            raise ConfigError(
                f"{TRUE_CFG}={str(value)[:40]} is out of range; write a number from 1 (off), such as 4."
            )
