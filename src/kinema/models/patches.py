"""The linear, frozen maps between groups of frames and latents.

A clip is cut into `patch x patch` squares, and in time into the first frame alone and then groups of `time`
frames. With p_f the patch of frame f, m their mean over the group and d_f = p_f - m, the latent of a patch is

    [ s_i <u_i, m - c> , t_j <w_j, (d_1 .. d_4)> ]        i < mean_channels, j < deviation_channels

where u and w are principal axes fitted to data. For a single frame every d_f is zero, so an image is a
clip of one latent frame. The scales keep the data's natural spectrum: a channel's standard deviation is
`const * std_i ** spectrum`, not 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from kinema.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PatchCodecConfig:
    """The sizes of a codec.

    Attributes:
        patch: side of a patch in pixels, the stride in space.
        time: frames of a group, the stride in time.
        mean_channels: latent channels for a group's mean frame.
        deviation_channels: latent channels for its frames' deviations from the mean.
        spectrum: 0 whitens the channels, 1 keeps the data's own standard deviations.
        width: channels of the decoder's blocks at the latent grid.
        blocks: number of those blocks.
        fine: channels of the decoder's features at full size.
        lapped: whether the decoder also corrects each patch linearly from its 3x3 neighbours. Large patches
            do without: that layer grows with the square of the patch.
    """

    patch: int = 8
    time: int = 4
    mean_channels: int = 48
    deviation_channels: int = 48
    spectrum: float = 0.6
    width: int = 192
    blocks: int = 3
    fine: int = 8
    lapped: bool = True

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in asdict(self).items() if k not in ("spectrum", "lapped")}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ConfigError(
                    f"{name}={size!r} is not a whole number of at least 1; set it in the config."
                )
        if self.mean_channels > self.pixels or self.deviation_channels > (self.time - 1) * self.pixels:
            raise ConfigError(
                f"mean_channels={self.mean_channels}, deviation_channels={self.deviation_channels} exceed "
                f"what a patch holds; at most {self.pixels} and {(self.time - 1) * self.pixels}."
            )

    @property
    def pixels(self) -> int:
        """Numbers in one patch of one frame: red, green and blue of each pixel."""
        return 3 * self.patch**2


class PatchProjection(nn.Module):
    """The frozen linear maps between the pixels of a group of frames and one latent frame."""

    centre: Tensor
    mean_basis: Tensor
    mean_scale: Tensor
    deviation_basis: Tensor
    deviation_scale: Tensor

    def __init__(self, config: PatchCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("centre", torch.zeros(config.pixels))
        self.register_buffer("mean_basis", torch.zeros(config.pixels, config.mean_channels).fill_diagonal_(1))
        self.register_buffer("mean_scale", torch.ones(config.mean_channels))
        self.register_buffer(
            "deviation_basis",
            torch.zeros(config.time * config.pixels, config.deviation_channels).fill_diagonal_(1),
        )
        self.register_buffer("deviation_scale", torch.ones(config.deviation_channels))

    def set_axes(
        self,
        centre: Tensor,
        mean_basis: Tensor,
        mean_std: Tensor,
        deviation_basis: Tensor,
        deviation_std: Tensor,
    ) -> None:
        """Take fitted principal axes.

        The scales give channel i the standard deviation `const * std_i ** spectrum`, with one constant
        that makes the mean variance over all channels 1. Values are rounded to float16, which is what files
        hold, so that the encoder in memory and the encoder on disk are one.
        """
        std = torch.cat([mean_std, deviation_std]).double().clamp_min(1e-4)
        natural = std**self.config.spectrum
        scale = natural / std / natural.square().mean().sqrt()
        mean_scale, deviation_scale = scale.tensor_split([self.config.mean_channels])
        new = {
            "centre": centre,
            "mean_basis": mean_basis,
            "mean_scale": mean_scale,
            "deviation_basis": deviation_basis,
            "deviation_scale": deviation_scale,
        }
        for name, value in new.items():
            getattr(self, name).copy_(value.half())

    def forward(self, frames_BCfHW: Tensor) -> Tensor:
        """One group of frames (1 or `time` of them) as one latent frame `[B, C, Y, X]`."""
        p = self.config.patch
        patches = rearrange(frames_BCfHW, "b c f (y p) (x q) -> b y x f (c p q)", p=p, q=p).contiguous()
        mean = patches.mean(dim=3)
        latent = (mean - self.centre) @ self.mean_basis * self.mean_scale
        if patches.shape[3] == 1:
            deviation = latent.new_zeros(*latent.shape[:3], self.config.deviation_channels)
        else:
            deviations = rearrange(patches - mean.unsqueeze(3), "b y x f d -> b y x (f d)")
            deviation = deviations @ self.deviation_basis * self.deviation_scale
        both: Tensor = rearrange(torch.cat([latent, deviation], dim=-1), "b y x c -> b c y x")
        return both.contiguous()

    def inverse(self, latent_BCYX: Tensor, frames: int) -> Tensor:
        """One latent frame as `frames` (1 or `time`) frames `[B, 3, f, H, W]`, not clamped."""
        c = self.config
        both = rearrange(latent_BCYX, "b c y x -> b y x c")
        mean, deviation = both.tensor_split([c.mean_channels], dim=-1)
        patches = ((mean / self.mean_scale) @ self.mean_basis.T + self.centre).unsqueeze(3)
        if frames > 1:
            deviations = (deviation / self.deviation_scale) @ self.deviation_basis.T
            patches = patches + rearrange(deviations, "b y x (f d) -> b y x f d", f=frames)
        frames_BCfHW: Tensor = rearrange(
            patches, "b y x f (c p q) -> b c f (y p) (x q)", p=c.patch, q=c.patch
        )
        return frames_BCfHW
