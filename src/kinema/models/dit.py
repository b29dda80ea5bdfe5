"""The video diffusion transformer: latents, a noise level per latent frame and texts in; a velocity out.

The block is Wan's (https://arxiv.org/abs/2503.20314, and diffusers' `WanTransformer3DModel`, whose parameter
names these are): self-attention with three-dimensional rotary positions, cross-attention to text,
feed-forward; one time modulation shared by all blocks plus a small table of each block's own. Beyond that
class, and free when unused:

- every latent frame has its own timestep `[B, T]`, so a held frame is simply one at 0;
- every latent frame has its own weights over K prompts `[B, T, K]`;
- the keys and values of texts and images are computed once per clip (`prepare`), not once per step;
- the pooled text may join the time embedding (`pooled_dim`);
- what the noisy latents alone tell of the velocity may go past the blocks (`noise_skip`).

`embed`, `trunk` and `unembed` are separate so that caches and previews can wrap the trunk.

Letters beside the package's: H heads, E width of a head, P tokens per latent frame, M modulation rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinema.core.contracts import AttentionGuidance
from kinema.core.errors import ModelError
from kinema.models.attention import attend
from kinema.models.config_values import typed
from kinema.models.layers import (
    Attention,
    Embedder,
    FeedForward,
    foretold,
    place_waves,
    rotary_table,
    rotate,
    sinusoids,
)
from kinema.models.nag import away

# Tables, layer norms and the time embedding stay in fp32 beside half-precision matrices: small changes add up
# there, and CUDA's layer norm refuses an input of another type than its weights.
FP32_PARTS = ("time_embedder", "scale_shift_table", "norm2", "image_embedder.norm1")

__all__ = ["FP32_PARTS", "Conditioning", "Context", "VideoDiT", "VideoDiTConfig", "rotate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoDiTConfig:
    """The shape of a `VideoDiT`; field names are those of diffusers' `config.json` for Wan.

    Attributes:
        patch_size: latent frames, rows and columns that one token covers.
        image_dim: width of image tokens (CLIP), for models that take them.
        added_kv_proj_dim: width that image tokens have inside the blocks; set together with `image_dim`.
        pos_embed_seq_len: image tokens that get a learned position (first-last-frame models).
        pooled_dim: width of a pooled text state added to the time embedding; None in Wan.
        position_waves: waves per axis that tell a token its place in the frame (0..1), whatever the size;
            rotary positions alone only tell distances. 0 in Wan.
        noise_skip: the blocks tell only what `layers.foretold` leaves untold. False in Wan.
    """

    patch_size: tuple[int, int, int] = (1, 2, 2)
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    eps: float = 1e-6
    image_dim: int | None = None
    added_kv_proj_dim: int | None = None
    pos_embed_seq_len: int | None = None
    pooled_dim: int | None = None
    position_waves: int = 0
    noise_skip: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that the layers cannot have."""
        if self.patch_size[0] != 1:
            raise ModelError(
                f"patch_size={self.patch_size}: a token must cover one latent frame (first entry 1)."
            )
        if self.attention_head_dim % 2:
            raise ModelError(
                f"attention_head_dim={self.attention_head_dim} must be even for rotary positions."
            )
        if self.noise_skip and self.in_channels != self.out_channels:
            raise ModelError(
                f"noise_skip needs as many channels out as in, not {self.in_channels} in and "
                f"{self.out_channels} out; leave it out for models that take a mask or an image."
            )

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @staticmethod
    def from_mapping(config: Mapping[str, Any]) -> VideoDiTConfig:
        """From a `config.json`; refuses settings that this class does not implement."""
        values = {k: v for k, v in config.items() if not k.startswith("_")}
        values.pop("rope_max_seq_len", None)  # our tables are as long as the clip
        if values.pop("qk_norm", "rms_norm_across_heads") != "rms_norm_across_heads":
            raise ModelError(
                f"qk_norm={config['qk_norm']!r} is not supported; Wan uses 'rms_norm_across_heads'."
            )
        values["out_channels"] = values.get("out_channels") or values.get("in_channels", 16)
        return VideoDiTConfig(**typed(VideoDiTConfig, values, "transformer"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditioning:
    """What a clip is told, before the model has seen it.

    Attributes:
        states_BKLD: token states of K prompts per sample.
        bias_BKL: log-weight of every token: 0 plain, -inf for padding; None when all are 0.
        weights_BTK: share of each prompt in each latent frame, summing to 1; None for a single prompt.
        pooled_BKD: one state per prompt, for models with `pooled_dim`.
        image_BND: image tokens, for models with `image_dim`.
        negative: a second text from which attention is led away.
        by: how far; set together with `negative`.
    """

    states_BKLD: Tensor
    bias_BKL: Tensor | None = None
    weights_BTK: Tensor | None = None
    pooled_BKD: Tensor | None = None
    image_BND: Tensor | None = None
    negative: Conditioning | None = None
    by: AttentionGuidance | None = None

    def at(self, frames: list[int]) -> Conditioning:
        """The same over these latent frames."""
        return _at(self, frames)


@dataclass(frozen=True, slots=True)
class Context:
    """A `Conditioning` as the blocks read it: keys and values of every block, `[B, K, H, L, E]` each.

    Blocks whose numbers are in `skipped` are left out.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    bias_BKL: Tensor | None
    weights_BTK: Tensor | None
    pooled_BKD: Tensor | None
    image: tuple[tuple[Tensor, Tensor], ...] | None
    negative: Context | None = None
    by: AttentionGuidance | None = None
    skipped: frozenset[int] = frozenset()

    def at(self, frames: list[int]) -> Context:
        """The same prompts over these latent frames; one without weight in them is not computed."""
        return _at(self, frames)

    def led(self, negative: Context, by: AttentionGuidance) -> Context:
        """The same prompts, from which attention is led away of others."""
        return replace(self, negative=negative, by=by)

    def skipping(self, blocks: frozenset[int]) -> Context:
        """The same prompts to a transformer without these blocks."""
        return replace(self, skipped=blocks)

    def of_block(self, index: int) -> Context:
        """What one block reads; its calls are then alike, and a compiler makes one graph for all of them."""
        image = None if self.image is None else (self.image[index],)
        negative = None if self.negative is None else self.negative.of_block(index)
        keys, values = (self.keys[index],), (self.values[index],)
        return replace(self, keys=keys, values=values, image=image, negative=negative)


Told = TypeVar("Told", Conditioning, Context)


def _at(told: Told, frames: list[int]) -> Told:
    negative = None if told.negative is None else told.negative.at(frames)
    weights = None if told.weights_BTK is None else told.weights_BTK[:, frames]
    return replace(told, weights_BTK=weights, negative=negative)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What `embed` hands to `trunk` and `unembed` beside the tokens themselves."""

    grid_TYX: tuple[int, int, int]
    time_BTD: Tensor
    modulation_BTMD: Tensor
    cos_NE: Tensor
    sin_NE: Tensor
    foretold_BCTYX: Tensor | None = None


def read_texts(q_BHNE: Tensor, context: Context, frames: int) -> Tensor:
    """What tokens read from one block's texts, led away from the negative one where there is one."""
    out = mix_prompts(q_BHNE, context.keys[0], context.values[0], context, frames)
    other, by = context.negative, context.by
    if other is None or by is None:
        return out
    return away(out, mix_prompts(q_BHNE, other.keys[0], other.values[0], other, frames), by)


def mix_prompts(
    q_BHNE: Tensor, keys_BKHLE: Tensor, values_BKHLE: Tensor, context: Context, frames: int
) -> Tensor:
    """`sum_k w[f, k] * attention(q_f, K_k, V_k)` over the prompts whose weight is above 0.

    Frames that give a prompt no weight are left out of its attention.
    """
    bias = context.bias_BKL
    if context.weights_BTK is None:
        assert keys_BKHLE.shape[1] == 1, "several prompts need weights"
        return attend(q_BHNE, keys_BKHLE[:, 0], values_BKHLE[:, 0], None if bias is None else bias[:, 0])
    q_BHTPE = rearrange(q_BHNE, "B H (T P) E -> B H T P E", T=frames)
    out_BHTPE = torch.zeros_like(q_BHTPE)
    for k in range(keys_BKHLE.shape[1]):
        used = torch.nonzero((context.weights_BTK[:, :, k] > 0).any(dim=0))[:, 0]
        if len(used):
            q = rearrange(q_BHTPE[:, :, used], "B H T P E -> B H (T P) E")
            part = attend(q, keys_BKHLE[:, k], values_BKHLE[:, k], None if bias is None else bias[:, k])
            weight = context.weights_BTK[:, None, used, None, None, k].type_as(part)
            out_BHTPE[:, :, used] += weight * rearrange(part, "B H (T P) E -> B H T P E", T=len(used))
    return rearrange(out_BHTPE, "B H T P E -> B H (T P) E")


def modulate(x_BND: Tensor, shift_BTD: Tensor, scale_BTD: Tensor, eps: float) -> Tensor:
    """Layer norm without parameters, then each latent frame's scale and shift, in fp32."""
    normed = F.layer_norm(x_BND.float(), x_BND.shape[-1:], eps=eps)
    frames = rearrange(normed, "B (T P) D -> B T P D", T=shift_BTD.shape[1])
    out = frames * (1 + scale_BTD[:, :, None]) + shift_BTD[:, :, None]
    return rearrange(out, "B T P D -> B (T P) D").type_as(x_BND)


def gated(x_BND: Tensor, update_BND: Tensor, gate_BTD: Tensor) -> Tensor:
    """`x + gate * update` with one gate per latent frame, in fp32."""
    update = rearrange(update_BND.float(), "B (T P) D -> B T P D", T=gate_BTD.shape[1]) * gate_BTD[:, :, None]
    return (x_BND.float() + rearrange(update, "B T P D -> B (T P) D")).type_as(x_BND)


def _drawn(rows: int, width: int) -> nn.Parameter:
    """`[1, rows, width]` of variance 1 / width, by an initialiser: those are skipped on the meta device."""
    return nn.Parameter(nn.init.normal_(torch.empty(1, rows, width), std=width**-0.5))


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward."""

    def __init__(self, config: VideoDiTConfig) -> None:
        super().__init__()
        width, heads, eps = config.width, config.num_attention_heads, config.eps
        self.eps = eps
        self.attn1 = Attention(width, heads, eps=eps)
        self.attn2 = Attention(width, heads, eps=eps, image_width=config.added_kv_proj_dim)
        self.norm2 = nn.LayerNorm(width, eps=eps) if config.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(width, config.ffn_dim, width)
        self.scale_shift_table = _drawn(6, width)

    def forward(self, x_BND: Tensor, tokens: Tokens, context: Context) -> Tensor:
        """One residual pass; `context` holds this block's keys and values only."""
        rows = (self.scale_shift_table + tokens.modulation_BTMD.float()).unbind(dim=2)
        shift1, scale1, gate1, shift2, scale2, gate2 = rows
        x_BND = gated(
            x_BND, self.attn1(modulate(x_BND, shift1, scale1, self.eps), tokens.cos_NE, tokens.sin_NE), gate1
        )
        x_BND = x_BND + self.read(self.norm2(x_BND.float()).type_as(x_BND), tokens, context)
        return gated(x_BND, self.ffn(modulate(x_BND, shift2, scale2, self.eps)), gate2)

    def read(self, x_BND: Tensor, tokens: Tokens, context: Context) -> Tensor:
        """Cross-attention to the texts and, for models that have them, to image tokens."""
        q_BHNE = self.attn2.queries(x_BND)
        out = read_texts(q_BHNE, context, tokens.grid_TYX[0])
        if context.image is not None:
            out = out + attend(q_BHNE, *context.image[0])
        return self.attn2.merge(out)


class ImageEmbedder(nn.Module):
    """CLIP tokens to the model's width; first-last-frame models add a learned position over both images."""

    def __init__(self, width_in: int, width: int, positions: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width_in)
        self.ff = FeedForward(width_in, width_in, width, approximate="none")
        self.norm2 = nn.LayerNorm(width)
        self.pos_embed = None if positions is None else nn.Parameter(torch.zeros(1, positions, width_in))

    def forward(self, image_BND: Tensor) -> Tensor:
        """`[B, N, width_in] -> [B, N, width]`, N over all images of the sample."""
        if self.pos_embed is not None:
            image_BND = image_BND + self.pos_embed
        out: Tensor = self.norm2(self.ff(self.norm1(image_BND.float()).type_as(image_BND)).float())
        return out.type_as(image_BND)


class ConditionEmbedder(nn.Module):
    """Timesteps, texts and image tokens to the model's width."""

    def __init__(self, config: VideoDiTConfig) -> None:
        super().__init__()
        self.freq_dim = config.freq_dim
        self.time_embedder = Embedder(config.freq_dim, config.width, activation="silu")
        self.time_proj = nn.Linear(config.width, 6 * config.width)
        self.text_embedder = Embedder(config.text_dim, config.width, activation="gelu_tanh")
        if config.pooled_dim is not None:
            self.pooled_embedder = Embedder(config.pooled_dim, config.width, activation="silu")
        if config.image_dim is not None:
            self.image_embedder = ImageEmbedder(config.image_dim, config.width, config.pos_embed_seq_len)

    def time(self, timestep_BT: Tensor, pooled_BTD: Tensor | None) -> tuple[Tensor, Tensor]:
        """The time embedding `[B, T, D]` and the blocks' modulation `[B, T, 6, D]`."""
        waves = sinusoids(timestep_BT, self.freq_dim)
        time_BTD = self.time_embedder(waves.to(self.time_embedder.linear_1.weight.dtype))
        if pooled_BTD is not None:
            time_BTD = time_BTD + self.pooled_embedder(pooled_BTD)
        time_BTD = time_BTD.to(self.time_proj.weight.dtype)
        return time_BTD, rearrange(self.time_proj(F.silu(time_BTD)), "B T (M D) -> B T M D", M=6)


class VideoDiT(nn.Module):
    """The transformer.

    Args:
        config: its shape.
    """

    def __init__(self, config: VideoDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv3d(
            config.in_channels, config.width, kernel_size=config.patch_size, stride=config.patch_size
        )
        if config.position_waves:
            self.position_embedding = nn.Linear(4 * config.position_waves, config.width, bias=False)
            nn.init.zeros_(self.position_embedding.weight)
        self.condition_embedder = ConditionEmbedder(config)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.proj_out = nn.Linear(config.width, config.out_channels * math.prod(config.patch_size))
        self.scale_shift_table = _drawn(2, config.width)

    @property
    def dtype(self) -> torch.dtype:
        """Of the large matrices; norms and tables may be kept in fp32 beside it."""
        return self.proj_out.weight.dtype

    def each_block(self) -> Iterator[Block]:
        """The blocks, typed."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def blocks_of(self, part: range) -> Iterator[Block]:
        """Some of the blocks, in order."""
        return islice(self.each_block(), part.start, part.stop)

    def prepare(self, conditioning: Conditioning) -> Context:
        """Run everything that depends on the prompts alone; once per clip."""
        K = conditioning.states_BKLD.shape[1]
        states = rearrange(conditioning.states_BKLD.to(self.dtype), "B K L D -> (B K) L D")
        text_NLD = self.condition_embedder.text_embedder(states)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for block in self.each_block():
            for store, heads in zip((keys, values), block.attn2.keys_values(text_NLD), strict=True):
                store.append(rearrange(heads, "(B K) H L E -> B K H L E", K=K))
        image = None
        if conditioning.image_BND is not None:
            image_BND = self.condition_embedder.image_embedder(conditioning.image_BND.to(self.dtype))
            image = tuple(block.attn2.image_keys_values(image_BND) for block in self.each_block())
        return Context(
            tuple(keys),
            tuple(values),
            conditioning.bias_BKL,
            conditioning.weights_BTK,
            conditioning.pooled_BKD,
            image,
            None if conditioning.negative is None else self.prepare(conditioning.negative),
            conditioning.by,
        )

    def embed(self, x_BCTYX: Tensor, timestep_BT: Tensor, context: Context) -> tuple[Tensor, Tokens]:
        """Latents to tokens `[B, N, D]`, with all that the blocks need to know of time and place."""
        x_BDTYX = self.patch_embedding(x_BCTYX.to(self.dtype))
        T, Y, X = x_BDTYX.shape[2:]
        time_BTD, modulation_BTMD = self.condition_embedder.time(timestep_BT, self.pooled(context, T))
        angle = rotary_table(self.config.attention_head_dim, (T, Y, X)).to(x_BDTYX.device)
        known = foretold(x_BCTYX, timestep_BT) if self.config.noise_skip else None
        tokens = Tokens((T, Y, X), time_BTD, modulation_BTMD, angle.cos(), angle.sin(), known)
        x_BND = rearrange(x_BDTYX, "B D T Y X -> B (T Y X) D").contiguous()
        if self.config.position_waves:
            waves_ND = place_waves((T, Y, X), self.config.position_waves).to(x_BND)
            x_BND = x_BND + self.position_embedding(waves_ND)
        return x_BND, tokens

    def pooled(self, context: Context, frames: int) -> Tensor | None:
        """Each latent frame's pooled text: the prompts' states, mixed as the prompts are."""
        if self.config.pooled_dim is None:
            return None
        assert context.pooled_BKD is not None, "this model needs pooled text states"
        pooled = context.pooled_BKD.to(self.dtype)
        if context.weights_BTK is None:
            return repeat(pooled[:, 0], "B D -> B T D", T=frames)
        return torch.einsum("btk,bkd->btd", context.weights_BTK.type_as(pooled), pooled)

    def trunk(
        self, x_BND: Tensor, tokens: Tokens, context: Context, first: int = 0, last: int | None = None
    ) -> Tensor:
        """All blocks, or those from `first` to before `last`."""
        part = range(*slice(first, last).indices(len(self.blocks)))
        for index, block in zip(part, self.blocks_of(part), strict=True):
            if index not in context.skipped:
                x_BND = block(x_BND, tokens, context.of_block(index))
        return x_BND

    def unembed(self, x_BND: Tensor, tokens: Tokens) -> Tensor:
        """Tokens back to a velocity shaped like the latents."""
        table = self.scale_shift_table + tokens.time_BTD.float()[:, :, None]
        shift_BTD, scale_BTD = table.unbind(dim=2)
        out = self.proj_out(modulate(x_BND, shift_BTD, scale_BTD, self.config.eps))
        T, Y, X = tokens.grid_TYX
        t, y, x = self.config.patch_size
        pattern = "B (T Y X) (t y x C) -> B C (T t) (Y y) (X x)"
        v_BCTYX = rearrange(out, pattern, T=T, Y=Y, X=X, t=t, y=y, x=x)
        return v_BCTYX if tokens.foretold_BCTYX is None else v_BCTYX + tokens.foretold_BCTYX

    def forward(self, x_BCTYX: Tensor, timestep_BT: Tensor, context: Context) -> Tensor:
        """The velocity at `x`.

        Args:
            x_BCTYX: noisy latents (with mask and image channels appended, for models that take them).
            timestep_BT: noise level of each latent frame, times 1000.
            context: from `prepare`.

        Returns:
            `[B, out_channels, T, Y, X]`.
        """
        x_BND, tokens = self.embed(x_BCTYX, timestep_BT, context)
        return self.unembed(self.trunk(x_BND, tokens, context), tokens)
