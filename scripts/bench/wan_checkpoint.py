"""Wan checkpoints with random weights, saved by diffusers' own pipeline, for measurements.

small    transformer 36 M (8 layers of 8 heads x 64), VAE of base 32 (14 M), UMT5 of 11 M
tiny     transformer 0.1 M, VAE of base 8, UMT5 of one layer
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIZES: dict[str, dict[str, Any]] = {
    "small": {"heads": 8, "head": 64, "layers": 8, "text": 512, "base": 32, "depth": 4},
    "tiny": {"heads": 2, "head": 24, "layers": 2, "text": 32, "base": 8, "depth": 1},
}
WORDS = ["a", "red", "fox", "in", "the", "snow", "runs", "over", "hills", "at", "night", "dog"]


def save(size: str, folder: Path) -> Path:
    """Write a checkpoint of a size."""
    import diffusers
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    s, tokenizer = SIZES[size], _tokenizer()
    width = s["heads"] * s["head"]
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=s["heads"],
        attention_head_dim=s["head"],
        in_channels=16,
        out_channels=16,
        text_dim=s["text"],
        freq_dim=256,
        ffn_dim=4 * width,
        num_layers=s["layers"],
    )
    text = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=s["text"],
        d_kv=s["text"] // 8,
        d_ff=2 * s["text"],
        num_layers=s["depth"],
        num_heads=8,
    )
    diffusers.WanPipeline(
        transformer=_stirred(transformer),
        vae=_stirred(diffusers.AutoencoderKLWan(base_dim=s["base"])),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text),
    ).save_pretrained(folder)
    return folder


@torch.no_grad()
def _stirred(model: torch.nn.Module) -> torch.nn.Module:
    """Norms and tables away from their start values, so that exactness covers them."""
    for parameter in model.parameters():
        if parameter.ndim == 1 or parameter.shape[0] == 1:
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def _tokenizer() -> Any:
    from transformers import T5Tokenizer

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -2.0)]
    vocabulary += [(f"▁{word}", -2.0) for word in WORDS]
    vocabulary += [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0)
