"""A LoRA's changes to each part of a diffusers checkpoint, fitted from the part's configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError
from kinema.models.lora import Fitted, fit, shapes_of
from kinema.models.lora_file import LoraFile
from kinema.models.lora_keys import Text
from kinema.models.lora_names import clip
from kinema.models.weights import bare
from kinema.pipelines.card import read_json

Shapes = Mapping[str, Sequence[int]]
TEXT_PARTS: Mapping[Text, str] = {"text": "text_encoder", "text_2": "text_encoder_2"}
"""Folders of the text encoders that LoRAs change, by what their keys say."""
CLIPS = ("CLIPTextModel", "CLIPTextModelWithProjection")


def says(file: LoraFile, text: Text) -> bool:
    """Whether a file changes a text encoder."""
    return any(owner == text for owner, _ in file.changes)


def fit_text(file: LoraFile, shapes: Shapes, text: Text) -> Fitted:
    """What a file changes in a text encoder of CLIP's kind.

    Raises:
        ModelError: a key names no layer of it, or has another shape.
    """
    return fit(file, shapes, expert=text, naming=clip)


def text_shapes(folder: Path, text: Text) -> Shapes:
    """Of a checkpoint's text encoder, without its weights.

    Raises:
        ModelError: the checkpoint has none there, or one of another kind.
    """
    import transformers

    part = TEXT_PARTS[text]
    entry = read_json(folder / "model_index.json").get(part) or (None, None)
    if entry[1] not in CLIPS:
        raise ModelError(
            f"the {part} of {folder} is {str(entry[1])[:60]!r}, and LoRAs change CLIP's; use a file without "
            "its keys."
        )
    config = transformers.CLIPTextConfig.from_dict(dict(read_json(folder / part / "config.json")))
    with bare():
        return shapes_of(getattr(transformers, entry[1])(config))


def empty_part(folder: Path) -> Any:
    """A part of diffusers as its configuration says, without memory.

    Raises:
        ModelError: the configuration is not that of a model of diffusers.
    """
    import diffusers

    config = read_json(folder / "config.json")
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise ModelError(f"{folder} names no model of diffusers; get the checkpoint again.")
    try:
        with bare():
            return kind.from_config(config)  # type: ignore[attr-defined]
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} is no configuration of {kind.__name__}: {reason}") from None
