"""Kandinsky 2.2: a decoder that draws from a picture's embedding, and the prior that makes one from words.

Written `DECODER@PRIOR`, or one folder of both as diffusers' combined pipeline saves it. Known from
configuration files alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.core.errors import ConfigError, ModelError
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.card_check import check_index
from kinema.pipelines.images.cards import KANDINSKY, image_card, kind_of

if TYPE_CHECKING:
    from kinema.story.shot import Shot

PRIORS = ("KandinskyV22PriorPipeline", "KandinskyV22PriorEmb2EmbPipeline")
PRIOR_KEY = "prior"
PRIOR_PLACE = "prior_folder"
PRIOR_PARTS = ("prior", "text_encoder", "image_encoder")


def is_unclip(card: ModelCard) -> bool:
    """Whether pictures can stand in for its words."""
    return card.family == "image" and card.transformer.get("_class_name") == KANDINSKY


def is_decoder(index: Mapping[str, Any]) -> bool:
    """Whether a `model_index.json` is that of a decoder, with or without its prior."""
    class_name = index.get("_class_name")
    kind = kind_of(class_name) if isinstance(class_name, str) else None
    return kind is not None and kind.name == KANDINSKY


def unclip_card(
    name: str, folder: Path, index: Mapping[str, Any], *, decoder: str = "", prior: tuple[str, Path] | None
) -> ModelCard:
    """The card of a decoder with its prior.

    Args:
        name: as the user called both.
        folder: of the decoder.
        index: its `model_index.json`.
        decoder: what the decoder was called; empty for a folder of both.
        prior: what the prior was called, and its folder; None for a folder of both.

    Raises:
        ModelError: no prior, something else in its place, or one that was made for another decoder.
    """
    card = image_card(name, folder, index)
    assert card is not None, "a decoder"
    combined = "Combined" in index["_class_name"]
    if not combined and prior is None:
        raise ModelError(
            f"model {name!r} draws from embeddings that a prior makes; write {name}@PRIOR, with a folder or "
            "hub id such as kandinsky-community/kandinsky-2-2-prior."
        )
    if combined and prior is not None:
        raise ModelError(f"model {decoder!r} has its prior in it; write it without @{prior[0]}.")
    place = folder / "prior_prior" if prior is None else _prior_folder(*prior) / "prior"
    width = read_json(place / "config.json").get("embedding_dim", 768)
    wanted = read_json(folder / "unet" / "config.json").get("encoder_hid_dim")
    if width != wanted:
        raise ModelError(
            f"model {name!r}: the prior makes embeddings of {width} numbers and the decoder reads {wanted}; "
            "use the prior of this decoder."
        )
    told = {**card.transformer, PRIOR_KEY: "" if prior is None else prior[0]}
    if prior is not None:
        told[PRIOR_PLACE] = str(prior[1])
    # its pipelines round sizes up to the square of the codec's stride
    return replace(card, multiple=card.stride.space**2, parts=decoder, transformer=told)


def _prior_folder(name: str, folder: Path) -> Path:
    index = read_json(folder / "model_index.json")
    check_index(index, folder / "model_index.json")
    if index.get("_class_name") not in PRIORS:
        raise ModelError(
            f"{name!r} is a {str(index.get('_class_name'))[:60]!r}, and what follows the @ of a Kandinsky "
            f"decoder is its prior, a {PRIORS[0]!r}."
        )
    return folder


def check_unclip_shot(shot: Shot, card: ModelCard) -> None:
    """Refuse what only models that inpaint can do.

    Raises:
        ConfigError: naming the setting and what to do.
    """
    redraw = shot.redraw
    if redraw is None or not is_unclip(card):
        return
    if redraw.mask is not None:
        raise ConfigError(
            f"redraw.mask: {card.id!r} does not inpaint; leave the mask out, or use Stable Diffusion."
        )
    if redraw.holes == "redraw":
        raise ConfigError(f"redraw.holes: {card.id!r} does not inpaint; write holes: border.")
