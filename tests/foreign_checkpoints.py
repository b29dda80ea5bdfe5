"""Whole checkpoints of diffusers' other video pipelines in small, with random weights, in the true layout.

Saved by diffusers' own pipelines; every value that a test could mistake for another is away from its start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from checkpoints import IMAGE_VAE, UNET, _clip, _clip_tokenizer, _lively, _t5, _text_parts

WIDTH = 16


def save_foreign(kind: str, folder: Path) -> Path:
    """A checkpoint of a `KINDS` kind."""
    torch.manual_seed(0)
    KINDS[kind]().save_pretrained(folder)
    return folder


def save_motion_adapter(folder: Path) -> Path:
    """A motion adapter alone, which fits `save_image_model("sd", ...)`."""
    torch.manual_seed(1)
    _adapter().save_pretrained(folder)
    return folder


def _words() -> dict[str, Any]:
    return {"text_encoder": _t5(WIDTH), "tokenizer": _text_parts()["tokenizer"]}


def _ltx(name: str) -> Any:
    import diffusers

    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=WIDTH,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=name != "LTXConditionPipeline")
    return getattr(diffusers, name)(
        transformer=_lively(transformer), vae=_lively(vae), scheduler=scheduler, **_words()
    )


def _cogvideo(name: str, **transformer_fields: Any) -> Any:
    import diffusers

    channels = 8 if "ImageToVideo" in name else 4
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=WIDTH,
        num_layers=1,
        sample_width=4,
        sample_height=4,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=226,
        use_rotary_positional_embeddings=True,
        **transformer_fields,
    )
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return getattr(diffusers, name)(
        transformer=_lively(transformer),
        vae=_lively(vae),
        scheduler=diffusers.CogVideoXDDIMScheduler(),
        **_words(),
    )


def _hunyuan() -> Any:
    import diffusers
    from transformers import LlamaConfig, LlamaModel

    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(2, 4, 4),
    )
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )
    llama = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=24,
        num_attention_heads=2,
        num_hidden_layers=4,
        vocab_size=400,
    )
    return diffusers.HunyuanVideoPipeline(
        transformer=_lively(transformer),
        vae=_lively(vae),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=_lively(LlamaModel(llama)),
        tokenizer=_llama_tokenizer(),
        text_encoder_2=_clip(projected=False),
        tokenizer_2=_clip_tokenizer(),
    )


def _llama_tokenizer() -> Any:
    from transformers import LlamaTokenizer

    letters = [chr(c) for c in range(32, 127)]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3} | {c: 4 + i for i, c in enumerate(letters)}
    return LlamaTokenizer(vocab=vocab, merges=[], pad_token="</s>")


def _mochi() -> Any:
    import diffusers

    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=WIDTH,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    return diffusers.MochiPipeline(
        transformer=_lively(transformer),
        vae=_lively(vae),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        **_words(),
    )


def _adapter() -> Any:
    import diffusers

    return _lively(
        diffusers.MotionAdapter(
            block_out_channels=(8, 16),
            motion_layers_per_block=1,
            motion_norm_num_groups=4,
            motion_num_attention_heads=2,
            motion_max_seq_length=16,
            use_motion_mid_block=True,
        )
    )


def _animatediff() -> Any:
    import diffusers

    unet = diffusers.UNet2DConditionModel(**UNET, cross_attention_dim=WIDTH)
    return diffusers.AnimateDiffPipeline(
        vae=_lively(diffusers.AutoencoderKL(**IMAGE_VAE)),
        text_encoder=_clip(projected=False),
        tokenizer=_clip_tokenizer(),
        unet=_lively(unet),
        motion_adapter=_adapter(),
        scheduler=diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False, steps_offset=1),
    )


def _svd() -> Any:
    import diffusers
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH,
        num_attention_heads=(2, 4),
        projection_class_embeddings_input_dim=24,
        addition_time_embed_dim=8,
        num_frames=4,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        projection_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
    )
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        layers_per_block=1,
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_max=700.0,
        sigma_min=0.002,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    return diffusers.StableVideoDiffusionPipeline(
        vae=_lively(vae),
        image_encoder=_lively(CLIPVisionModelWithProjection(vision)),
        unet=_lively(unet),
        scheduler=scheduler,
        feature_extractor=CLIPImageProcessorPil(),
    )


def _vace() -> Any:
    import diffusers

    from checkpoints import TRANSFORMER, VAE

    transformer = diffusers.WanVACETransformer3DModel(
        **TRANSFORMER, vace_layers=[0], vace_in_channels=2 * VAE["z_dim"] + 64
    )
    return diffusers.WanVACEPipeline(
        transformer=_lively(transformer),
        vae=_lively(diffusers.AutoencoderKLWan(**VAE)),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        **_text_parts(),
    )


KINDS = {
    "vace": _vace,
    "ltx": lambda: _ltx("LTXPipeline"),
    "ltx-condition": lambda: _ltx("LTXConditionPipeline"),
    "cogvideo": lambda: _cogvideo("CogVideoXPipeline"),
    "cogvideo-1.5": lambda: _cogvideo("CogVideoXPipeline", patch_size_t=2),
    "cogvideo-i2v": lambda: _cogvideo("CogVideoXImageToVideoPipeline"),
    "cogvideo-i2v-learned": lambda: _cogvideo(
        "CogVideoXImageToVideoPipeline", use_learned_positional_embeddings=True
    ),
    "hunyuan": _hunyuan,
    "mochi": _mochi,
    "animatediff": _animatediff,
    "svd": _svd,
}
