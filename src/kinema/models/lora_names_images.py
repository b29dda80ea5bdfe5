"""What a LoRA's file may call the layers of an image model by its makers' names.

    Stable Diffusion, SDXL    down_blocks.1.attentions.0              input_blocks.4.1: numbered through
    Flux                      transformer_blocks.0.attn.to_q, k, v    rows of double_blocks.0.img_attn.qkv
    Stable Diffusion 3        transformer_blocks.0.attn.to_q, k, v    rows of joint_blocks.0.x_block.attn.qkv

The tables are those of diffusers' conversions of the original checkpoints, turned around.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby

from kinema.models.lora_names import Naming, Original, Room, in_rooms, plain, rows

_UNIT = re.compile(
    r"(?P<unit>(?:(?P<side>down|up)_blocks\.(?P<block>\d+)|mid_block)\.(?P<kind>\w+)\.(?P<layer>\d+))"
    r"\.(?P<inside>.+)"
)
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_INSIDE: Mapping[str, Mapping[str, str]] = {
    "resnets": _RESNET,
    "downsamplers": {"conv": "op"},
    "upsamplers": {"conv": "conv"},
}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_MIDDLE = {
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def unet(parameters: Iterable[str]) -> Naming:
    """The names of the latent-diffusion repository, which Stability's, ComfyUI's and kohya's SDXL follow.

    Args:
        parameters: of the network, whose blocks are counted.
    """
    places = _numbered(parameters)

    def naming(stem: str) -> Original | None:
        if stem in _OUTSIDE:
            return Original(_OUTSIDE[stem])
        found = _UNIT.fullmatch(stem)
        if found is None or found["unit"] not in places:
            return None
        # inside attentions the names are the same
        inside = _INSIDE.get(found["kind"], {found["inside"]: found["inside"]}).get(found["inside"])
        return None if inside is None else Original(f"{places[found['unit']]}.{inside}")

    return naming


def _numbered(parameters: Iterable[str]) -> dict[str, str]:
    """Where each resnet, attention and sampler stands among the blocks that are numbered through."""
    there = {found["unit"]: found for name in parameters if (found := _UNIT.fullmatch(name))}
    places = dict(_MIDDLE)
    for side, theirs, number in (("down", "input_blocks", 1), ("up", "output_blocks", 0)):
        resnets = sorted(
            (int(found["block"]), int(found["layer"]))
            for found in there.values()
            if found["side"] == side and found["kind"] == "resnets"
        )
        for block, layers in groupby(resnets, key=lambda place: place[0]):
            ours = f"{side}_blocks.{block}"
            for _, layer in layers:
                places[f"{ours}.resnets.{layer}"] = f"{theirs}.{number}.0"
                places[f"{ours}.attentions.{layer}"] = f"{theirs}.{number}.1"
                number += 1
            if f"{ours}.downsamplers.0" in there:
                places[f"{ours}.downsamplers.0"] = f"{theirs}.{number}.0"
                number += 1
            behind = 2 if f"{ours}.attentions.0" in there else 1  # in the block of the last resnet
            places[f"{ours}.upsamplers.0"] = f"{theirs}.{number - 1}.{behind}"
    return places


def flux(parameters: Iterable[str]) -> Naming:
    """Black Forest Labs' Flux repository."""
    return lambda stem: in_rooms(stem, _FLUX_ROOMS, _FLUX_TOP)


def sd3(parameters: Iterable[str]) -> Naming:
    """Stability's Stable Diffusion 3 repository.

    Args:
        parameters: of the transformer; its last block, which gives no texts on, has its norm turned.
    """
    known = set(parameters)

    def naming(stem: str) -> Original | None:
        found = in_rooms(stem, _SD3_ROOMS, _SD3_TOP)
        block, last, _ = stem.partition(".norm1_context.linear")
        if found is not None and last and f"{block}.attn.to_add_out.weight" not in known:
            return Original(found.name, turned=True)
        return found

    return naming


_FLUX_ROOMS = (
    Room(
        "transformer_blocks",
        "double_blocks",
        rows("img_attn.qkv", "attn.to_q", "attn.to_k", "attn.to_v")
        | rows("txt_attn.qkv", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
        | plain(
            {
                "attn.to_out.0": "img_attn.proj",
                "attn.to_add_out": "txt_attn.proj",
                "attn.norm_q": "img_attn.norm.query_norm",
                "attn.norm_k": "img_attn.norm.key_norm",
                "attn.norm_added_q": "txt_attn.norm.query_norm",
                "attn.norm_added_k": "txt_attn.norm.key_norm",
                "norm1.linear": "img_mod.lin",
                "norm1_context.linear": "txt_mod.lin",
                "ff.net.0.proj": "img_mlp.0",
                "ff.net.2": "img_mlp.2",
                "ff_context.net.0.proj": "txt_mlp.0",
                "ff_context.net.2": "txt_mlp.2",
            }
        ),
    ),
    Room(
        "single_transformer_blocks",
        "single_blocks",
        rows("linear1", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        | plain(
            {
                "proj_out": "linear2",
                "norm.linear": "modulation.lin",
                "attn.norm_q": "norm.query_norm",
                "attn.norm_k": "norm.key_norm",
            }
        ),
    ),
)
_FLUX_TOP = plain(
    {
        "x_embedder": "img_in",
        "context_embedder": "txt_in",
        "proj_out": "final_layer.linear",
        **{
            f"time_text_embed.{ours}.linear_{half}": f"{theirs}.{end}_layer"
            for ours, theirs in (
                ("timestep_embedder", "time_in"),
                ("text_embedder", "vector_in"),
                ("guidance_embedder", "guidance_in"),
            )
            for half, end in ((1, "in"), (2, "out"))
        },
    }
) | {"norm_out.linear": Original("final_layer.adaLN_modulation.1", turned=True)}

_SD3_ROOMS = (
    Room(
        "transformer_blocks",
        "joint_blocks",
        rows("x_block.attn.qkv", "attn.to_q", "attn.to_k", "attn.to_v")
        | rows("x_block.attn2.qkv", "attn2.to_q", "attn2.to_k", "attn2.to_v")
        | rows("context_block.attn.qkv", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
        | plain(
            {
                "attn.to_out.0": "x_block.attn.proj",
                "attn2.to_out.0": "x_block.attn2.proj",
                "attn.to_add_out": "context_block.attn.proj",
                "attn.norm_q": "x_block.attn.ln_q",
                "attn.norm_k": "x_block.attn.ln_k",
                "attn2.norm_q": "x_block.attn2.ln_q",
                "attn2.norm_k": "x_block.attn2.ln_k",
                "attn.norm_added_q": "context_block.attn.ln_q",
                "attn.norm_added_k": "context_block.attn.ln_k",
                "norm1.linear": "x_block.adaLN_modulation.1",
                "norm1_context.linear": "context_block.adaLN_modulation.1",
                "ff.net.0.proj": "x_block.mlp.fc1",
                "ff.net.2": "x_block.mlp.fc2",
                "ff_context.net.0.proj": "context_block.mlp.fc1",
                "ff_context.net.2": "context_block.mlp.fc2",
            }
        ),
    ),
)
_SD3_TOP = plain(
    {
        "pos_embed.proj": "x_embedder.proj",
        "proj_out": "final_layer.linear",
        **{
            f"time_text_embed.{ours}.linear_{half}": f"{theirs}.mlp.{end}"
            for ours, theirs in (("timestep_embedder", "t_embedder"), ("text_embedder", "y_embedder"))
            for half, end in ((1, 0), (2, 2))
        },
    }
) | {"norm_out.linear": Original("final_layer.adaLN_modulation.1", turned=True)}

IMAGE_NAMINGS: Mapping[str, Callable[[Iterable[str]], Naming]] = {"unet": unet, "flux": flux, "sd3": sd3}
"""Makers' names, for the parameters of a network, by what a kind's table calls them."""
