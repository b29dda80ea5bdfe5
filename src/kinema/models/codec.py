"""A causal video VAE whose encoder is linear and frozen and whose decoder is learned.

A clip is cut into `patch x patch` squares, and in time into the first frame alone and then groups of `time`
frames. With p_f the patch of frame f, m their mean over the group and d_f = p_f - m, the latent of a patch is

    [ s_i <u_i, m - c> , t_j <w_j, (d_1 .. d_4)> ]        i < mean_channels, j < deviation_channels

where u and w are principal axes fitted to data. For a single frame every d_f is zero, so an image is a clip of
one latent frame. The scales keep the data's natural spectrum: a channel's standard deviation is
`const * std_i ** spectrum`, not 1. The decoder is the inverse of these projections plus a small network
that learns what they lose; it sees the current latent frame and, through one remembered map per block,
the earlier ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.contracts import Stride
from kinema.core.errors import ConfigError, GeometryError, ModelError

WEIGHTS, CONFIG = "model.safetensors", "config.json"


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
        fine: channels of the decoder at full size.
    """

    patch: int = 8
    time: int = 4
    mean_channels: int = 48
    deviation_channels: int = 48
    spectrum: float = 0.6
    width: int = 192
    blocks: int = 3
    fine: int = 12

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in asdict(self).items() if k != "spectrum"}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ConfigError(
                    f"{name}={size!r} is not a whole number of at least 1; set it in the config."
                )
        if self.mean_channels > self.pixels or self.deviation_channels > (self.time - 1) * self.pixels:
            raise ConfigError(
                f"mean_channels={self.mean_channels}, deviation_channels={self.deviation_channels} exceed what "
                f"a patch holds; at most {self.pixels} and {(self.time - 1) * self.pixels}."
            )

    @property
    def pixels(self) -> int:
        """Numbers in one patch of one frame: red, green and blue of each pixel."""
        return 3 * self.patch**2


@dataclass(frozen=True, slots=True)
class DecoderState:
    """What the decoder remembers of earlier latent frames: per block, the last input of its time mix `[B, D, Y, X]`."""

    past: tuple[Tensor, ...]


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
        self.register_buffer("mean_basis", torch.eye(config.pixels, config.mean_channels))
        self.register_buffer("mean_scale", torch.ones(config.mean_channels))
        self.register_buffer(
            "deviation_basis", torch.eye(config.time * config.pixels, config.deviation_channels)
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
        mean_scale, deviation_scale = scale.split([self.config.mean_channels, self.config.deviation_channels])
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
        return rearrange(torch.cat([latent, deviation], dim=-1), "b y x c -> b c y x").contiguous()

    def inverse(self, latent_BCYX: Tensor, frames: int) -> Tensor:
        """One latent frame as `frames` (1 or `time`) frames `[B, 3, f, H, W]`, not clamped."""
        c = self.config
        both = rearrange(latent_BCYX, "b c y x -> b y x c")
        mean, deviation = both.split([c.mean_channels, c.deviation_channels], dim=-1)
        patches = ((mean / self.mean_scale) @ self.mean_basis.T + self.centre).unsqueeze(3)
        if frames > 1:
            deviations = (deviation / self.deviation_scale) @ self.deviation_basis.T
            patches = patches + rearrange(deviations, "b y x (f d) -> b y x f d", f=frames)
        return rearrange(patches, "b y x f (c p q) -> b c f (y p) (x q)", p=c.patch, q=c.patch)


class CausalBlock(nn.Module):
    """Residual block at the latent grid that mixes each latent frame with the one before it.

    y = x + W_2 silu(W_1 silu(M [n(x), past])),  n(x) = gain * x / rms(x) over channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1, 1))
        self.mix = nn.Conv2d(2 * width, width, 1)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BDYX: Tensor, past_BDYX: Tensor | None) -> tuple[Tensor, Tensor]:
        """The block's output, and what the next latent frame needs as its past; no past is a past of zeros."""
        now = self.gain * x_BDYX * torch.rsqrt(x_BDYX.square().mean(dim=1, keepdim=True) + 1e-6)
        past = torch.zeros_like(now) if past_BDYX is None else past_BDYX
        y = F.silu(self.mix(torch.cat([now, past], dim=1)))
        return x_BDYX + self.outer(F.silu(self.inner(y))), now


class DetailDecoder(nn.Module):
    """The learned part: what is missing from the linear reconstruction of one latent frame."""

    def __init__(self, config: PatchCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Conv2d(config.mean_channels + config.deviation_channels, config.width, 3, padding=1)
        self.blocks = nn.ModuleList(CausalBlock(config.width) for _ in range(config.blocks))
        self.spread = nn.Conv2d(config.width, config.time * config.fine * config.patch**2, 1)
        self.smooth = nn.Conv2d(config.fine + 3, 2 * config.fine, 3, padding=1)
        self.leave = nn.Conv2d(2 * config.fine, 3, 3, padding=1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from `generator`; the last layer starts at zero, so the linear codec is the start."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for block in self.blocks:  # residual branches start small, so that depth does not raise the variance
            block.outer.weight.data.mul_(0.1)
        nn.init.zeros_(self.leave.weight)

    def forward(
        self, latent_BCYX: Tensor, rough_BCfHW: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState]:
        """The frames `[B, 3, f, H, W]` that improve on `rough_BCfHW`, and the state for the next latent frame."""
        frames, p = rough_BCfHW.shape[2], self.config.patch
        x = self.enter(latent_BCYX)
        past: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x, tap = block(x, state.past[i] if state else None)
            past.append(tap)
        fine = rearrange(
            self.spread(F.silu(x)), "b (f c p q) y x -> b f c (y p) (x q)", f=self.config.time, p=p, q=p
        )
        # A lone first frame uses the last slot, the one whose neighbour in time is the next group.
        fine = rearrange(fine[:, -frames:], "b f c h w -> (b f) c h w")
        rough = rearrange(rough_BCfHW, "b c f h w -> (b f) c h w")
        detail = self.leave(F.silu(self.smooth(torch.cat([fine, rough.to(fine.dtype)], dim=1))))
        detail = rearrange(detail, "(b f) c h w -> b c f h w", f=frames)
        return rough_BCfHW + detail, DecoderState(tuple(past))


class PatchCodec(nn.Module):
    """Causal video VAE: linear frozen encoder, learned decoder, exact streaming.

    Frames are `[B, 3, F, H, W]` in -1..1 with H and W multiples of `stride.space`; latents `[B, C, T, H / 8, W / 8]`
    have a mean channel variance of about 1. With `first=True` (a clip from its beginning) F = 1 + 4 (T - 1);
    with `first=False` (the continuation of a clip) every latent frame stands for 4 frames, F = 4 T.
    """

    def __init__(self, config: PatchCodecConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config = config or PatchCodecConfig()
        self.stride = Stride(config.time, config.patch)
        self.latent_channels = config.mean_channels + config.deviation_channels
        self.projection = PatchProjection(config)
        self.decoder = DetailDecoder(config)
        self.decoder.initialise(torch.Generator().manual_seed(seed))

    def encode(self, frames_BCFHW: Tensor, *, first: bool = True) -> Tensor:
        """Frames in -1..1 as latents `[B, C, T, Y, X]`; `GeometryError` when they do not fit the grid."""
        self._check(frames_BCFHW, first)
        frames = frames_BCFHW.to(self.projection.centre.dtype)
        heads = [frames[:, :, :1]] if first else []
        groups = frames[:, :, len(heads) :].split(self.config.time, dim=2)
        # Each group is projected by itself: an image and the first frame of a clip then get the same bits.
        latents = [self.projection(group) for group in (*heads, *groups) if group.shape[2]]
        return torch.stack(latents, dim=2)

    def decode(
        self, latents_BCTYX: Tensor, *, first: bool = True, state: DecoderState | None = None
    ) -> Tensor:
        """Latents as frames `[B, 3, F, H, W]` in -1..1: the frames of `stream`, joined."""
        return torch.cat(list(self.stream(latents_BCTYX, first=first, state=state)), dim=2)

    def stream(
        self, latents_BCTYX: Tensor, *, first: bool = True, state: DecoderState | None = None
    ) -> Iterator[Tensor]:
        """Frames of one latent frame after the other: 1 for a clip's first, `time` for the others; in -1..1."""
        for index, latent_BCYX in enumerate(latents_BCTYX.unbind(dim=2)):
            lone = first and index == 0
            frames, state = self.decode_step(latent_BCYX, state, lone=lone)
            yield frames.clamp(-1, 1)

    def decode_step(
        self, latent_BCYX: Tensor, state: DecoderState | None = None, *, lone: bool = False
    ) -> tuple[Tensor, DecoderState]:
        """Decode one latent frame.

        Args:
            latent_BCYX: the latent frame.
            state: what the step before returned; None at a clip's beginning.
            lone: the latent frame stands for one frame (a clip's first) and not for `time`.

        Returns:
            Frames `[B, 3, 1 or time, H, W]`, not clamped, and the state for the next step.
        """
        latent = latent_BCYX.to(self.projection.centre.dtype)
        rough = self.projection.inverse(latent, 1 if lone else self.config.time)
        frames, state = self.decoder(latent, rough, state)
        return frames, state

    def linear_decode(self, latents_BCTYX: Tensor, *, first: bool = True) -> Tensor:
        """The reconstruction without the learned decoder: cheap previews, and the decoder's starting point."""
        steps = [
            self.projection.inverse(z, 1 if first and i == 0 else self.config.time)
            for i, z in enumerate(latents_BCTYX.unbind(dim=2))
        ]
        return torch.cat(steps, dim=2).clamp(-1, 1)

    def encoder_sha256(self) -> str:
        """Identity of the frozen encoder: latents made with one hash fit every decoder of the same hash."""
        digest = hashlib.sha256()
        for name, value in sorted(self.projection.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors` (float16) and `config.json`; both appear whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().cpu().half().contiguous() for k, v in self.state_dict().items()}
        part = folder / f"{WEIGHTS}.part"
        save_file(tensors, part)
        part.replace(folder / WEIGHTS)
        config = {
            "_class_name": type(self).__name__,
            **asdict(self.config),
            "encoder_sha256": self.encoder_sha256(),
        }
        part = folder / f"{CONFIG}.part"
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        part.replace(folder / CONFIG)

    @classmethod
    def from_folder(cls, folder: str | Path) -> PatchCodec:
        """Read what `save` wrote, in float32 and evaluation mode; `ModelError` when it is missing or damaged."""
        folder = Path(folder)
        config = _read_config(folder / CONFIG)
        codec = cls(config)
        try:
            codec.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"{folder / WEIGHTS}: not this codec's weights ({reason}); fetch it again."
            ) from None
        return codec.requires_grad_(False).eval()

    def _check(self, frames_BCFHW: Tensor, first: bool) -> None:
        frames, height, width = frames_BCFHW.shape[2:]
        patch, time = self.config.patch, self.config.time
        if height % patch or width % patch:
            raise GeometryError(
                f"{width}x{height} is not a multiple of {patch}; "
                f"the nearest size is {round(width / patch) * patch}x{round(height / patch) * patch}."
            )
        rest = frames - 1 if first else frames
        if rest % time or frames < 1:
            rule = f"1 + a multiple of {time}" if first else f"a multiple of {time}"
            low = max(rest - rest % time, 0) + int(first)
            raise GeometryError(
                f"frames={frames} is not {rule}; the nearest lengths are {low or time} and {low + time}."
            )


def _read_config(path: Path) -> PatchCodecConfig:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(
            f"{path}: no readable codec config; pass a folder that PatchCodec.save wrote."
        ) from None
    fields = PatchCodecConfig.__dataclass_fields__
    if data.get("_class_name") != PatchCodec.__name__:
        raise ModelError(
            f"{path}: holds {data.get('_class_name')!r}, not a PatchCodec; pass a codec's folder."
        )
    return PatchCodecConfig(**{k: v for k, v in data.items() if k in fields})
