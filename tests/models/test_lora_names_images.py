"""Makers' names of image models' layers: those that diffusers' own conversions of their checkpoints read."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file

from kinema.models.lora import fit
from kinema.models.lora_file import read_lora
from kinema.models.lora_names_images import IMAGE_NAMINGS

SMALL = {"sample_size": 8, "norm_num_groups": 2, "attention_head_dim": 2, "cross_attention_dim": 4}
UNETS = {
    "sd": {"block_out_channels": (4, 4, 4, 4), "layers_per_block": 2},
    "sdxl": {
        "block_out_channels": (4, 4, 4),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 2,
        "projection_class_embeddings_input_dim": 16,
    },
    "one": {
        "block_out_channels": (4, 4),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
}


def in_makers_names(state, kind):
    """A checkpoint under the makers' names, and what of it has none."""
    naming, rows, nameless = IMAGE_NAMINGS[kind](state), {}, []
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        found = naming(stem)
        if found is None:
            nameless.append(key)
            continue
        value = torch.cat(value.chunk(2)[::-1]) if found.turned else value
        rows.setdefault(f"{found.name}.{leaf}", []).append((found.row, value))
    return {
        name: torch.cat([value for _, value in sorted(parts, key=lambda part: part[0])])
        for name, parts in rows.items()
    }, nameless


def same(found, state):
    return all(torch.equal(found[key], value) for key, value in state.items()) and len(state) > 0


@pytest.mark.parametrize("kind", UNETS)
def test_every_layer_of_a_unet_is_found_where_latent_diffusion_has_it(kind):
    unet = diffusers.UNet2DConditionModel(**SMALL, **UNETS[kind])
    state = unet.state_dict()
    theirs, nameless = in_makers_names(state, "unet")
    assert not nameless
    assert len(theirs) == len(state)
    checkpoint = {f"model.diffusion_model.{key}": value for key, value in theirs.items()}
    found = single_file_utils.convert_ldm_unet_checkpoint(checkpoint, dict(unet.config))
    assert found.keys() == state.keys()
    assert same(found, state)


def test_names_that_users_files_have():
    """SDXL, as sd-scripts and ComfyUI call its layers."""
    with torch.device("meta"):
        state = diffusers.UNet2DConditionModel(**SMALL, **UNETS["sdxl"]).state_dict()
    naming = IMAGE_NAMINGS["unet"](state)
    query, wide = "transformer_blocks.0.attn1.to_q", "transformer_blocks.1.ff.net.0.proj"
    names = {
        f"down_blocks.1.attentions.0.{query}": f"input_blocks.4.1.{query}",
        "down_blocks.2.attentions.1.proj_in": "input_blocks.8.1.proj_in",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "down_blocks.0.resnets.1.time_emb_proj": "input_blocks.2.0.emb_layers.1",
        f"mid_block.attentions.0.{wide}": f"middle_block.1.{wide}",
        f"up_blocks.1.attentions.2.{query}": f"output_blocks.5.1.{query}",
        "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
        "up_blocks.2.resnets.2.conv_shortcut": "output_blocks.8.0.skip_connection",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    assert {ours: naming(ours).name for ours in names} == names


def test_every_matrix_of_stable_diffusion_3_is_found_where_stability_has_it():
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=4,
        in_channels=2,
        num_layers=3,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_projection_dim=8,
        joint_attention_dim=6,
        pooled_projection_dim=6,
        out_channels=2,
        pos_embed_max_size=4,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    state = transformer.state_dict()
    theirs, nameless = in_makers_names(state, "sd3")
    # the embedder of texts has one name in both
    assert nameless == ["pos_embed.pos_embed", "context_embedder.weight", "context_embedder.bias"]
    theirs |= {key.replace("pos_embed.pos_embed", "pos_embed"): state[key] for key in nameless}
    found = single_file_utils.convert_sd3_transformer_checkpoint_to_diffusers(theirs)
    assert found.keys() == state.keys()
    assert same(found, state)


def test_every_matrix_of_flux_is_found_where_its_makers_have_it():
    with torch.device("meta"):
        stems = diffusers.FluxTransformer2DModel(
            in_channels=4,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=4,
            num_attention_heads=2,
            joint_attention_dim=6,
            pooled_projection_dim=6,
            axes_dims_rope=(2, 2, 0),
            guidance_embeds=True,
        ).state_dict()
    # one column each, and as many rows as the conversion counts on
    g, rows = (
        torch.Generator().manual_seed(0),
        {"proj_mlp": 4 * 3072, "to_q": 3072, "to_k": 3072, "to_v": 3072},
    )
    state = {key: torch.randn(rows.get(key.split(".")[-2], 6), 1, generator=g) for key in stems}
    theirs, nameless = in_makers_names(state, "flux")
    assert not nameless
    theirs = {key.replace("_norm.weight", "_norm.scale"): value for key, value in theirs.items()}
    found = single_file_utils.convert_flux_transformer_checkpoint_to_diffusers(theirs)
    assert found.keys() == state.keys()
    assert same(found, state)


NORMS = {
    "double_blocks.0.img_attn.norm.query_norm": "transformer_blocks.0.attn.norm_q",
    "double_blocks.0.txt_attn.norm.key_norm": "transformer_blocks.0.attn.norm_added_k",
    "single_blocks.1.norm.key_norm": "single_transformer_blocks.1.attn.norm_k",
}


@pytest.mark.parametrize(
    ("prefix", "end"), [("diffusion_model.", ".scale"), ("diffusion_model.", ""), ("lora_unet_", "_scale")]
)
def test_differences_of_fluxs_norms_are_found_whatever_their_weights_are_called(tmp_path, prefix, end):
    """The makers call them scale, ComfyUI of late weight, which has no place in a key."""
    shapes = {f"{ours}.weight": (4,) for ours in NORMS.values()}
    names = {theirs.replace(".", "_") if "_" in end else theirs: ours for theirs, ours in NORMS.items()}
    tensors = {f"{prefix}{theirs}{end}.diff": torch.rand(4) for theirs in names}
    save_file(tensors, tmp_path / "n.safetensors")
    found = fit(read_lora(tmp_path / "n.safetensors"), shapes, naming=IMAGE_NAMINGS["flux"](shapes))
    assert found.keys == 3
    for (key, tensor), ours in zip(tensors.items(), names.values(), strict=True):
        assert torch.equal(found.changes[ours].diff, tensor), key
