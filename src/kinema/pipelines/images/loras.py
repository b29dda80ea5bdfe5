"""LoRAs of a diffusers image model: fitted to its network and its text encoders, worn frame by frame.

    y = W x + s(f) (alpha / r) up (down x)         f: the frame that is drawn

Each picture is drawn by itself, so that a scale may be another one at every frame, in the text encoders too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from kinema.core.errors import ConfigError
from kinema.models.lora import Fitted, Merged, Worn, fit, shapes_of, wearing
from kinema.models.lora_file import LoraFile, read_lora
from kinema.models.lora_keys import Text
from kinema.models.lora_names_images import IMAGE_NAMINGS
from kinema.pipelines.card import ModelCard
from kinema.pipelines.images.cards import ImageKind, kind_of_card
from kinema.pipelines.lora_parts import TEXT_PARTS, Shapes, empty_part, fit_text, says, text_shapes
from kinema.pipelines.plan import Plan, PlannedLora
from kinema.pipelines.worn import at_frame

if TYPE_CHECKING:
    from kinema.pipelines.images.model import ImageModel

Scales = tuple[float, ...]
"""Of a plan's LoRAs, in their order."""


def texts_changed(card: ModelCard) -> tuple[Text, ...]:
    """The text encoders that LoRAs of a model may change.

    Raises:
        ConfigError: the model takes no LoRA at all.
    """
    kind = kind_of_card(card)
    if not kind.loras:
        raise ConfigError(
            f"loras is not carried by {card.id!r}: none are read for a {kind.name}; leave them out, or use "
            "Stable Diffusion or Flux."
        )
    return kind.text_loras


def fitted_keys(file: LoraFile, card: ModelCard) -> int:
    """How many of a file's keys a model uses, from its configuration; all, or the file is refused.

    Raises:
        ModelError: a key names no layer of the model, or has another shape.
    """
    kind = kind_of_card(card)
    parts = [_fit_network(file, shapes_of(empty_part(card.folder / kind.denoiser)), kind)]
    for text in kind.text_loras:
        if says(file, text):
            parts.append(fit_text(file, text_shapes(card.folder, text), text))
    return sum(part.keys for part in parts)


class ImageLoras:
    """A plan's LoRAs as they fit a loaded model.

    Args:
        plan: with the scale of each at every frame.
        model: whose parts wear them for as long as a block runs; its weights stay the very tensors.
    """

    def __init__(self, plan: Plan, model: ImageModel) -> None:
        self._loras, self._model = plan.loras, model
        self._changes = [_by_part(lora, model) for lora in plan.loras]
        self._merged: dict[str, Merged] = {}

    def text_scales(self, frame: int) -> Scales:
        """What the text encoders' states depend on at a frame: 0 for a LoRA that leaves them alone."""
        texts = set(TEXT_PARTS.values())
        return tuple(
            scale if texts & changes.keys() else 0.0
            for scale, changes in zip(self._at(frame), self._changes, strict=True)
        )

    @contextmanager
    def on_texts(self, scales: Scales) -> Iterator[None]:
        """The text encoders with the LoRAs on at these scales."""
        with self._on(tuple(TEXT_PARTS.values()), scales):
            yield

    @contextmanager
    def on_network(self, frame: int) -> Iterator[None]:
        """The network that draws with the LoRAs on, as they are at a frame."""
        with self._on((self._model.kind.denoiser,), self._at(frame)):
            yield

    def _at(self, frame: int) -> Scales:
        return tuple(lora.scale[0] for lora in at_frame(self._loras, frame))

    @contextmanager
    def _on(self, parts: Sequence[str], scales: Scales) -> Iterator[None]:
        with ExitStack() as stack:
            for part in parts:
                if not any(part in changes for changes in self._changes):
                    continue
                module: nn.Module = getattr(self._model.pipe, part)
                if merged := self._worn_always(part):
                    if part not in self._merged:
                        self._merged[part] = Merged(module, merged)
                    stack.enter_context(self._merged[part].worn())
                beside = [
                    Worn(changes[part], (scale,))
                    for lora, changes, scale in zip(self._loras, self._changes, scales, strict=True)
                    if not lora.merge and scale and part in changes  # at 0 not computed: 0 times inf is no 0
                ]
                if beside:
                    stack.enter_context(wearing(module, beside))
            yield

    def _worn_always(self, part: str) -> list[Worn]:
        """What is merged into a part: at every frame the same."""
        return [
            Worn(changes[part], lora.scale)
            for lora, changes in zip(self._loras, self._changes, strict=True)
            if lora.merge and lora.scale[0] and part in changes
        ]


def _by_part(lora: PlannedLora, model: ImageModel) -> Mapping[str, Fitted]:
    """A LoRA's changes by the pipeline's names of the parts, where these compute."""
    kind, pipe = model.kind, model.pipe
    file = read_lora(lora.path, texts=kind.text_loras)
    found = {kind.denoiser: _fit_network(file, shapes_of(getattr(pipe, kind.denoiser)), kind)}
    for text in kind.text_loras:
        if says(file, text):
            part = TEXT_PARTS[text]
            found[part] = fit_text(file, shapes_of(getattr(pipe, part)), text)
    # what is merged is added in the file's own precision
    dtype = None if lora.merge else model.dtype
    return {part: _moved(changes, model.device, dtype) for part, changes in found.items() if changes.changes}


def _fit_network(file: LoraFile, shapes: Shapes, kind: ImageKind) -> Fitted:
    return fit(file, shapes, naming=IMAGE_NAMINGS[kind.loras](shapes))


def _moved(fitted: Fitted, device: torch.device, dtype: torch.dtype | None) -> Fitted:
    """The same changes on a device, so that they are not moved there for every frame."""
    moved = {name: change.to(device, dtype) for name, change in fitted.changes.items()}
    return Fitted(moved, fitted.keys)
