"""Small transformers of every variant, and what they are given."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.models.dit import Conditioning, VideoDiT, VideoDiTConfig

TINY = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 64,
    "num_layers": 3,
}
IMAGE = {"in_channels": 36, "image_dim": 32, "added_kv_proj_dim": 48}
VARIANTS = {
    "t2v": TINY,
    "i2v": TINY | IMAGE,
    "flf2v": TINY | IMAGE | {"pos_embed_seq_len": 14},
    "pooled": TINY | {"pooled_dim": 8, "position_waves": 4, "patch_size": (1, 1, 1)},
    "skip": TINY | {"noise_skip": True},
    "no-norm": TINY | {"cross_attn_norm": False},
}


def lively(config: dict, seed: int = 0) -> VideoDiT:
    """Norms and tables away from their start values, so that swapping two of them shows."""
    torch.manual_seed(seed)
    dit = VideoDiT(VideoDiTConfig.from_mapping(config)).eval().requires_grad_(False)
    for p in dit.parameters():
        p.add_(0.1 * torch.randn_like(p))
    return dit


def texts(config: dict, *, batch: int = 1, K: int = 1, L: int = 9, **more: Tensor) -> Conditioning:
    pooled = torch.randn(batch, K, config["pooled_dim"]) if config.get("pooled_dim") else None
    tokens = config.get("pos_embed_seq_len") or 7
    image = torch.randn(batch, tokens, 32) if "image_dim" in config else None
    states = torch.randn(batch, K, L, 32)
    return Conditioning(states_BKLD=states, pooled_BKD=pooled, image_BND=image, **more)


def latents(config: dict, batch: int = 1) -> Tensor:
    return torch.randn(batch, config["in_channels"], 3, 8, 6)


def gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
