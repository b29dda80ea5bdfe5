"""The card of another diffusers video pipeline, from its index and its parts' configurations alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError
from kinema.pipelines.card import Defaults, Mode, ModelCard, read_json
from kinema.pipelines.diffusers_solvers import OWN_SOLVER, Config
from kinema.pipelines.foreign.families import CLASSES, Call, Family

MOTION_ADAPTER = "MotionAdapter"
ANIMATEDIFF = "AnimateDiffPipeline"
ADAPTER_KEY = "motion_adapter"
LEARNED = "use_learned_positional_embeddings"  # of CogVideoX-5b-I2V: positions for one size alone
LARGER_COG, LARGER_COG_FPS = (1360, 768), "16"  # what CogVideoX 1.5's makers use
LARGEST = 1 << 20


def _levels(vae: Config) -> int:
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def _ltx_stride(vae: Config) -> Stride:
    halvings = 2 ** sum(vae["spatio_temporal_scaling"])
    space = vae.get("spatial_compression_ratio") or vae["patch_size"] * halvings
    return Stride(vae.get("temporal_compression_ratio") or vae["patch_size_t"] * halvings, space)


STRIDES: Mapping[str, Callable[[Config], Stride]] = {
    "AutoencoderKLLTXVideo": _ltx_stride,
    "AutoencoderKLCogVideoX": lambda vae: Stride(int(vae["temporal_compression_ratio"]), _levels(vae)),
    "AutoencoderKLHunyuanVideo": lambda vae: Stride(
        vae["temporal_compression_ratio"], vae["spatial_compression_ratio"]
    ),
    "AutoencoderKLWan": lambda vae: Stride(
        vae.get("scale_factor_temporal", 4), vae.get("scale_factor_spatial", 8)
    ),
    "AutoencoderKLMochi": lambda vae: Stride(6, 8),
    "AutoencoderKL": lambda vae: Stride(1, _levels(vae)),
    "AutoencoderKLTemporalDecoder": lambda vae: Stride(1, _levels(vae)),
}
"""Pixels and pixel frames per latent, by the class of the VAE."""


def foreign_card(name: str, folder: Path, index: Mapping[str, Any]) -> ModelCard | None:
    """The card of a folder; None where `model_index.json` names no pipeline of `families`.

    Raises:
        ModelError: sizes that no model has, or a VAE that the pipeline does not take.
    """
    class_name = index.get("_class_name")
    if not isinstance(class_name, str) or class_name not in CLASSES:
        return None
    if (index.get("transformer_2") or [None])[0] is not None:
        raise ModelError(
            f"model {name!r} is a {class_name!r} of two transformers; which kinema does not "
            "run; use Wan 2.1 VACE."
        )
    return _card(name, folder, class_name)


def _card(name: str, folder: Path, class_name: str) -> ModelCard:
    family = CLASSES[class_name]
    vae = read_json(folder / "vae" / "config.json")
    denoiser = read_json(folder / family.denoiser / "config.json")
    stride = _stride(name, family, vae)
    told = {LEARNED: True} if denoiser.get(LEARNED) else {}
    card = ModelCard(
        id=name,
        folder=folder,
        family="foreign",
        stride=stride,
        multiple=math.lcm(stride.space * family.multiple, family.divisor),
        latent_channels=int(vae.get("latent_channels") or vae.get("z_dim", 4)),
        mechanism="none",
        modes=frozenset[Mode]().union(*(call.modes for call in family.calls[class_name])),
        defaults=_defaults(family, denoiser, stride),
        any_aspect=not told,
        transformer={"_class_name": class_name, **told},
    )
    return _checked(card)


def _stride(name: str, family: Family, vae: Config) -> Stride:
    kind = str(vae.get("_class_name"))
    if kind not in STRIDES:
        raise ModelError(
            f"the vae of model {name!r} is a {kind[:60]!r}, which kinema does not know in a "
            f"{family.title} checkpoint; use {', '.join(STRIDES)}."
        )
    return STRIDES[kind](vae)


def _defaults(family: Family, denoiser: Config, stride: Stride) -> Defaults:
    width, height = family.size
    if family.size_keys is not None:
        sides = [denoiser.get(key) for key in family.size_keys]
        if all(type(side) is int for side in sides):
            width, height = (side * stride.space for side in sides if side is not None)
    frames = denoiser.get(family.frames_key, family.frames)
    # CogVideoX 1.5, which groups latent frames by two, writes a bound of its positions where its size was
    larger = family.title == "CogVideoX" and denoiser.get("patch_size_t") is not None
    if larger:
        width, height = LARGER_COG
    return Defaults(
        width=width,
        height=height,
        frames=frames,
        fps=LARGER_COG_FPS if larger else family.fps,
        steps=family.steps,
        solver=OWN_SOLVER,
        grid=OWN_SOLVER,
        shift=1.0,
        guidance=family.guidance,
    )


def _checked(card: ModelCard) -> ModelCard:
    d = card.defaults
    numbers = {
        "stride in time": card.stride.time,
        "stride in space": card.stride.space,
        "latent channels": card.latent_channels,
        "default width": d.width,
        "default height": d.height,
        "default frames": d.frames,
    }
    for name, value in numbers.items():
        if type(value) is not int or not 1 <= value <= LARGEST:
            raise ModelError(
                f"{card.folder}: {name}={str(value)[:40]!r} is no size; get the checkpoint again."
            )
    return card


def with_adapter(name: str, adapter: Path, base: ModelCard, parts: str) -> ModelCard:
    """The card of a motion adapter on a Stable Diffusion 1 checkpoint, written `ADAPTER@CHECKPOINT`.

    Args:
        name: as the user called it.
        adapter: folder of the motion adapter.
        base: card of the checkpoint.
        parts: what the checkpoint was called.

    Raises:
        ModelError: the checkpoint is of another kind.
    """
    if base.transformer.get("_class_name") != "StableDiffusionPipeline" or base.parts:
        raise ModelError(
            f"model {name!r}: a motion adapter moves the pictures of Stable Diffusion 1, and {base.id!r} is "
            "something else; name such a checkpoint after the @."
        )
    files = tuple(sorted(adapter.glob("*.safetensors")))
    if not files:
        raise ModelError(f"{adapter} has no safetensors file; get the motion adapter again.")
    card = _card(name, base.folder, ANIMATEDIFF)
    told = {**card.transformer, ADAPTER_KEY: str(adapter)}
    return replace(card, transformer=told, parts=parts, files=(files,))


def family_of(card: ModelCard) -> Family:
    """The family of a card that `foreign_card` or `with_adapter` made."""
    return CLASSES[card.transformer["_class_name"]]


def calls_of(card: ModelCard) -> tuple[Call, ...]:
    """What runs on the checkpoint's parts."""
    name = card.transformer["_class_name"]
    return CLASSES[name].calls[name]
