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
    if kind == "ti2v":  # as the real one has it, though diffusers' class has no such argument
        config = folder / "vae" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"clip_output": False}))
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
    for quick in ("few", "student"):
        index.pop(quick, None)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_student(folder: Path) -> Path:
    """Give an embedded model a student of random additions: two steps."""
    from kinema.models.dit import VideoDiT, VideoDiTConfig
    from kinema.training.dit import matrices
    from kinema.training.low_rank import additions, attach, save_additions

    config = json.loads((folder / "transformer" / "config.json").read_text())
    model = VideoDiT(VideoDiTConfig.from_mapping(config))
    rng = torch.Generator().manual_seed(3)
    attach(model, matrices(model), rank=2, generator=rng)
    for _, addition in additions(model):
        addition.b_OR.data.normal_(generator=rng, std=0.3)
    (folder / "student").mkdir()
    save_additions(model, folder / "student" / "pytorch_lora_weights.safetensors")
    index = json.loads((folder / "model_index.json").read_text())
    index["student"] = {"steps": 2, "solver": "euler", "grid": "wan-euler", "shift": 2.0}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


# Image models: the true layout, saved by diffusers' own pipelines.

IMAGE_VAE: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}
TEXT_WIDTH = 16


def save_image_model(kind: str, folder: Path) -> Path:
    """A checkpoint of kind `sd`, `sdxl`, `sd3` or `flux`."""
    torch.manual_seed(0)
    makers = {"sd": _stable_diffusion, "sdxl": _stable_diffusion_xl, "sd3": _stable_diffusion_3}
    made = {**makers, "flux": _flux}[kind]()
    made.save_pretrained(folder)
    return folder


def save_kandinsky(folder: Path, width: int = TEXT_WIDTH) -> dict[str, Path]:
    """Kandinsky 2.2: its `decoder`, its `prior` with embeddings of a width, and `both` in one folder."""
    import diffusers

    torch.manual_seed(0)
    prior = _prior(width)
    unet = diffusers.UNet2DConditionModel(
        **UNET | {"attention_head_dim": 4, "sample_size": 16},
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        encoder_hid_dim=TEXT_WIDTH,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=8,
        resnet_time_scale_shift="scale_shift",
    )
    movq = diffusers.VQModel(
        **IMAGE_VAE
        | {"block_out_channels": (32, 32), "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")},
        latent_channels=4,
        num_vq_embeddings=12,
        vq_embed_dim=4,
        norm_type="spatial",
    )
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        variance_type="learned_range",
        thresholding=True,
        sample_max_value=2.0,
    )
    decoder = diffusers.KandinskyV22Pipeline(unet=_lively(unet), movq=_lively(movq), scheduler=scheduler)
    both = diffusers.KandinskyV22CombinedPipeline(
        **decoder.components, **{f"prior_{name}": part for name, part in prior.components.items()}
    )
    made = {"decoder": decoder, "prior": prior, "both": both}
    for name, pipe in made.items():
        pipe.save_pretrained(folder / name)
    return {name: folder / name for name in made}


def _prior(width: int) -> Any:
    import diffusers
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    prior = diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=width,
        num_embeddings=77,
        additional_embeddings=4,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    torch.nn.init.normal_(prior.clip_std, 1.0, 0.1)
    return diffusers.KandinskyV22PriorPipeline(
        prior=_lively(prior),
        image_encoder=_lively(CLIPVisionModelWithProjection(vision)),
        text_encoder=_clip(projected=True),
        tokenizer=_clip_tokenizer(),
        scheduler=diffusers.UnCLIPScheduler(prediction_type="sample", variance_type="fixed_small_log"),
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
    )


def save_control(kind: str, folder: Path, seed: int = 0) -> Path:
    """A ControlNet for `save_image_model` of kind `sd` or `sdxl`."""
    import diffusers

    torch.manual_seed(seed)
    more: dict[str, Any] = {"cross_attention_dim": TEXT_WIDTH}
    if kind == "sdxl":
        more = {
            "cross_attention_dim": 2 * TEXT_WIDTH,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 6 * 4 + TEXT_WIDTH,
            "use_linear_projection": True,
        }
    shape = {name: UNET[name] for name in UNET if name not in ("sample_size", "up_block_types")}
    network = diffusers.ControlNetModel(**shape, **more, conditioning_embedding_out_channels=(4, 8))
    _lively(network).save_pretrained(folder)
    return folder


def _stable_diffusion() -> Any:
    import diffusers

    return diffusers.StableDiffusionPipeline(
        vae=_lively(diffusers.AutoencoderKL(**IMAGE_VAE)),
        unet=_lively(diffusers.UNet2DConditionModel(**UNET, cross_attention_dim=TEXT_WIDTH)),
        scheduler=diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        text_encoder=_clip(projected=False),
        tokenizer=_clip_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_xl() -> Any:
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        **UNET,
        cross_attention_dim=2 * TEXT_WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + TEXT_WIDTH,
        use_linear_projection=True,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_lively(diffusers.AutoencoderKL(**IMAGE_VAE)),
        unet=_lively(unet),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        text_encoder=_clip(projected=False),
        text_encoder_2=_clip(projected=True),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
    )


def _stable_diffusion_3() -> Any:
    import diffusers

    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_projection_dim=32,
        joint_attention_dim=2 * TEXT_WIDTH,
        pooled_projection_dim=2 * TEXT_WIDTH,
        out_channels=16,
    )
    return diffusers.StableDiffusion3Pipeline(
        vae=_lively(diffusers.AutoencoderKL(**IMAGE_VAE, latent_channels=16, shift_factor=0.1)),
        transformer=_lively(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=_clip(projected=True),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(projected=True),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(2 * TEXT_WIDTH),
        tokenizer_3=_text_parts()["tokenizer"],
    )


def _flux() -> Any:
    import diffusers

    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return diffusers.FluxPipeline(
        vae=_lively(
            diffusers.AutoencoderKL(
                **IMAGE_VAE, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1
            )
        ),
        transformer=_lively(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        text_encoder=_clip(projected=False),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(TEXT_WIDTH),
        tokenizer_2=_text_parts()["tokenizer"],
    )


def _t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    vocabulary = len(_text_parts()["tokenizer"])
    config = T5Config(vocab_size=vocabulary, d_model=width, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    return _lively(T5EncoderModel(config))


def _clip(*, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(_clip_words()),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=TEXT_WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return _lively((CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def _clip_words() -> dict[str, int]:
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters), ",</w>"]
    return {word: i for i, word in enumerate(words)}


def _clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=_clip_words(), merges=[], model_max_length=77)
