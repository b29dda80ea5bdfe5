"""Any checkpoint by its name: which loader reads it.

This is all that `kinema.load` imports beside torch: what plans, draws and writes clips comes with the first
clip, and rare loaders with the first checkpoint of their kind.
"""

from __future__ import annotations

from pathlib import Path

import torch

from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import read_card
from kinema.pipelines.foreign.decoder import load_foreign_vae
from kinema.pipelines.foreign.model import ForeignModel, load_foreign_model
from kinema.pipelines.images.model import ImageModel, load_image_model
from kinema.pipelines.model import Decoder, Model, load_vae
from kinema.pipelines.model import load as load_video_model
from kinema.pipelines.unclip.card import is_unclip

AnyModel = Model | ImageModel | ForeignModel


def load(
    model: str | Path = "embedded",
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    local_files_only: bool = False,
    card: ModelCard | None = None,
    weights: str = "full",
    memory: str = "whole",
    together: bool = False,
) -> AnyModel:
    """Load `embedded`, a folder in diffusers layout, or a hub id; a video model or an image model.

    Args:
        model: what to load.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`, or torch's own.
        local_files_only: never ask the hub.
        card: the model's card, if it was read already.
        weights: how the transformer's matrices are kept: `full`, `fp8` or `int8`.
        memory: `whole`, `component`, `block` or `low`: what is in memory at a time; see docs/memory.md.
        together: transformer and VAE stay while either works, for clips that are drawn frame by frame.

    Raises:
        ModelError: nothing is there, files are missing or damaged, or pickled.
        ConfigError: an unknown name.
    """
    model, dtype = str(model), str(dtype).removeprefix("torch.")
    if (memory, weights) == ("whole", "full"):
        card = card or read_card(model, local_files_only=local_files_only)
        return _whole(card, device=device, dtype=dtype, local_files_only=local_files_only)
    from kinema.pipelines.residency.loading import DRAWING, checked_tier, load_resident, refuse_others

    tier = checked_tier(memory, weights)
    card = card or read_card(model, local_files_only=local_files_only)
    if card.borrowed:
        refuse_others(card, tier, weights)
    return load_resident(
        card,
        device=device,
        dtype=dtype,
        tier=tier,
        weights=weights,
        together=DRAWING if together else frozenset(),
        local_files_only=local_files_only,
    )


def _whole(card: ModelCard, *, device: str, dtype: str, local_files_only: bool) -> AnyModel:
    """All parts in memory."""
    if card.family == "foreign":
        return load_foreign_model(card, device=device, dtype=dtype, local_files_only=local_files_only)
    if card.family == "image" and is_unclip(card):
        from kinema.pipelines.unclip.model import load_unclip_model

        return load_unclip_model(card, device=device, dtype=dtype, local_files_only=local_files_only)
    if card.family == "image":
        return load_image_model(card, device=device, dtype=dtype, local_files_only=local_files_only)
    return load_video_model(card.id, device=device, dtype=dtype, local_files_only=local_files_only, card=card)


def decoder_of(model: AnyModel) -> Decoder | None:
    """What decodes a loaded model's latents; None for an image model."""
    if isinstance(model, ForeignModel):
        return model.decoder
    return model.vae if isinstance(model, Model) else None


def load_decoder(card: ModelCard, *, device: str = "auto") -> Decoder:
    """The same without the rest of a model, for latents that only have to be decoded; errors as in `load`."""
    if card.family == "foreign":
        return load_foreign_vae(card, device=device)
    return load_vae(card, device=device)
