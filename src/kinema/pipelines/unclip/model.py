"""Kandinsky 2.2 in memory: diffusers' decoder and prior pipelines."""

from __future__ import annotations

from pathlib import Path

from kinema.core.runtime import resolve_device, resolve_dtype
from kinema.models.pretrained import require_safetensors
from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import local_folder, prior_folder
from kinema.pipelines.diffusers_parts import read_pipeline
from kinema.pipelines.images.model import ImageModel
from kinema.pipelines.unclip.card import PRIOR_KEY, PRIOR_PARTS

DECODER_PARTS = ("unet", "movq")


def load_unclip_model(
    card: ModelCard, *, device: str = "auto", dtype: str = "auto", local_files_only: bool = False
) -> ImageModel:
    """Load a decoder and its prior: safetensors only, no code from the repository.

    Raises:
        ModelError: files are missing, damaged, pickled, or lack tensors.
    """
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    folder = local_folder(card, local_files_only=local_files_only)
    name = card.transformer[PRIOR_KEY]
    if name:
        its_prior = prior_folder(name, local_files_only=local_files_only)
        _check(folder, DECODER_PARTS)
        _check(its_prior, PRIOR_PARTS)
        pipe = read_pipeline("KandinskyV22Pipeline", folder, precision, where)
        prior = read_pipeline("KandinskyV22PriorPipeline", its_prior, precision, where)
    else:
        _check(folder, (*DECODER_PARTS, *(f"prior_{part}" for part in PRIOR_PARTS)))
        both = read_pipeline("KandinskyV22CombinedPipeline", folder, precision, where)
        pipe, prior = both.decoder_pipe, both.prior_pipe
    for part in (pipe, prior):
        part.set_progress_bar_config(disable=True)
    return ImageModel(card, pipe, where, precision, prior=prior)


def _check(folder: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        require_safetensors(folder / part)
