"""MiniLM, the text encoder of the embedded model: a BERT of 6 layers, 384 wide, in plain torch.

Each layer is `h = norm(x + attention(x))`, `x = norm(h + W_2 gelu(W_1 h))`, over the sum of word, position
and type embeddings (Devlin et al. 2019, arXiv:1810.04805; distilled as in Wang et al. 2020,
arXiv:2002.10957). Parameter names are those of transformers' `BertModel`, so that a BERT checkpoint loads
without a table.

On disk the matrices are int8 with one scale per row, `W[o, i] = scale[o] * q[o, i]`, and the rest is float16;
in memory everything is float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinema.core.errors import ModelError
from kinema.models.config_values import typed
from kinema.models.weight_files import SCALE_SUFFIX
from kinema.models.weights import bare, check_amount, load_state, read_config


@dataclass(frozen=True, slots=True)
class MiniLMConfig:
    """Sizes of a BERT encoder, under BERT's own names."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 128
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @staticmethod
    def from_dict(data: Mapping[str, object]) -> MiniLMConfig:
        """Take the sizes from a BERT `config.json`; keys that are no sizes are ignored."""
        sizes: dict[str, Any] = {f.name: data[f.name] for f in fields(MiniLMConfig) if f.name in data}
        return MiniLMConfig(**typed(MiniLMConfig, sizes, "text encoder"))


class Embeddings(nn.Module):
    """Word + position + type vectors, normalised. Every token has type 0: there is one sentence."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, ids_KL: Tensor) -> Tensor:
        """`[K, L]` token ids -> `[K, L, D]`."""
        place_LD = self.position_embeddings.weight[: ids_KL.shape[1]] + self.token_type_embeddings.weight[0]
        x_KLD: Tensor = self.LayerNorm(self.word_embeddings(ids_KL) + place_LD)
        return x_KLD


class SelfAttention(nn.Module):
    """Queries, keys and values of one layer, and their attention."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x_KLD: Tensor, mask_KL: Tensor) -> Tensor:
        """Attend within each prompt to the tokens where `mask_KL` is true."""
        q, k, v = (
            rearrange(layer(x_KLD), "K L (H D) -> K H L D", H=self.heads)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=rearrange(mask_KL, "K L -> K 1 1 L"))
        joined_KLD: Tensor = rearrange(mixed, "K H L D -> K L (H D)")
        return joined_KLD


class ResidualOutput(nn.Module):
    """`norm(residual + dense(x))`, the end of both halves of a layer."""

    def __init__(self, width_in: int, config: MiniLMConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x_KLD: Tensor, residual_KLD: Tensor) -> Tensor:
        """Project `x_KLD` back to the model's width, add the residual, normalise."""
        out_KLD: Tensor = self.LayerNorm(residual_KLD + self.dense(x_KLD))
        return out_KLD


class Layer(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config), "output": ResidualOutput(config.hidden_size, config)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = ResidualOutput(config.intermediate_size, config)

    def forward(self, x_KLD: Tensor, mask_KL: Tensor) -> Tensor:
        """`[K, L, D]` -> `[K, L, D]`."""
        h_KLD = self.attention["output"](self.attention["self"](x_KLD, mask_KL), x_KLD)
        out_KLD: Tensor = self.output(F.gelu(self.intermediate["dense"](h_KLD)), h_KLD)
        return out_KLD


class MiniLM(nn.Module):
    """BERT encoder without the pooler: token ids to contextual token states."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))}
        )

    def forward(self, ids_KL: Tensor, mask_KL: Tensor) -> Tensor:
        """States of every token.

        Args:
            ids_KL: token ids `[K, L]`, L up to `max_position_embeddings`.
            mask_KL: true where a token is real; nobody sees the others, and their states mean nothing.

        Returns:
            `[K, L, D]`.
        """
        x_KLD: Tensor = self.embeddings(ids_KL)
        for layer in self.encoder["layer"].children():
            x_KLD = layer(x_KLD, mask_KL)
        return x_KLD

    @staticmethod
    def from_folder(folder: str | Path) -> MiniLM:
        """Read `config.json` and `model.safetensors`, packed or plain; float32, gradients off, on the CPU.

        Raises:
            ModelError: a file is missing, or its tensors are not those that the config describes.
        """
        folder = Path(folder)
        config_path, weights_path = folder / "config.json", folder / "model.safetensors"
        for path in (config_path, weights_path):
            if not path.is_file():
                raise ModelError(
                    f"{path} is missing; a text encoder folder holds config.json and model.safetensors."
                )
        config = MiniLMConfig.from_dict(read_config(folder))
        with bare():
            model = MiniLM(config)
        check_amount(model, folder, "model")
        try:
            model.load_state_dict(load_state(folder, "model", dtype=torch.float32), assign=True)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"{weights_path} does not fit {config_path.name}: {reason[:300]}; get it again."
            ) from error
        return model.requires_grad_(False).eval()


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 rows with a float16 scale each (name + `_scale`), the rest as float16.

    Position and type embeddings stay float16: they are few and every token uses them.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and not name.startswith(("embeddings.position", "embeddings.token_type")):
            packed[name], packed[name + SCALE_SUFFIX] = quantise_rows(tensor)
        else:
            packed[name] = tensor.to(torch.float16).contiguous()
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors that `pack` coded; float tensors that were never packed pass through."""
    return {
        name: tensor.float() * packed[name + SCALE_SUFFIX].float()[:, None]
        if tensor.dtype == torch.int8 and name + SCALE_SUFFIX in packed
        else tensor.float()
        for name, tensor in packed.items()
        if not name.endswith(SCALE_SUFFIX)
    }


def quantise_rows(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as int8 `[O, I]` with float16 scales `[O]` that map each row's largest entry to 127.

    Clipping the largest entries for finer steps was tried: at 8 bits it lowers the error by less than 1 %.
    """
    scale_O1 = (weight_OI.abs().amax(dim=1, keepdim=True) / 127).clamp_min(1e-6).half()
    code_OI = (weight_OI / scale_O1.float()).round().clamp(-127, 127)  # a scale may round to below its peak
    return code_OI.to(torch.int8), scale_O1[:, 0]
