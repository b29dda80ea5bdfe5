"""Encoder and decoder of the causal video VAE, in both of Wan's layouts.

Plain (2.1): levels of residual blocks with a step down or up between them. Residual (2.2): the same, and
around each level a weightless shortcut (`fold`, `unfold`). Parameter names equal those of diffusers'
`AutoencoderKLWan`.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from kinema.models.vae_config import CausalVideoVAEConfig
from kinema.models.vae_layers import (
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    ResidualBlock,
    StreamState,
    Upsample,
    added,
    fold,
    pair,
    unfold,
)


class MidBlock(nn.Module):
    """Residual block, attention within each frame, residual block."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([FrameAttention(channels)])
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels, dropout) for _ in range(2)])

    def forward(self, x_BCFYX: Tensor, state: StreamState) -> Tensor:
        """`[B, C, F, Y, X]`."""
        for layer in (self.resnets[0], self.attentions[0], self.resnets[1]):
            x_BCFYX = layer(x_BCFYX, state)
        return x_BCFYX


class DownBlock(nn.Module):
    """A level of the Wan 2.2 encoder: residual blocks and a step down, beside a weightless `fold`."""

    def __init__(self, channels_in: int, channels_out: int, config: CausalVideoVAEConfig, level: int) -> None:
        super().__init__()
        self.channels_out = channels_out
        down = level < len(config.temperal_downsample)
        self.time = 2 if down and config.temperal_downsample[level] else 1
        self.space = 2 if down else 1
        widths = [channels_in, *[channels_out] * config.num_res_blocks]
        self.resnets = nn.ModuleList([ResidualBlock(a, b, config.dropout) for a, b in pairwise(widths)])
        self.downsampler = Downsample(channels_out, time=self.time == 2) if down else None

    def forward(self, x_BCFYX: Tensor, state: StreamState) -> Tensor:
        """`[B, C, F, Y, X] -> [B, C', F / time, Y / space, X / space]`."""
        shortcut = fold(x_BCFYX, self.channels_out, time=self.time, space=self.space)
        for resnet in self.resnets:
            x_BCFYX = resnet(x_BCFYX, state)
        if self.downsampler is not None:
            x_BCFYX = self.downsampler(x_BCFYX, state)
        return added(x_BCFYX, state.cut(self, shortcut))


class UpBlock(nn.Module):
    """A level of the decoder: residual blocks, then a step up in size, except at the last level.

    In the Wan 2.2 layout a weightless `unfold` of the level's input joins its output.
    """

    def __init__(self, channels_in: int, channels_out: int, config: CausalVideoVAEConfig, level: int) -> None:
        super().__init__()
        self.channels_out = channels_out
        times = config.temperal_downsample[::-1]
        self.up = level < len(times)
        self.time = 2 if self.up and times[level] else 1
        widths = [channels_in, *[channels_out] * (config.num_res_blocks + 1)]
        self.resnets = nn.ModuleList([ResidualBlock(a, b, config.dropout) for a, b in pairwise(widths)])
        self.residual = config.is_residual
        if self.up and config.is_residual:
            self.upsampler = Upsample(channels_out, channels_out, time=self.time == 2)
        elif self.up:
            upsampler = Upsample(channels_out, channels_out // 2, time=self.time == 2)
            self.upsamplers = nn.ModuleList([upsampler])

    def forward(self, x_BCFYX: Tensor, state: StreamState) -> Tensor:
        """`[B, C, F, Y, X] -> [B, C', F * time, 2 Y, 2 X]`."""
        y = x_BCFYX
        for resnet in self.resnets:
            y = resnet(y, state)
        if not self.up:
            return y
        if not self.residual:
            out: Tensor = self.upsamplers[0](y, state)
            return out
        y = self.upsampler(y, state)
        large = unfold(x_BCFYX, self.channels_out, time=self.time, space=2, first=not state.started)
        return added(y, state.cut(self, large))


class Encoder(nn.Module):
    """Chunks of frames to the moments of chunks of latents."""

    def __init__(self, config: CausalVideoVAEConfig) -> None:
        super().__init__()
        widths = [config.base_dim * m for m in (1, *config.dim_mult)]
        self.conv_in = CausalConv3d(config.in_channels, widths[0], 3)
        self.down_blocks = nn.ModuleList()
        for level, (width_in, width) in enumerate(pairwise(widths)):
            level_of = _residual_level if config.is_residual else _plain_level
            self.down_blocks.extend(level_of(width_in, width, config, level))
        wide = [i for i, layer in enumerate(self.down_blocks) if isinstance(layer, FrameAttention)]
        self.local = min(wide, default=len(self.down_blocks))  # levels before the first attention
        self.mid_block = MidBlock(widths[-1], config.dropout)
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], 2 * config.z_dim, 3)
        halvings = [i for i, layer in enumerate(self.down_blocks) if _halves_frames(layer)]
        for layer in (self.conv_in, *self.down_blocks[: max(halvings, default=-1) + 1]) if halvings else ():
            pair(layer)

    def forward(self, x_BCFHW: Tensor, state: StreamState) -> Tensor:
        """The clip's first frame, or `stride.time` later ones, to moments `[B, 2 C, 1, Y, X]`."""
        return self.leave(self.descend(x_BCFHW, state), state)

    def descend(self, x_BCFHW: Tensor, state: StreamState) -> Tensor:
        """What sees only neighbouring positions: `[B, C', f, Y, X]`, in tiles if wanted."""
        x = state.cut(self.conv_in, self.conv_in(x_BCFHW, state))
        for block in self.down_blocks[: self.local]:
            x = block(x, state)
        return x

    def leave(self, x: Tensor, state: StreamState) -> Tensor:
        """The rest, which sees whole frames."""
        for block in (*self.down_blocks[self.local :], self.mid_block):
            x = block(x, state)
        out: Tensor = self.conv_out(self.norm_out.activated(x), state)
        return out


def _halves_frames(layer: nn.Module) -> bool:
    step = layer.downsampler if isinstance(layer, DownBlock) else layer
    return isinstance(step, Downsample) and step.time_conv is not None


def _residual_level(width_in: int, width: int, config: CausalVideoVAEConfig, level: int) -> list[nn.Module]:
    return [DownBlock(width_in, width, config, level)]


def _plain_level(width_in: int, width: int, config: CausalVideoVAEConfig, level: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for a, b in pairwise([width_in, *[width] * config.num_res_blocks]):
        layers.append(ResidualBlock(a, b, config.dropout))
        if 2.0**-level in config.attn_scales:
            layers.append(FrameAttention(width))
    if level < len(config.temperal_downsample):
        layers.append(Downsample(width, time=config.temperal_downsample[level]))
    return layers


class Decoder(nn.Module):
    """Chunks of latent frames to chunks of frames."""

    def __init__(self, config: CausalVideoVAEConfig) -> None:
        super().__init__()
        base = config.decoder_base_dim or config.base_dim
        widths = [base * m for m in (config.dim_mult[-1], *config.dim_mult[::-1])]
        self.conv_in = CausalConv3d(config.z_dim, widths[0], 3)
        self.mid_block = MidBlock(widths[0], config.dropout)
        self.up_blocks = nn.ModuleList()
        for level, (width_in, width) in enumerate(pairwise(widths)):
            halved = level > 0 and not config.is_residual  # the step up before this level halved the channels
            self.up_blocks.append(UpBlock(width_in // 2 if halved else width_in, width, config, level))
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], config.out_channels, 3)
        times = config.temperal_downsample[::-1]
        if True in times:  # from the level after the first that doubles the frames
            for layer in (*self.up_blocks[times.index(True) + 1 :], self.conv_out):
                pair(layer)

    def forward(self, z_BCTYX: Tensor, state: StreamState) -> Tensor:
        """`[B, C, T, Y, X]` to `stride.time` frames each; the clip's first, which comes alone, to one."""
        return self.rise(self.enter(z_BCTYX, state), state)

    def enter(self, z_BCTYX: Tensor, state: StreamState) -> Tensor:
        """What sees whole latent frames: `[B, C', T, Y, X]`."""
        x: Tensor = self.mid_block(self.conv_in(z_BCTYX, state), state)
        return x

    def rise(self, x: Tensor, state: StreamState) -> Tensor:
        """The rest, which sees only neighbouring positions; in tiles if wanted."""
        for block in self.up_blocks:
            x = block(x, state)
        return state.cut(self.conv_out, self.conv_out(self.norm_out.activated(x), state))
