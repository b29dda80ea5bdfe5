"""What a LoRA's file may call the layers of a model: by the model's own names, or by its makers'.

    rows of theirs = [ours_1; ours_2; ...]        one matrix of the makers' may hold several of ours (q, k, v)

The tables are those of diffusers' conversions of the original checkpoints, turned around; what is asked is
always for names of ours that a model has, so that a table never invents a layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kinema.models.wan_names import to_original


@dataclass(frozen=True, slots=True)
class Original:
    """Where the makers keep a layer of ours.

    Attributes:
        name: of their layer.
        row: its place among ours that are rows of theirs, from 0.
        turned: the two halves of its rows stand the other way round there.
    """

    name: str
    row: int = 0
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A layer of ours, as rows of what a file calls by one name."""

    stem: str
    turned: bool = False


Naming = Callable[[str], Original | None]
"""The makers' name of a layer or table of ours; None where they have none."""


@dataclass(frozen=True, slots=True)
class Room:
    """Blocks that are called by a number: `ours.3.layer` is `theirs.3.name`."""

    ours: str
    theirs: str
    layers: Mapping[str, Original]


def parts_by_name(stems: Iterable[str], naming: Naming) -> dict[str, tuple[Part, ...]]:
    """Layers by every name that a file may give them; our own names come first, then the makers', then flat.

    Args:
        stems: our names of the model's layers and tables.
        naming: the makers'.
    """
    own = {stem: (Part(stem),) for stem in stems}
    placed: dict[str, list[tuple[int, Part]]] = {}
    for stem in own:
        if (found := naming(stem)) is not None:
            placed.setdefault(found.name, []).append((found.row, Part(stem, found.turned)))
    theirs = {name: tuple(part for _, part in sorted(parts, key=_row)) for name, parts in placed.items()}
    named = theirs | own
    return {name.replace(".", "_"): parts for name, parts in named.items()} | named


def _row(placed: tuple[int, Part]) -> int:
    return placed[0]


def wan(stem: str) -> Original | None:
    """Wan's own repository, and VACE's blocks in it."""
    inside = stem.removeprefix("vace_")
    found = to_original(inside)
    if inside == stem:
        return None if found is None else Original(found)
    block = re.fullmatch(r"(blocks\.\d+\.)proj_(in|out)", inside)
    if block is not None:
        found = block[1] + {"in": "before_proj", "out": "after_proj"}[block[2]]
    return None if found is None else Original(f"vace_{found}")


def ltx(stem: str) -> Original | None:
    """The LTX-Video repository, which ComfyUI follows."""
    name = re.sub(r"\bnorm_([qk])$", r"\1_norm", stem)
    name = re.sub(r"^time_embed\.", "adaln_single.", name)
    return Original("patchify_proj" if name == "proj_in" else name)


def hunyuan(stem: str) -> Original | None:
    """Tencent's HunyuanVideo repository."""
    return in_rooms(stem, _HUNYUAN_ROOMS, _HUNYUAN_TOP)


def mochi(stem: str) -> Original | None:
    """Genmo's Mochi repository."""
    return in_rooms(stem, _MOCHI_ROOMS, _MOCHI_TOP)


def clip(stem: str) -> Original | None:
    """CLIP's text encoder, whose layers transformers has called with and without `text_model.`."""
    inside = stem.removeprefix("text_model.")
    return Original(inside if inside != stem else f"text_model.{stem}")


def same(stem: str) -> Original | None:
    """Makers who call nothing otherwise."""
    return None


def in_rooms(stem: str, rooms: Iterable[Room], top: Mapping[str, Original]) -> Original | None:
    """The makers' name of a layer in numbered blocks, or outside of them."""
    if stem in top:
        return top[stem]
    for room in rooms:
        inside = re.fullmatch(rf"{re.escape(room.ours)}\.(\d+)\.(.+)", stem)
        found = None if inside is None else room.layers.get(inside[2])
        if inside is not None and found is not None:
            return Original(f"{room.theirs}.{inside[1]}.{found.name}", found.row, found.turned)
    return None


def rows(name: str, *ours: str) -> dict[str, Original]:
    """Layers of ours that are the rows of one matrix of the makers'."""
    return {layer: Original(name, row) for row, layer in enumerate(ours)}


def plain(names: Mapping[str, str]) -> dict[str, Original]:
    """Layers of ours that the makers call otherwise, and no more than that."""
    return {ours: Original(theirs) for ours, theirs in names.items()}


_HUNYUAN_ROOMS = (
    Room(
        "transformer_blocks",
        "double_blocks",
        rows("img_attn_qkv", "attn.to_q", "attn.to_k", "attn.to_v")
        | rows("txt_attn_qkv", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
        | plain(
            {
                "attn.to_out.0": "img_attn_proj",
                "attn.to_add_out": "txt_attn_proj",
                "attn.norm_q": "img_attn_q_norm",
                "attn.norm_k": "img_attn_k_norm",
                "attn.norm_added_q": "txt_attn_q_norm",
                "attn.norm_added_k": "txt_attn_k_norm",
                "norm1.linear": "img_mod.linear",
                "norm1_context.linear": "txt_mod.linear",
                "ff.net.0.proj": "img_mlp.fc1",
                "ff.net.2": "img_mlp.fc2",
                "ff_context.net.0.proj": "txt_mlp.fc1",
                "ff_context.net.2": "txt_mlp.fc2",
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
                "norm.linear": "modulation.linear",
                "attn.norm_q": "q_norm",
                "attn.norm_k": "k_norm",
            }
        ),
    ),
    Room(
        "context_embedder.token_refiner.refiner_blocks",
        "txt_in.individual_token_refiner.blocks",
        rows("self_attn_qkv", "attn.to_q", "attn.to_k", "attn.to_v")
        | plain(
            {
                "attn.to_out.0": "self_attn_proj",
                "ff.net.0.proj": "mlp.fc1",
                "ff.net.2": "mlp.fc2",
                "norm_out.linear": "adaLN_modulation.1",
            }
        ),
    ),
)
_HUNYUAN_TOP = plain(
    {
        "x_embedder.proj": "img_in.proj",
        "proj_out": "final_layer.linear",
        "context_embedder.proj_in": "txt_in.input_embedder",
        **{
            f"{ours}.linear_{half}": f"{theirs}{end}"
            for ours, theirs, ends in (
                ("time_text_embed.timestep_embedder", "time_in.mlp", (".0", ".2")),
                ("time_text_embed.guidance_embedder", "guidance_in.mlp", (".0", ".2")),
                ("time_text_embed.text_embedder", "vector_in", (".in_layer", ".out_layer")),
                (
                    "context_embedder.time_text_embed.timestep_embedder",
                    "txt_in.t_embedder.mlp",
                    (".0", ".2"),
                ),
                (
                    "context_embedder.time_text_embed.text_embedder",
                    "txt_in.c_embedder",
                    (".linear_1", ".linear_2"),
                ),
            )
            for half, end in zip((1, 2), ends, strict=True)
        },
    }
) | {"norm_out.linear": Original("final_layer.adaLN_modulation.1", turned=True)}

_MOCHI_ROOMS = (
    Room(
        "transformer_blocks",
        "blocks",
        rows("attn.qkv_x", "attn1.to_q", "attn1.to_k", "attn1.to_v")
        | rows("attn.qkv_y", "attn1.add_q_proj", "attn1.add_k_proj", "attn1.add_v_proj")
        | plain(
            {
                "attn1.to_out.0": "attn.proj_x",
                "attn1.to_add_out": "attn.proj_y",
                "attn1.norm_q": "attn.q_norm_x",
                "attn1.norm_k": "attn.k_norm_x",
                "attn1.norm_added_q": "attn.q_norm_y",
                "attn1.norm_added_k": "attn.k_norm_y",
                "norm1.linear": "mod_x",
                "norm1_context.linear": "mod_y",
                "norm1_context.linear_1": "mod_y",
                "ff.net.2": "mlp_x.w2",
                "ff_context.net.2": "mlp_y.w2",
            }
        )
        | {
            "ff.net.0.proj": Original("mlp_x.w1", turned=True),
            "ff_context.net.0.proj": Original("mlp_y.w1", turned=True),
        },
    ),
)
_MOCHI_TOP = plain(
    {
        "patch_embed.proj": "x_embedder.proj",
        "time_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_embed.pooler.to_kv": "t5_y_embedder.to_kv",
        "time_embed.pooler.to_q": "t5_y_embedder.to_q",
        "time_embed.pooler.to_out": "t5_y_embedder.to_out",
        "time_embed.caption_proj": "t5_yproj",
        "proj_out": "final_layer.linear",
    }
) | {"norm_out.linear": Original("final_layer.mod", turned=True)}

NAMINGS: Mapping[str, Naming] = {
    "wan": wan,
    "ltx": ltx,
    "hunyuan": hunyuan,
    "mochi": mochi,
    "same": same,
}
"""Makers' names by what a family's table calls them."""
