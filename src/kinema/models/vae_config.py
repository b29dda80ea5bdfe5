"""The shape of a causal video VAE, in the words of diffusers' `AutoencoderKLWan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError
from kinema.models.config_values import typed

# fmt: off
MEAN_21 = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
STD_21 = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalVideoVAEConfig:
    """The shape of a `CausalVideoVAE`; fields and defaults are those of diffusers' `config.json` (Wan 2.1).

    Attributes:
        base_dim: channels of the encoder at full size.
        decoder_base_dim: the same for the decoder; None for `base_dim`.
        z_dim: latent channels.
        dim_mult: channels of each level, in multiples of the base.
        num_res_blocks: residual blocks of a level (the decoder has one more).
        attn_scales: sizes, as shares of the full size, at which encoder levels have attention.
        temperal_downsample: whether each step down also halves the frames.
        dropout: share of activations dropped in training.
        latents_mean: mean of each latent channel, what `encode` subtracts.
        latents_std: deviation of each latent channel, what `encode` divides by.
        is_residual: the Wan 2.2 layout.
        in_channels: channels of the encoder's input, patches included.
        out_channels: channels of the decoder's output, patches included.
        patch_size: side of the pixel patches folded into channels first; None for 1.
    """

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attn_scales: tuple[float, ...] = ()
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    dropout: float = 0.0
    latents_mean: tuple[float, ...] = MEAN_21
    latents_std: tuple[float, ...] = STD_21
    is_residual: bool = False
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that contradict each other."""
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise ModelError(
                f"temperal_downsample={self.temperal_downsample} must have one entry for each of the "
                f"{len(self.dim_mult) - 1} steps between the levels of dim_mult={self.dim_mult}."
            )
        if not len(self.latents_mean) == len(self.latents_std) == self.z_dim:
            raise ModelError(
                f"latents_mean and latents_std have {len(self.latents_mean)} and {len(self.latents_std)} "
                f"entries; z_dim={self.z_dim} needs as many of each."
            )
        if min(self.latents_std) <= 0:
            raise ModelError(
                f"latents_std has an entry of {min(self.latents_std)}; deviations must be above 0."
            )

    @property
    def stride(self) -> Stride:
        """Pixels and pixel frames that a latent covers."""
        halvings = len(self.dim_mult) - 1
        return Stride(time=2 ** sum(self.temperal_downsample), space=2**halvings * (self.patch_size or 1))

    @staticmethod
    def from_mapping(config: Mapping[str, Any]) -> CausalVideoVAEConfig:
        """From a `config.json`.

        Plain entries that the class has no field for are left out, as diffusers does: what they tell cannot
        change its layers. Real files have some (`clip_output` in Wan 2.2 TI2V-5B; frames are always clamped).

        Raises:
            ModelError: another class's configuration, an entry of another type, or one that is an object of
                its own and no part of this class (`quantization_config`).
        """
        class_name = config.get("_class_name", "AutoencoderKLWan")
        if class_name not in ("AutoencoderKLWan", "CausalVideoVAE"):
            raise ModelError(
                f"config.json is of a {class_name}, not of an AutoencoderKLWan; pass another folder."
            )
        known = {field.name for field in fields(CausalVideoVAEConfig)}
        values: dict[str, Any] = {
            name: value
            for name, value in config.items()  # scale_factor_*, too, are left out: the layers make the stride
            if not name.startswith("_") and (name in known or isinstance(value, Mapping))
        }
        return CausalVideoVAEConfig(**typed(CausalVideoVAEConfig, values, "VAE"))
