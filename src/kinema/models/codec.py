"""A causal video VAE whose encoder is linear and frozen and whose decoder is learned.

The encoder projects patches of groups of frames on principal axes (`kinema.models.patches`), the first frame
alone and then groups of four, so an image is a clip of one latent frame. The decoder is the inverse of these
projections plus a small network that learns what they lose:

    frames = P^-1 z + detail(z, P^-1 z, past),    past: one map per block, from the latent frame before
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.contracts import Stride
from kinema.core.errors import GeometryError, ModelError
from kinema.models.config_values import check_code, typed
from kinema.models.patches import PatchCodecConfig, PatchProjection
from kinema.models.uninitialised import Uninitialised
from kinema.models.weight_files import read_object, require_files
from kinema.models.weights import bare, check_amount, load_state

__all__ = ["MISSED", "DecoderState", "DetailDecoder", "PatchCodec", "PatchCodecConfig"]

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MISSED = 0.05  # about what the linear codec misses (rms, frames in -1..1); the decoder works in this unit


@dataclass(frozen=True, slots=True)
class DecoderState:
    """The decoder's memory of earlier latent frames: per block, the last input of its mix `[B, D, Y, X]`."""

    past: tuple[Tensor, ...]


class ChannelNorm(nn.Module):
    """n(x) = gain * x / rms(x) over the channels of each position; sees neither time nor space."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x_BDYX: Tensor) -> Tensor:
        """`[B, D, Y, X]` in, the same out."""
        return self.gain * x_BDYX * torch.rsqrt(x_BDYX.square().mean(dim=1, keepdim=True) + 1e-6)


class MatrixConv(nn.Module):
    """A convolution over space, zero padded, whose weight is kept as a matrix `[out, in * side * side]`.

    A matrix is what optimisers that orthogonalise their steps (Muon) work on.
    """

    def __init__(self, channels: int, out: int, side: int) -> None:
        super().__init__()
        self.shape = (out, channels, side, side)
        self.weight = nn.Parameter(torch.zeros(out, channels * side * side))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x_BDYX: Tensor) -> Tensor:
        """`[B, in, Y, X]` in, `[B, out, Y, X]` out."""
        return F.conv2d(x_BDYX, self.weight.view(self.shape), self.bias, padding=self.shape[3] // 2)


class CausalBlock(nn.Module):
    """Residual block at the latent grid that mixes each latent frame with the one before it.

    y = x + W_2 silu(W_1 silu(M [n(x), past])), where past is n(x) of the latent frame before.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.mix = MatrixConv(2 * width, width, 1)
        self.inner = MatrixConv(width, width, 3)
        self.outer = MatrixConv(width, width, 3)

    def forward(self, x_BDYX: Tensor, past_BDYX: Tensor | None) -> tuple[Tensor, Tensor]:
        """The block's output, and what the next latent frame needs as its past; None is a past of zeros."""
        now = self.norm(x_BDYX)
        past = torch.zeros_like(now) if past_BDYX is None else past_BDYX
        y = F.silu(self.mix(torch.cat([now, past], dim=1)))
        return x_BDYX + self.outer(F.silu(self.inner(y))), now


class DetailDecoder(nn.Module):
    """The learned part: what is missing from the linear reconstruction of one latent frame.

    Each patch is corrected from its 3x3 neighbours linearly (`lapped`) and from the blocks' view of more of
    them and of the past (`patches`); then two layers at full size smooth the seams between patches. All
    corrections are zero before training. A patch has one slot for a lone first frame, then one per frame of
    a group.
    """

    spread: Tensor

    def __init__(self, config: PatchCodecConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.mean_channels + config.deviation_channels
        area = (1 + config.time) * config.patch**2
        self.register_buffer("spread", torch.ones(channels, 1, 1))
        self.enter = MatrixConv(channels, config.width, 3)
        self.blocks = nn.ModuleList(CausalBlock(config.width) for _ in range(config.blocks))
        if config.lapped:
            self.lapped = MatrixConv(channels, area * 3, 3)
        self.patches = MatrixConv(config.width, area * 3, 1)
        self.features = MatrixConv(config.width, area * config.fine, 1)
        self.smooth = MatrixConv(config.fine + 3, 2 * config.fine, 3)
        self.leave = MatrixConv(2 * config.fine, 3, 3)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from `generator`; the corrections are zero: the start is the linear codec."""
        for module in self.modules():
            if isinstance(module, MatrixConv):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear", generator=generator)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, CausalBlock):  # small branches: depth does not raise the variance
                module.outer.weight.data.mul_(0.1)
        for layer in (*([self.lapped] if self.config.lapped else []), self.patches, self.leave):
            nn.init.zeros_(layer.weight)

    def set_spread(self, std_C: Tensor) -> None:
        """Take the latents' standard deviations: whitened, the small channels with the detail count too."""
        self.spread.copy_(std_C.clamp_min(1e-2).half().view(-1, 1, 1))

    def forward(
        self, latent_BCYX: Tensor, rough_BCfHW: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState]:
        """Frames `[B, 3, f, H, W]` that improve on `rough_BCfHW`, and the state for the next latent frame."""
        x_BDYX, state = self.trunk(latent_BCYX, state)
        patches = self.patches(x_BDYX)
        if self.config.lapped:
            patches = patches + self.lapped(latent_BCYX / self.spread)
        grid = torch.cat([patches, self.features(x_BDYX)], dim=1)
        return self._full_size(grid, rough_BCfHW), state

    def trunk(self, latent_BCYX: Tensor, state: DecoderState | None) -> tuple[Tensor, DecoderState]:
        """The blocks' output `[B, D, Y, X]` for one latent frame, and the state for the next."""
        x_BDYX = self.enter(latent_BCYX / self.spread)
        past: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x_BDYX, tap_BDYX = block(x_BDYX, state.past[i] if state else None)
            past.append(tap_BDYX)
        return x_BDYX, DecoderState(tuple(past))

    def slots(self, frames: int) -> slice:
        """Which of a patch's slots hold 1 (lone) or `time` frames."""
        return slice(0, 1) if frames == 1 else slice(1, 1 + self.config.time)

    def _full_size(self, grid_BDYX: Tensor, rough_BCfHW: Tensor) -> Tensor:
        frames, p = rough_BCfHW.shape[2], self.config.patch
        full = rearrange(
            grid_BDYX,
            "b (c f p q) y x -> b f c (y p) (x q)",
            f=1 + self.config.time,
            p=p,
            q=p,
        )
        full = rearrange(full[:, self.slots(frames)], "b f c h w -> (b f) c h w")
        rough = rearrange(rough_BCfHW, "b c f h w -> (b f) c h w")
        better = rough + MISSED * full[:, :3]
        seams = self.leave(F.silu(self.smooth(torch.cat([better, full[:, 3:]], dim=1))))
        frames_BCfHW: Tensor = rearrange(better + MISSED * seams, "(b f) c h w -> b c f h w", f=frames)
        return frames_BCfHW


class PatchCodec(nn.Module):
    """Causal video VAE: linear frozen encoder, learned decoder, exact streaming.

    Frames are `[B, 3, F, H, W]` in -1..1 with H and W multiples of the patch (8); latents
    `[B, C, T, H / 8, W / 8]` have a mean channel variance of about 1. With `first=True` (a clip from its
    beginning) F = 1 + 4 (T - 1); with `first=False` (the continuation of a clip) every latent frame stands
    for 4 frames, F = 4 T.
    """

    def __init__(self, config: PatchCodecConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config = config or PatchCodecConfig()
        self.stride = Stride(config.time, config.patch)
        self.latent_channels = config.mean_channels + config.deviation_channels
        self.projection = PatchProjection(config)
        self.decoder = DetailDecoder(config)
        self.decoder.initialise(torch.Generator().manual_seed(seed))

    @property
    def memory(self) -> int:
        """How many earlier latent frames a decoded frame depends on: one for each block."""
        return self.config.blocks

    def encode(self, frames_BCFHW: Tensor, *, first: bool = True) -> Tensor:
        """Frames in -1..1 as latents `[B, C, T, Y, X]`; `GeometryError` when they do not fit the grid."""
        self._check(frames_BCFHW, first)
        frames = frames_BCFHW.to(self.projection.centre.dtype)
        heads = [frames[:, :, :1]] if first else []
        groups = torch.split(frames[:, :, len(heads) :], self.config.time, dim=2)
        # Each group is projected by itself: an image and the first frame of a clip then get the same bits.
        latents = [self.projection(group) for group in (*heads, *groups) if group.shape[2]]
        return torch.stack(latents, dim=2)

    def encode_parts(self, parts: Iterable[Tensor]) -> Tensor:
        """`encode` of a clip that comes in parts, to the same bits: its first frame, then `stride.time` each.

        A part is asked for when the one before is encoded, so that memory does not grow with length.
        """
        latents: list[Tensor] = []
        for part_BCFHW in parts:
            latents.append(self.encode(part_BCFHW, first=not latents))
        return torch.cat(latents, dim=2)

    def decode(
        self,
        latents_BCTYX: Tensor,
        *,
        first: bool = True,
        state: DecoderState | None = None,
    ) -> Tensor:
        """Latents as frames `[B, 3, F, H, W]` in -1..1: the frames of `stream`, joined."""
        return torch.cat(list(self.stream(latents_BCTYX, first=first, state=state)), dim=2)

    def stream(
        self,
        latents_BCTYX: Tensor,
        *,
        first: bool = True,
        state: DecoderState | None = None,
    ) -> Iterator[Tensor]:
        """Frames of one latent frame after the other: 1 for a clip's first, `time` for others; in -1..1."""
        for index, latent_BCYX in enumerate(latents_BCTYX.unbind(dim=2)):
            lone = first and index == 0
            frames, state = self.decode_step(latent_BCYX, state, lone=lone)
            yield frames.clamp(-1, 1)

    def decode_step(
        self,
        latent_BCYX: Tensor,
        state: DecoderState | None = None,
        *,
        lone: bool = False,
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
        """Frames without the learned decoder: cheap previews, and the decoder's starting point."""
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
        """Read what `save` wrote, in float32, for evaluation; `ModelError` when it is missing or damaged."""
        folder = Path(folder)
        config = _read_config(folder / CONFIG)
        state = load_state(folder, WEIGHTS.removesuffix(".safetensors"))
        with bare():
            check_amount(cls(config), folder, WEIGHTS.removesuffix(".safetensors"))
        with Uninitialised():
            codec = cls(config)
        try:
            codec.load_state_dict(state)
        except RuntimeError as error:
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
                f"the nearest size is {_nearest(width, patch)}x{_nearest(height, patch)}."
            )
        head = int(first)
        if frames < 1 or (frames - head) % time:
            rule = f"1 + a multiple of {time}" if first else f"a positive multiple of {time}"
            low = max(frames - (frames - head) % time, 1 if first else time)
            raise GeometryError(
                f"frames={frames} is not {rule}; the nearest lengths are {low} and {low + time}."
            )


def _nearest(length: int, patch: int) -> int:
    return max(1, round(length / patch)) * patch


def _read_config(path: Path) -> PatchCodecConfig:
    require_files(path.parent, path.name)
    data = read_object(path)
    fields = PatchCodecConfig.__dataclass_fields__
    kind = data.get("_class_name")
    if kind != PatchCodec.__name__:
        raise ModelError(
            f"{path}: holds {kind!r}, not a PatchCodec; pass a folder that PatchCodec.save wrote."
        )
    check_code(data, path)
    sizes = {k: v for k, v in data.items() if k in fields}
    return PatchCodecConfig(**typed(PatchCodecConfig, sizes, "codec"))
