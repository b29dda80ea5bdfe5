"""Names of a Wan transformer's layers: the original checkpoints', and diffusers', which are ours too.

The original names are those of Wan's own repository, which single-file checkpoints and most LoRAs use; the
table is that of diffusers' conversion script for Wan. `norm2` and `norm3` of a block change places.
"""

from __future__ import annotations

import re

TOP = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
}
BLOCK = {
    "modulation": "scale_shift_table",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{
        f"{theirs}.{a}": f"{ours}.{b}"
        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for a, b in (
            ("q", "to_q"),
            ("k", "to_k"),
            ("v", "to_v"),
            ("o", "to_out.0"),
            ("norm_q", "norm_q"),
            ("norm_k", "norm_k"),
        )
    },
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
}
_TO_ORIGINAL = [{ours: theirs for theirs, ours in table.items()} for table in (TOP, BLOCK)]
_IN_BLOCK = re.compile(r"(blocks\.\d+\.)(.+)")
_FLAT_BLOCK = re.compile(r"blocks_(\d+)_(.+)")
_LEAF = re.compile(r"(.+)\.(weight|bias)")


def from_original(stem: str) -> str | None:
    """Our name of a layer or table: `blocks.3.self_attn.q` -> `blocks.3.attn1.to_q`; None if unknown."""
    return _translated(stem, TOP, BLOCK)


def to_original(stem: str) -> str | None:
    """The original name of one of our layers or tables; None if there is none."""
    top, block = _TO_ORIGINAL
    return _translated(stem, top, block)


def from_flat(name: str) -> str | None:
    """Our name of a layer whose points were made underscores, in either naming: `blocks_3_self_attn_q`."""
    inside = _FLAT_BLOCK.fullmatch(name)
    if inside is None:
        return next((ours for pair in TOP.items() if name in map(_flat, pair) for ours in pair[1:]), None)
    rest = (ours for pair in BLOCK.items() if inside[2] in map(_flat, pair) for ours in pair[1:])
    found = next(rest, None)
    return None if found is None else f"blocks.{inside[1]}.{found}"


def _flat(name: str) -> str:
    return name.replace(".", "_")


def parameter_from_original(name: str) -> str | None:
    """The same for a parameter: `blocks.3.self_attn.q.weight` -> `blocks.3.attn1.to_q.weight`."""
    leaf = _LEAF.fullmatch(name)
    if leaf is None:
        return from_original(name)
    stem = from_original(leaf[1])
    return None if stem is None else f"{stem}.{leaf[2]}"


def _translated(stem: str, top: dict[str, str], block: dict[str, str]) -> str | None:
    inside = _IN_BLOCK.fullmatch(stem)
    if inside is None:
        return top.get(stem)
    name = block.get(inside[2])
    return None if name is None else inside[1] + name
