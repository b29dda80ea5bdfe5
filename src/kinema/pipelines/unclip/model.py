"""Kandinsky 2.2 in memory: diffusers' decoder and prior pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import ModelError
from kinema.core.runtime import resolve_device, resolve_dtype
from kinema.models.pretrained import loading_quietly, require_safetensors
from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import local_folder, prior_folder
from kinema.pipelines.images.model import ImageModel
from kinema.pipelines.unclip.card import PRIOR_KEY, PRIOR_PARTS

DECODER_PARTS = ("unet", "movq")


def load_unclip_model(
    card: ModelCard, *, device: str = "auto", dtype: str = "auto", local_files_only: bool = False
) -> ImageModel:
    """Load a decoder and its prior: safetensors only, no code from the repository.

    Raises:
        ModelError: files are missing, damaged, or pickled.
    """
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    folder = local_folder(card, local_files_only=local_files_only)
    name = card.transformer[PRIOR_KEY]
    if name:
        its_prior = prior_folder(name, local_files_only=local_files_only)
        _check(folder, DECODER_PARTS)
        _check(its_prior, PRIOR_PARTS)
        pipe = _read("KandinskyV22Pipeline", folder, precision)
        prior = _read("KandinskyV22PriorPipeline", its_prior, precision)
    else:
        _check(folder, (*DECODER_PARTS, *(f"prior_{part}" for part in PRIOR_PARTS)))
        both = _read("KandinskyV22CombinedPipeline", folder, precision)
        pipe, prior = both.decoder_pipe, both.prior_pipe
    for part in (pipe, prior):
        part.set_progress_bar_config(disable=True)
    return ImageModel(card, pipe.to(where), where, precision, prior=prior.to(where))


def _check(folder: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        require_safetensors(folder / part)


def _read(class_name: str, folder: Path, precision: torch.dtype) -> Any:
    import diffusers

    try:
        with loading_quietly():
            return getattr(diffusers, class_name).from_pretrained(
                folder, dtype=precision, use_safetensors=True, local_files_only=True
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} does not load as {class_name}: {reason}") from None
