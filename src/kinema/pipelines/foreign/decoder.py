"""The decoder of another diffusers pipeline behind the face of kinema's own, for previews.

    frames = decode(std z / factor + mean)

A pipeline decodes its finished clip itself; this one shows estimates on the way, a piece of one, or what is
kept of a render that was cut off. It draws no number that the pipeline would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from einops import rearrange
from torch import Tensor

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError
from kinema.core.runtime import resolve_device
from kinema.models.pretrained import require_safetensors
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.cards import local_folder
from kinema.pipelines.foreign.card import family_of
from kinema.pipelines.foreign.families import Family

AT_ONCE = 8  # frames of a VAE for pictures


@dataclass(eq=False)
class ForeignVAE:
    """See `kinema.pipelines.model.Decoder`.

    Attributes:
        vae: of diffusers.
        stride: pixels and pixel frames per latent.
    """

    vae: Any
    stride: Stride

    @property
    def memory(self) -> int:
        """How many earlier latent frames a decoded frame depends on: all, as far as is known here."""
        return 1 << 20

    def stream(self, latents_BCTYX: Tensor) -> Iterator[Tensor]:
        """Frames `[B, 3, f, H, W]` in -1..1 of one latent frame after the other; all are decoded at once."""
        where = [self.vae.device] if self.vae.device.type == "cuda" else []
        with torch.random.fork_rng(devices=where):
            frames_BCFHW = self._decoded(latents_BCTYX.to(self.vae.device, self.vae.dtype))
        yield frames_BCFHW[:, :, :1]
        if frames_BCFHW.shape[2] > 1:
            yield from torch.split(frames_BCFHW[:, :, 1:], self.stride.time, dim=2)

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self.vae.to(device)
        return self

    def _decoded(self, latents_BCTYX: Tensor) -> Tensor:
        z, (spread, mean) = latents_BCTYX, self._scale(latents_BCTYX)
        z = z * spread + mean
        kind = type(self.vae).__name__
        if kind in ("AutoencoderKL", "AutoencoderKLTemporalDecoder"):
            return self._pictures(z, timed=kind != "AutoencoderKL")
        if self.vae.config.get("timestep_conditioning"):
            found: Tensor = self.vae.decode(z, z.new_zeros(len(z))).sample
            return found
        found = self.vae.decode(z).sample
        return found

    def _pictures(self, z_BCTYX: Tensor, timed: bool) -> Tensor:
        """Frame by frame, a few at once."""
        parts = torch.split(rearrange(z_BCTYX, "B C T Y X -> (B T) C Y X"), AT_ONCE)
        made = [
            self.vae.decode(part, **({"num_frames": len(part)} if timed else {})).sample for part in parts
        ]
        return rearrange(torch.cat(made), "(B T) C H W -> B C T H W", B=len(z_BCTYX))

    def _scale(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """What latents are multiplied with, and what is added then."""
        config = self.vae.config
        factor = 1 / (config.get("scaling_factor") or 1.0)
        buffers = dict(self.vae.named_buffers())
        mean = _channels(buffers.get("latents_mean"), config.get("latents_mean"), like)
        std = _channels(buffers.get("latents_std"), config.get("latents_std"), like)
        if mean is None or std is None:
            return factor, config.get("shift_factor") or 0.0
        return std * factor, mean


def _channels(buffer: Any, listed: Any, like: Tensor) -> Tensor | None:
    """A number for every channel, `[1, C, 1, 1, 1]`, from the VAE's buffer or its configuration."""
    given = buffer if buffer is not None else listed
    if given is None:
        return None
    return rearrange(torch.as_tensor(given).to(like.device, like.dtype), "C -> 1 C 1 1 1")


def load_foreign_vae(card: ModelCard, *, device: str = "auto") -> ForeignVAE:
    """A checkpoint's VAE alone, in float32.

    Raises:
        ModelError: it is missing, damaged, or pickled.
    """
    import diffusers

    folder = local_folder(card) / "vae"
    require_safetensors(folder)
    kind = getattr(diffusers, str(read_json(folder / "config.json").get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise ModelError(f"{folder} names no model of diffusers; get the checkpoint again.")
    try:
        vae = kind.from_pretrained(folder, use_safetensors=True, local_files_only=True)  # type: ignore[attr-defined]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{folder} does not load: {' '.join(str(error).split())[:300]}") from None
    return ForeignVAE(in_tiles(vae, family_of(card)).to(resolve_device(device)), card.stride)


def in_tiles(vae: Any, family: Family) -> Any:
    """The VAE, which codes large pictures in tiles where its makers' examples do."""
    if family.tiled and hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    return vae
