"""LoRAs in another diffusers pipeline: fitted as for kinema's own transformers, laid over its layers.

    y = W x + s (alpha / r) up (down x)         in the denoiser, and in the text encoder where files change it

Diffusers' own loader drops keys that it does not know with a warning, and puts wrappers into the model; here
every key fits or the file is refused, from the configurations alone, and the weights stay the very tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from torch import nn

from kinema.core.errors import ConfigError
from kinema.models.lora import Fitted, Worn, fit, shapes_of, wearing
from kinema.models.lora_file import LoraFile, read_lora
from kinema.models.lora_keys import Text
from kinema.models.lora_names import NAMINGS
from kinema.models.weights import bare
from kinema.pipelines.card import ModelCard
from kinema.pipelines.foreign.card import ADAPTER_KEY, family_of
from kinema.pipelines.foreign.families import Family
from kinema.pipelines.foreign.model import ForeignModel
from kinema.pipelines.lora_parts import Shapes, empty_part, fit_text, says, text_shapes
from kinema.pipelines.plan import PlannedLora

Where = Literal["denoiser", "texts"]
DENOISER: Where = "denoiser"
TEXTS: Where = "texts"
MOTION = "motion_adapter"


def texts_changed(card: ModelCard) -> tuple[Text, ...]:
    """The text encoders that LoRAs of a model may change.

    Raises:
        ConfigError: its pipeline takes no LoRA at all.
    """
    family = family_of(card)
    if not family.loras:
        raise ConfigError(
            f"loras is not carried by {card.id!r}: diffusers' pipeline of {family.title} takes none."
        )
    return family.text_loras


def fitted_keys(file: LoraFile, card: ModelCard) -> int:
    """How many of a file's keys a model uses, from its configuration; all, or the file is refused.

    Raises:
        ModelError: a key names no layer of the model, or has another shape.
    """
    family = family_of(card)
    parts = [_fitted(file, _denoiser_shapes(card), family, DENOISER)]
    if says(file, "text"):
        parts.append(fit_text(file, text_shapes(card.folder, "text"), "text"))
    return sum(part.keys for part in parts)


@contextmanager
def dressed(model: ForeignModel, loras: Sequence[PlannedLora], where: Where) -> Iterator[None]:
    """A part of a pipeline with its LoRAs on for as long as the block runs; then it is itself again.

    Args:
        model: the loaded checkpoint.
        loras: from the plan.
        where: the denoiser, or the text encoder.
    """
    with ExitStack() as stack:
        for lora in loras:
            file = read_lora(lora.path, texts=model.family.text_loras)
            if where == TEXTS and not says(file, "text"):
                continue
            module: nn.Module = model.denoiser if where == DENOISER else model.pipe.text_encoder
            changes = _fitted(file, shapes_of(module), model.family, where)
            stack.enter_context(wearing(module, [Worn(changes, lora.scale)], merge=lora.merge))
        yield


def _fitted(file: LoraFile, shapes: Shapes, family: Family, where: Where) -> Fitted:
    if where == TEXTS:
        return fit_text(file, shapes, "text")
    return fit(file, shapes, naming=NAMINGS[family.loras])


def _denoiser_shapes(card: ModelCard) -> Shapes:
    """Of the part that works in every step, without its weights."""
    import diffusers

    family = family_of(card)
    module = empty_part(card.folder / family.denoiser)
    if isinstance(module, diffusers.UNet2DConditionModel):
        adapter = card.transformer.get(ADAPTER_KEY) or card.folder / MOTION
        with bare():
            module = diffusers.UNetMotionModel.from_unet2d(module, empty_part(Path(adapter)))
    return shapes_of(module)
