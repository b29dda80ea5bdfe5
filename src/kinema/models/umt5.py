"""UMT5's encoder, which Wan reads its prompts with, in plain torch.

    x = x + O softmax(q k^T + bias(j - i)) v        over rms-normalised x, logits not scaled
    x = x + W_o (gelu(W_0 x) * W_1 x)               likewise

Every layer has its own table of relative positions (Chung et al. 2023, arXiv:2304.09151; buckets as in T5,
arXiv:1910.10683). Parameter names are those of transformers' `UMT5EncoderModel`, whose states these are; that
library is not imported, which takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinema.models.config_values import typed
from kinema.models.weights import bare, check_amount, load_into, load_state, read_config

TABLE, TIED = "shared.weight", "encoder.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class UMT5Config:
    """Sizes of a UMT5 encoder, under the names of its `config.json`."""

    vocab_size: int = 250112
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    @staticmethod
    def from_mapping(data: Mapping[str, object]) -> UMT5Config:
        """Take the sizes; what is no size is ignored."""
        sizes: dict[str, Any] = {f.name: data[f.name] for f in fields(UMT5Config) if f.name in data}
        return UMT5Config(**typed(UMT5Config, sizes, "text encoder"))


def known(config: Mapping[str, object]) -> bool:
    """Whether a `config.json` describes the encoder of this module, gate and all."""
    gate = config.get("feed_forward_proj", "gated-gelu")
    return config.get("model_type") == "umt5" and gate == "gated-gelu"


class Encoded(NamedTuple):
    """What the encoder gives; the name is transformers'."""

    last_hidden_state: Tensor


class Norm(nn.Module):
    """`w x / rms(x)`, the mean square in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """The shape of `x`, in the type of the weight where that is half precision."""
        x = x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (x.to(self.weight.dtype) if self.weight.dtype.itemsize == 2 else x)


class SelfAttention(nn.Module):
    """Attention with a bias for every relative position."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        width, inner = config.d_model, config.num_heads * config.d_kv
        self.heads, self.farthest = config.num_heads, config.relative_attention_max_distance
        self.q, self.k, self.v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, width, bias=False)
        self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x_KLD: Tensor, mask_KL: Tensor) -> Tensor:
        """Attend to the tokens where `mask_KL` is true."""
        q, k, v = (
            rearrange(layer(x_KLD), "K L (H E) -> K H L E", H=self.heads)
            for layer in (self.q, self.k, self.v)
        )
        buckets_LL = bucket(x_KLD.shape[1], len(self.relative_attention_bias.weight), self.farthest)
        bias = rearrange(self.relative_attention_bias(buckets_LL.to(x_KLD.device)), "L M H -> 1 H L M")
        bias = bias.to(q.dtype).masked_fill(~rearrange(mask_KL, "K M -> K 1 1 M"), -torch.inf)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        out_KLD: Tensor = self.o(rearrange(mixed, "K H L E -> K L (H E)"))
        return out_KLD


def bucket(length: int, buckets: int, farthest: int) -> Tensor:
    """The bucket of each query's distance to each key, `[L, L]`: half of them for either side.

    Near distances have one each; from a quarter of the buckets on they grow by a factor, up to `farthest`.
    """
    place = torch.arange(length)
    distance = place[None, :] - place[:, None]
    side, near = buckets // 2, buckets // 4
    far = torch.log(distance.abs().float() / near) / math.log(farthest / near) * (side - near)
    far = (near + far.clamp(min=0).long()).clamp(max=side - 1)
    return side * (distance > 0).long() + torch.where(distance.abs() < near, distance.abs(), far)


class FeedForward(nn.Module):
    """The gated half of a layer."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D] -> [..., D]`; the last product in float32 where its weight is kept so."""
        hidden = F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x)
        out: Tensor = self.wo(hidden.to(self.wo.weight.dtype))
        return out


class Layer(nn.Module):
    """One half of a block with the norm before it; `name` is its part's in the checkpoint."""

    def __init__(self, name: str, part: nn.Module, config: UMT5Config) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, part)
        self.layer_norm = Norm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x_KLD: Tensor, *given: Tensor) -> Tensor:
        """`x + part(norm(x))`, kept inside float16's range where it is that."""
        x_KLD = x_KLD + self.get_submodule(self.name)(self.layer_norm(x_KLD), *given)
        if x_KLD.dtype != torch.float16:
            return x_KLD
        most = torch.finfo(torch.float16).max - 1000 * bool(torch.isinf(x_KLD).any())
        return x_KLD.clamp(-most, most)


class Block(nn.Module):
    """Both halves."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            [
                Layer("SelfAttention", SelfAttention(config), config),
                Layer("DenseReluDense", FeedForward(config), config),
            ]
        )

    def forward(self, x_KLD: Tensor, mask_KL: Tensor) -> Tensor:
        """`[K, L, D] -> [K, L, D]`."""
        out_KLD: Tensor = self.layer[1](self.layer[0](x_KLD, mask_KL))
        return out_KLD


class UMT5Encoder(nn.Module):
    """Token ids in, token states out.

    Args:
        config: its sizes.
    """

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = nn.ModuleDict(
            {
                "block": nn.ModuleList([Block(config) for _ in range(config.num_layers)]),
                "final_layer_norm": Norm(config.d_model, config.layer_norm_epsilon),
            }
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the states."""
        return self.shared.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.shared.weight.device

    def forward(self, ids_KL: Tensor, attention_mask: Tensor) -> Encoded:
        """States `[K, L, D]` of K prompts; padding, where the mask is 0, is not read."""
        x_KLD, mask_KL = self.shared(ids_KL), attention_mask.bool()
        blocks = self.encoder["block"]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x_KLD = block(x_KLD, mask_KL)
        return Encoded(self.encoder["final_layer_norm"](x_KLD))

    @staticmethod
    def from_folder(
        folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> UMT5Encoder:
        """Read `config.json` and the safetensors beside it.

        Raises:
            ModelError: a file is missing or damaged, or tensors are missing or of other shapes.
        """
        with bare():
            model = UMT5Encoder(UMT5Config.from_mapping(read_config(folder)))
        check_amount(model, folder, "model")
        state = load_state(folder, "model", dtype=partial(precision, dtype=dtype), device=device)
        table = state.pop(TIED, None)
        if table is not None:
            state.setdefault(TABLE, table)
        load_into(model, state, folder)
        return model.requires_grad_(False).eval()


def precision(name: str, dtype: torch.dtype) -> torch.dtype:
    """The last products overflow in float16 and are kept in float32 then, as transformers does."""
    return torch.float32 if dtype == torch.float16 and name.endswith(".wo.weight") else dtype
