"""The causal video VAE of Wan: frames in -1..1 to latents of mean 0 and deviation 1, and back.

    T = 1 + (F - 1) / 4,   z = (mu(frames) - mean) / std,   frames = D(z * std + mean)

The first pixel frame is coded alone, then groups of four, a latent frame each. Encoder and decoder run
chunk by chunk with an explicit `StreamState`, so memory does not grow with length, and a stream is the whole
clip's decode to the last bit; on a CPU a longer clip also begins with the bits of a shorter one.

Both layouts of Wan (https://arxiv.org/abs/2503.20314) are here: 2.1 (stride 4 x 8 x 8), and 2.2 5B
(`is_residual`: 4 x 16 x 16, with pixel patches and weightless shortcuts). Parameter names equal those of
diffusers' `AutoencoderKLWan`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from kinema.core.errors import GeometryError
from kinema.models.vae_budget import Budget
from kinema.models.vae_coders import Decoder, Encoder
from kinema.models.vae_config import CausalVideoVAEConfig
from kinema.models.vae_layers import CHANNELS_LAST, CausalConv3d, StreamState
from kinema.models.vae_passes import Coder, decode_tiles, encode_tiles
from kinema.models.vae_tiles import Cuts, Tiles, downwards, upwards
from kinema.models.weights import bare, load_into, load_state, read_config
from kinema.models.winograd import GROWTH, Packed, kernels_for

AT_ONCE = 4  # latent frames, at most; kernels are full by then

__all__ = ["CausalVideoVAE", "CausalVideoVAEConfig", "StreamState", "Tiles"]


class CausalVideoVAE(nn.Module):
    """The VAE between pixels and the latents that a video transformer sees.

    `encode`, `decode` and `stream` keep no gradients; `moments`, `decode_chunk` and `forward` do.
    """

    def __init__(self, config: CausalVideoVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.stride = config.stride
        self.latent_channels = config.z_dim
        self.packed: dict[nn.Module, Packed] = {}  # weights as compiled kernels want them, between passes
        self.at_once: int | None = None  # latent frames decoded together; None: as suits the device
        self.encoder = Encoder(config)
        self.quant_conv = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, 1)
        self.post_quant_conv = CausalConv3d(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder(config)

    @property
    def memory(self) -> int:
        """How many earlier latent frames a decoded frame depends on, at most.

        Each causal convolution of the decoder looks two frames back, at the rate of its level.
        """
        config, rate = self.config, 1
        back = 2.0 + 2 * 4  # the way in, and two residual blocks of two convolutions
        for level in range(len(config.dim_mult)):
            back += 4 * (config.num_res_blocks + 1) / rate
            if level < len(config.temperal_downsample) and config.temperal_downsample[::-1][level]:
                back, rate = back + 2 / rate, 2 * rate
        return math.ceil(back + 2 / rate)

    @classmethod
    def from_folder(
        cls, folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> CausalVideoVAE:
        """The VAE of a diffusers component folder, for evaluation.

        Raises:
            ModelError: files are missing, damaged or pickled, or do not fit each other.
        """
        with bare():
            model = cls(CausalVideoVAEConfig.from_mapping(read_config(folder)))
        load_into(model, load_state(folder, dtype=dtype, device=device), folder)
        return model.requires_grad_(False).eval()

    # no_grad rather than inference_mode: tensors made in the latter could not enter a training graph.
    @torch.no_grad()
    def encode(self, frames_BCFHW: Tensor, *, tiles: Tiles | None = None) -> Tensor:
        """Normalised latents `[B, C, T, Y, X]` (the posterior's mode) of frames in -1..1.

        With `tiles` the result is the same but for rounding, in less memory and more time.

        Raises:
            GeometryError: the frames do not fit the stride.
        """
        mean_BCTYX, _ = self.moments(frames_BCFHW, tiles=tiles)
        centre, scale = self._statistics(mean_BCTYX)
        return ((mean_BCTYX - centre) / scale).contiguous()

    @torch.no_grad()
    def encode_parts(self, parts: Iterable[Tensor]) -> Tensor:
        """`encode` of a clip that comes in parts, to the same bits: its first frame, then `stride.time` each.

        A part is asked for when the one before is encoded, so that memory does not grow with length.

        Raises:
            GeometryError: the frames do not fit the stride.
        """
        state, means = self.beginning(), list[Tensor]()
        for part_BCFHW in parts:
            if not state.started:
                self._check(part_BCFHW)
            means.append(self.encode_chunk(part_BCFHW, state).chunk(2, dim=1)[0])
        mean_BCTYX = torch.cat(means, dim=2)
        centre, scale = self._statistics(mean_BCTYX)
        return ((mean_BCTYX - centre) / scale).contiguous()

    def moments(self, frames_BCFHW: Tensor, *, tiles: Tiles | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, `[B, C, T, Y, X]` each, not normalised."""
        self._check(frames_BCFHW)
        time, length = self.stride.time, frames_BCFHW.shape[2]
        chunks = torch.split(frames_BCFHW, [1, *[time] * ((length - 1) // time)], dim=2)
        if tiles is None:
            state = self.beginning()
            parts = [self.encode_chunk(chunk, state) for chunk in chunks]
        else:
            parts = self._moments_in_tiles(frames_BCFHW, chunks, tiles)
        mean, log_variance = torch.cat(parts, dim=2).chunk(2, dim=1)
        return mean, log_variance

    @torch.no_grad()
    def decode(self, latents_BCTYX: Tensor, *, tiles: Tiles | None = None) -> Tensor:
        """Frames `[B, 3, F, H, W]` in -1..1 of normalised latents; the frames of `stream`, joined.

        With `tiles` the result is the same but for rounding, in less memory and more time.
        """
        out, start = self._canvas(latents_BCTYX), 0
        for chunk in self.stream(latents_BCTYX, tiles=tiles):
            out[:, :, start : start + chunk.shape[2]] = chunk
            start += chunk.shape[2]
        return out

    @torch.no_grad()
    def stream(self, latents_BCTYX: Tensor, *, tiles: Tiles | None = None) -> Iterator[Tensor]:
        """The frames in -1..1 of one latent frame after the other: one, then `stride.time` each.

        Memory does not grow with the clip's length. With `tiles` it is what the largest tile needs, and the
        frames of `tiles.frames` latent frames, which come together.
        """
        chunks = self._chunks(latents_BCTYX) if tiles is None else self._in_tiles(latents_BCTYX, tiles)
        for joined in chunks:
            frames = [few.clamp(-1, 1) for few in torch.split(joined, self.stride.time, dim=2)]
            del joined  # what comes next needs the room
            while frames:
                yield frames.pop(0)

    def forward(self, frames_BCFHW: Tensor) -> Tensor:
        """The reconstruction through the posterior's mean, with gradients, not clamped."""
        mean_BCTYX, _ = self.moments(frames_BCFHW)
        state = StreamState()
        return torch.cat([self.decode_chunk(z, state) for z in torch.split(mean_BCTYX, 1, dim=2)], dim=2)

    @torch.no_grad()
    def needs(self, shape_BCTYX: Sequence[int], tiles: Tiles | None = None) -> int:
        """About how many bytes `stream` works in for latents of this shape, beside the weights."""
        return self._budget.need(shape_BCTYX, tiles, at_once=self.at_once or 1)

    @torch.no_grad()
    def tiles(self, shape_BCTYX: Sequence[int], room: int) -> Tiles | None:
        """The tiles with which latents of this shape are decoded fastest in `room` bytes; None for the whole.

        Raises:
            ResourceError: not even the smallest fit.
        """
        return self._budget.choose(shape_BCTYX, room)

    @property
    def unprepared(self) -> int:
        """Bytes, about, that a decode takes for good to prepare weights for compiled kernels."""
        layers = (layer for layer in self.decoder.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d))
        kernels = [x.weight for x in layers if x not in self.packed and kernels_for(x.weight, x.weight)]
        return sum(round(GROWTH * weight.nbytes) for weight in kernels)

    def beginning(self, cuts: Cuts | None = None) -> StreamState:
        """The state of a pass before its first frame; `cuts` are a tile's."""
        return StreamState(packed=self.packed, cuts=cuts or {})

    def _apply(self, *args: Any, **kwargs: Any) -> CausalVideoVAE:
        """Weights that move or change their type leave nothing behind."""
        self.packed.clear()
        moved: CausalVideoVAE = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return moved

    def encode_chunk(self, frames_BCFHW: Tensor, state: StreamState) -> Tensor:
        """The first frame, or `stride.time` later ones, to `[B, 2 C, 1, Y, X]`; `state` moves on."""
        return self._to_moments(self._from_pixels(frames_BCFHW, state), state)

    def decode_chunk(self, z_BCTYX: Tensor, state: StreamState) -> Tensor:
        """Latent frames, not normalised, to `[B, 3, f, H, W]`; `state` moves on; the first comes alone."""
        assert state.started or z_BCTYX.shape[2] == 1, "the first latent frame is decoded alone"
        return self._to_pixels(self._from_latents(z_BCTYX, state), state)

    def _from_pixels(self, frames_BCFHW: Tensor, state: StreamState) -> Tensor:
        """The encoder's local half."""
        x = self.encoder.descend(self._enter(patchify(frames_BCFHW, self._patch)), state)
        state.started = True
        return x

    def _to_moments(self, x: Tensor, state: StreamState) -> Tensor:
        """The rest of the encoder, which sees whole frames."""
        moments: Tensor = self.quant_conv(self.encoder.leave(x, state), state)
        return moments

    def _from_latents(self, z_BCTYX: Tensor, state: StreamState) -> Tensor:
        """The decoder as far as it sees whole frames."""
        return self.decoder.enter(self.post_quant_conv(self._enter(z_BCTYX), state), state)

    def _to_pixels(self, x: Tensor, state: StreamState) -> Tensor:
        """The decoder's local half."""
        out = self.decoder.rise(x, state)
        state.started = True
        return unpatchify(out, self._patch)

    def _raw(self, latents_BCTYX: Tensor) -> Tensor:
        """Latents as the decoder takes them, not normalised."""
        centre, scale = self._statistics(latents_BCTYX)
        return latents_BCTYX.float() * scale + centre

    def _chunks(self, latents_BCTYX: Tensor) -> Iterator[Tensor]:
        """The frames of each chunk of latent frames of a clip, not clamped."""
        state = self.beginning()
        for z_BCTYX in torch.split(latents_BCTYX, self._cuts(latents_BCTYX), dim=2):
            yield self.decode_chunk(self._raw(z_BCTYX), state)

    def _in_tiles(self, latents_BCTYX: Tensor, tiles: Tiles) -> Iterator[Tensor]:
        """The same in tiles."""
        route = upwards(self.decoder, self._patch)
        coder = Coder(
            whole=lambda z, state: self._from_latents(self._raw(z), state),
            local=self._to_pixels,
            tiles=route.tiles(tiles, latents_BCTYX.shape[3:], latents_BCTYX.shape[3:]),
            beginning=self.beginning,
        )
        parts = torch.split(latents_BCTYX, tiles.frames or latents_BCTYX.shape[2], dim=2)
        cuts = [
            _lengths(part.shape[2], self.at_once or 1, alone=not index) for index, part in enumerate(parts)
        ]
        chunks = [torch.split(part, lengths, dim=2) for part, lengths in zip(parts, cuts, strict=True)]
        yield from decode_tiles(coder, chunks, lambda index: self._canvas(parts[index], alone=not index))

    def _moments_in_tiles(self, frames_BCFHW: Tensor, chunks: Sequence[Tensor], tiles: Tiles) -> list[Tensor]:
        """Moments of each chunk of a clip."""
        height, width = frames_BCFHW.shape[3:]
        latent = height // self.stride.space, width // self.stride.space
        route = downwards(self.encoder, self._patch)
        coder = Coder(
            whole=self._to_moments,
            local=self._from_pixels,
            tiles=route.tiles(tiles, (height // self._patch, width // self._patch), latent),
            beginning=self.beginning,
        )
        return list(encode_tiles(coder, chunks))

    def _cuts(self, latents_BCTYX: Tensor) -> list[int]:
        """How many latent frames are decoded at once: the first alone, then `at_once` or what is left."""
        size = self.at_once or latent_frames_at_once(self._bytes(latents_BCTYX), latents_BCTYX.device)
        return _lengths(latents_BCTYX.shape[2], size, alone=True)

    def _bytes(self, latents_BCTYX: Tensor) -> int:
        """About what decoding one latent frame holds at once: five activations of the widest level."""
        batch, _, _, rows, columns = latents_BCTYX.shape
        side = self.stride.space // self._patch
        channels = self.config.dim_mult[0] * (self.config.decoder_base_dim or self.config.base_dim)
        frame = channels * rows * columns * side**2 * self.quant_conv.weight.element_size()
        return 5 * batch * self.stride.time * frame

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each latent channel, `[C, 1, 1, 1]`, on the device of `like`."""
        both = torch.tensor((self.config.latents_mean, self.config.latents_std), device=like.device)
        centre, scale = both[..., None, None, None]
        return centre, scale

    def _enter(self, x: Tensor) -> Tensor:
        """In the weights' precision, channels last in memory."""
        return x.to(self.quant_conv.weight.dtype).contiguous(memory_format=CHANNELS_LAST)

    def _canvas(self, latents_BCTYX: Tensor, *, alone: bool = True) -> Tensor:
        """Room for the frames of latents, of which the first may stand alone."""
        batch, _, length, rows, columns = latents_BCTYX.shape
        channels, space = self.config.out_channels // self._patch**2, self.stride.space
        frames = self.stride.pixel_frames(length) if alone else self.stride.time * length
        shape = (batch, channels, frames, rows * space, columns * space)
        return torch.empty(shape, dtype=self.quant_conv.weight.dtype, device=latents_BCTYX.device)

    @property
    def _budget(self) -> Budget:
        return Budget(self.decoder, self.stride)

    @property
    def _patch(self) -> int:
        return self.config.patch_size or 1

    def _check(self, frames_BCFHW: Tensor) -> None:
        frames, height, width = frames_BCFHW.shape[2:]
        time, space = self.stride.time, self.stride.space
        if height % space or width % space or not height or not width:
            near = [max(round(side / space), 1) * space for side in (width, height)]
            raise GeometryError(
                f"{width}x{height} is not a multiple of {space}; the nearest size is {near[0]}x{near[1]}."
            )
        if frames < 1 or (frames - 1) % time:
            low = max((frames - 1) // time, 0) * time + 1
            raise GeometryError(
                f"frames={frames} is not 1 + a multiple of {time}; "
                f"the nearest lengths are {low} and {low + time}."
            )


def _lengths(length: int, size: int, *, alone: bool) -> list[int]:
    """Of chunks of `size`; the first frame alone if wanted."""
    rest = length - alone
    return [1] * alone + [size] * (rest // size) + [rest % size] * (rest % size > 0)


def latent_frames_at_once(bytes_each: int, device: torch.device) -> int:
    """How many latent frames to decode together.

    On a CPU one: more gains nothing there. On a GPU up to four, in a quarter of the memory that is free.
    """
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(AT_ONCE, (free + idle) // 4 // bytes_each))


def patchify(x_BCFHW: Tensor, patch: int) -> Tensor:
    """Pixel patches into channels (columns of a patch vary slower than its rows, as in Wan 2.2)."""
    patches: Tensor = rearrange(x_BCFHW, "B C F (H p) (W q) -> B (C q p) F H W", p=patch, q=patch)
    return patches


def unpatchify(x_BCFHW: Tensor, patch: int) -> Tensor:
    """The reverse of `patchify`."""
    pixels: Tensor = rearrange(x_BCFHW, "B (C q p) F H W -> B C F (H p) (W q)", p=patch, q=patch)
    return pixels
