"""Whole checkpoints in small, with random weights, in the layouts that kinema reads.

The Wan ones are saved by diffusers' own pipelines; the embedded-style one has this package's parts.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import kinema

EMBEDDED = Path(kinema.__file__).parent / "assets" / "embedded"

TRANSFORMER: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 64,
    "ffn_dim": 64,
    "num_layers": 2,
}
VAE: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 4,
    "num_res_blocks": 1,
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [1.0, 2.0, 0.5, 1.5],
}
RESIDUAL_VAE: dict[str, Any] = {
    **VAE,
    "decoder_base_dim": 12,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
PICTURE = {"in_channels": 12, "image_dim": 16, "added_kv_proj_dim": 48}
PICTURE_TOKENS = 10  # of a 24-pixel picture in patches of 8, with the class token

WAN = {
    "t2v": {"transformer": TRANSFORMER, "vae": VAE},
    "i2v": {"transformer": TRANSFORMER | PICTURE, "vae": VAE},
    "flf2v": {"transformer": TRANSFORMER | PICTURE | {"pos_embed_seq_len": 2 * PICTURE_TOKENS}, "vae": VAE},
    "ti2v": {"transformer": TRANSFORMER, "vae": RESIDUAL_VAE},
    "two-experts": {"transformer": TRANSFORMER, "vae": VAE},
    "two-experts-i2v": {"transformer": TRANSFORMER | {"in_channels": 12}, "vae": VAE},
}
BOUNDARY = 0.75


def save_wan(kind: str, folder: Path) -> Path:
    """A `WAN` checkpoint as diffusers saves it."""
    import diffusers

    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "transformer": _lively(diffusers.WanTransformer3DModel(**WAN[kind]["transformer"])),
        "vae": _lively(diffusers.AutoencoderKLWan(**WAN[kind]["vae"])),
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        **_text_parts(),
    }
    if kind.startswith("two-experts"):
        second = _lively(diffusers.WanTransformer3DModel(**WAN[kind]["transformer"]))
        parts |= {"transformer_2": second, "boundary_ratio": BOUNDARY}
    if kind in ("i2v", "flf2v"):
        pipe = diffusers.WanImageToVideoPipeline(**parts, **_image_parts())
    elif kind == "two-experts-i2v":
        pipe = diffusers.WanImageToVideoPipeline(**parts, image_encoder=None, image_processor=None)
    else:
        pipe = diffusers.WanPipeline(**parts, expand_timesteps=kind == "ti2v")
    pipe.save_pretrained(folder)
    return folder


def _lively(model: torch.nn.Module) -> torch.nn.Module:
    """Norms and tables away from their start values, so that swapping two of them shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def _text_parts() -> dict[str, Any]:
    from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

    pieces = ["▁", "▁a", "▁red", "▁fox", "▁snow", "▁the", "▁in", "▁dog", *"abcdefghijklmnopqrstuvwxyz"]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    vocab += [(piece, -2.0 - 6.0 * (len(piece) == 1)) for piece in pieces]
    config = UMT5Config(vocab_size=len(vocab), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    return {
        "tokenizer": T5Tokenizer(vocab=vocab, extra_ids=0),
        "text_encoder": UMT5EncoderModel(config).eval(),
    }


def _image_parts() -> dict[str, Any]:
    from transformers import CLIPVisionConfig, CLIPVisionModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=24,
        patch_size=8,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    return {"image_encoder": CLIPVisionModel(config).eval(), "image_processor": processor}


def save_embedded(folder: Path) -> Path:
    """A model of the embedded one's kind: its codec and words, a small random transformer."""
    from safetensors.torch import save_file

    from kinema.models.dit import VideoDiT, VideoDiTConfig

    for part in ("text_encoder", "tokenizer", "vae", "model_index.json"):
        source = EMBEDDED / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    full = json.loads((EMBEDDED / "transformer" / "config.json").read_text())
    small = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32}
    config = VideoDiTConfig.from_mapping(full | small)
    torch.manual_seed(0)
    model = _lively(VideoDiT(config))
    (folder / "transformer").mkdir()
    save_file(model.state_dict(), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    (folder / "transformer" / "config.json").write_text(json.dumps(asdict(config)))
    index = json.loads((folder / "model_index.json").read_text())
    index["defaults"] |= {"width": 64, "height": 64, "frames": 9, "steps": 3}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
