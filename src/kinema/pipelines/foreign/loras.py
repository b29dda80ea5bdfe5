"""LoRAs in another diffusers pipeline: fitted as for kinema's own transformers, laid over its layers.

    y = W x + s (alpha / r) up (down x)         in the denoiser, and in the text encoder where files change it

Diffusers' own loader drops keys that it does not know with a warning, and puts wrappers into the model; here
every key fits or the file is refused, from the configurations alone, and the weights stay the very tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import nn

from kinema.core.errors import ConfigError, ModelError
from kinema.models.lora import Fitted, Worn, fit, shapes_of, wearing
from kinema.models.lora_file import LoraFile, read_lora
from kinema.models.lora_names import NAMINGS, clip
from kinema.models.weights import bare
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.foreign.card import ADAPTER_KEY, family_of
from kinema.pipelines.foreign.families import Family
from kinema.pipelines.foreign.model import ForeignModel
from kinema.pipelines.plan import PlannedLora

Shapes = Mapping[str, Sequence[int]]
Where = Literal["denoiser", "texts"]
DENOISER: Where = "denoiser"
TEXTS: Where = "texts"
MOTION = "motion_adapter"


def changes_texts(card: ModelCard) -> bool:
    """Whether LoRAs of a model may change its text encoder.

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
    if _says_texts(file):
        parts.append(_fitted(file, _text_shapes(card), family, TEXTS))
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
            if where == TEXTS and not _says_texts(file):
                continue
            module: nn.Module = model.denoiser if where == DENOISER else model.pipe.text_encoder
            changes = _fitted(file, shapes_of(module), model.family, where)
            stack.enter_context(wearing(module, [Worn(changes, lora.scale)], merge=lora.merge))
        yield


def _fitted(file: LoraFile, shapes: Shapes, family: Family, where: Where) -> Fitted:
    if where == TEXTS:
        return fit(file, shapes, expert="text", naming=clip)
    return fit(file, shapes, naming=NAMINGS[family.loras])


def _says_texts(file: LoraFile) -> bool:
    return any(owner == "text" for owner, _ in file.changes)


def _denoiser_shapes(card: ModelCard) -> Shapes:
    """Of the part that works in every step, without its weights."""
    import diffusers

    family = family_of(card)
    with bare():
        module = _empty(card.folder / family.denoiser)
        if isinstance(module, diffusers.UNet2DConditionModel):
            adapter = card.transformer.get(ADAPTER_KEY) or card.folder / MOTION
            module = diffusers.UNetMotionModel.from_unet2d(module, _empty(Path(adapter)))
    return shapes_of(module)


def _empty(folder: Path) -> Any:
    """A part of diffusers as its configuration says, without memory."""
    import diffusers

    config = read_json(folder / "config.json")
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise ModelError(f"{folder} names no model of diffusers; get the checkpoint again.")
    try:
        return kind.from_config(config)  # type: ignore[attr-defined]
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} is no configuration of {kind.__name__}: {reason}") from None


def _text_shapes(card: ModelCard) -> Shapes:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig.from_dict(dict(read_json(card.folder / "text_encoder" / "config.json")))
    with bare():
        return shapes_of(CLIPTextModel(config))
