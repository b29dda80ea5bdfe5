"""A loaded checkpoint: transformer, VAE, text encoder and, where it has one, image encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError
from kinema.core.runtime import resolve_device, resolve_dtype
from kinema.models.codec import PatchCodec
from kinema.models.dit import FP32_PARTS, VideoDiT, VideoDiTConfig
from kinema.models.experts import Experts
from kinema.models.original import load_original
from kinema.models.selftest import settle
from kinema.models.text import CheckpointTextEncoder, EmbeddedTextEncoder, Prompt, TextStates
from kinema.models.vae import CausalVideoVAE
from kinema.models.weights import bare, load_into, load_state, read_config
from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import local_folder, read_card
from kinema.pipelines.sums import verify

if TYPE_CHECKING:
    from kinema.models.vision import CheckpointImageEncoder


class Decoder(Protocol):
    """What shows latents as the transformer sees them; frames are in -1..1."""

    @property
    def stride(self) -> Stride:
        """Pixels and pixel frames per latent."""
        ...

    @property
    def memory(self) -> int:
        """How many earlier latent frames a decoded frame depends on, at most."""
        ...

    def stream(self, latents_BCTYX: Tensor) -> Iterator[Tensor]:
        """Frames of one latent frame after the other."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        ...


class VideoVAE(Decoder, Protocol):
    """What `render` asks of a VAE."""

    def encode(self, frames_BCFHW: Tensor) -> Tensor:
        """`[B, 3, F, H, W] -> [B, C, T, Y, X]`."""
        ...

    def encode_parts(self, parts: Iterable[Tensor]) -> Tensor:
        """The same of a clip's first frame, then `stride.time` frames each, one part in memory at a time."""
        ...


class TextEncoder(Protocol):
    """Prompts in, token states out."""

    def encode(self, prompts: Sequence[Prompt], max_length: int = ...) -> TextStates:
        """States of each prompt, cut to `max_length` tokens."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        ...


@dataclass(eq=False)
class Model:
    """A checkpoint in memory.

    Attributes:
        card: what it is.
        dit, vae, text: its parts; two transformers that share the noise levels stand behind one face.
        image: its image encoder, for models that read CLIP tokens.
        device, dtype: where and in what precision the transformer runs; the VAE is kept in float32.
        weights: how the transformer's matrices are kept: `full`, or `fp8` or `int8`.
    """

    card: ModelCard
    dit: VideoDiT | Experts
    vae: VideoVAE
    text: TextEncoder
    image: CheckpointImageEncoder | None
    device: torch.device
    dtype: torch.dtype
    weights: str = "full"

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move all parts to a device, or the transformer to another precision, in place."""
        self.device, self.dtype = device or self.device, dtype or self.dtype
        for name, parameter in self.dit.named_parameters():
            parameter.data = parameter.data.to(self.device, precision(name, self.dtype))
        for part in (self.vae, self.text, self.image):
            if part is not None:
                part.to(self.device)
        return self


def load(
    model: str = "embedded",
    *,
    device: str = "auto",
    dtype: str = "auto",
    local_files_only: bool = False,
    card: ModelCard | None = None,
) -> Model:
    """Load `embedded`, a folder in diffusers layout, or a hub id.

    Args:
        model: what to load.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`, of the transformer and the encoders.
        local_files_only: never ask the hub.
        card: the model's card, if it was read already.

    Raises:
        ModelError: nothing is there, files are missing, damaged or pickled; or attention computes wrong here.
    """
    card = card or read_card(model, local_files_only=local_files_only)
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    folder = local_folder(card, local_files_only=local_files_only)
    verify(folder)
    dit = _transformers(card, folder, where, precision)
    settle(where, precision, dit.config.attention_head_dim)
    if card.family == "embedded":
        return Model(card, dit, *_embedded_parts(folder, where), None, where, precision)
    return Model(card, dit, *_wan_parts(folder, where, precision), where, precision)


def load_vae(card: ModelCard, *, device: str = "auto") -> VideoVAE:
    """A checkpoint's VAE alone, for latents that only have to be decoded; errors as in `load`."""
    where, folder = resolve_device(device), local_folder(card) / "vae"
    if card.family == "embedded":
        return PatchCodec.from_folder(folder).to(where)
    return CausalVideoVAE.from_folder(folder, dtype=torch.float32, device=where)


def _transformers(
    card: ModelCard, folder: Path, device: torch.device, dtype: torch.dtype
) -> VideoDiT | Experts:
    if card.files:
        config = VideoDiTConfig.from_mapping(card.transformer)
        loaded = [_original_dit(files, config, device, dtype) for files in card.files]
    else:
        names = ["transformer"] if card.boundary is None else ["transformer", "transformer_2"]
        loaded = [load_dit(folder / name, device, dtype) for name in names]
    return loaded[0] if card.boundary is None else Experts(*loaded, boundary=card.boundary)


def _original_dit(
    files: Sequence[Path], config: VideoDiTConfig, device: torch.device, dtype: torch.dtype
) -> VideoDiT:
    state = load_original(files, dtype=partial(precision, dtype=dtype), device=device)
    with bare():
        dit = VideoDiT(config)
    load_into(dit, state, files[0])
    return dit.requires_grad_(False).eval()


def _embedded_parts(folder: Path, device: torch.device) -> tuple[VideoVAE, TextEncoder]:
    codec = PatchCodec.from_folder(folder / "vae").to(device)
    return codec, EmbeddedTextEncoder.from_folder(folder, device=device)


def _wan_parts(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[VideoVAE, TextEncoder, CheckpointImageEncoder | None]:
    vae = CausalVideoVAE.from_folder(folder / "vae", dtype=torch.float32, device=device)
    text = CheckpointTextEncoder.from_folder(folder, dtype=dtype, device=device)
    image = None
    if (folder / "image_encoder").is_dir():
        from kinema.models.vision import CheckpointImageEncoder

        image = CheckpointImageEncoder.from_folder(folder, dtype=dtype, device=device)
    return vae, text, image


def load_dit(folder: Path, device: torch.device, dtype: torch.dtype) -> VideoDiT:
    """A transformer from its folder, with its fp32 parts kept so."""
    config = VideoDiTConfig.from_mapping(read_config(folder))
    state = load_state(folder, dtype=partial(precision, dtype=dtype), device=device)
    with bare():
        dit = VideoDiT(config)
    used = {n: t for n, t in state.items() if "norm_added_q" not in n}  # written by old converters for nobody
    load_into(dit, used, folder)
    return dit.requires_grad_(False).eval()


def precision(name: str, dtype: torch.dtype) -> torch.dtype:
    """Of one of the transformer's tensors, where its matrices are in `dtype`."""
    return torch.float32 if any(part in name for part in FP32_PARTS) else dtype


def require_image_encoder(model: Model) -> CheckpointImageEncoder:
    """The image encoder, or an error that names the folder it should be in."""
    if model.image is None:
        raise ModelError(
            f"{model.card.folder} has no image_encoder/, which this model reads its picture with; "
            "fetch it again."
        )
    return model.image
