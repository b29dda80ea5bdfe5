"""Wan transformers in their original names: one file, or shards; bf16, fp16, or fp8 with scales beside it.

    blocks.0.self_attn.q.weight -> blocks.0.attn1.to_q.weight        W = W_fp8 scale_weight

The configuration is read off the shapes, since single files come without one. Other programs put
`model.diffusion_model.` or `diffusion_model.` before every name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kinema.core.errors import ModelError
from kinema.models.shelf import Place, Shelf
from kinema.models.wan_names import parameter_from_original
from kinema.models.weight_files import check_start
from kinema.models.weights import Precision, placed, require_finite

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
OTHERS = ("down_blocks.", "input_blocks.", "double_blocks.", "joint_blocks.", "first_stage_model.")
"""How names begin in image models: Stable Diffusion's in both layouts, Flux's and Stable Diffusion 3's."""
HEAD_WIDTH = 128  # of every Wan transformer; the shapes do not tell
SCALE = ".scale_weight"
SCALES = (SCALE, ".scale_input")
MARKS = ("scaled_fp8",)
Shape = tuple[int, ...]


def read_shapes(files: Sequence[Path]) -> dict[str, Shape]:
    """Every tensor's shape by its original name, from the headers alone.

    Raises:
        ModelError: a file is missing, damaged or no safetensors.
    """
    shapes: dict[str, Shape] = {}
    for path in files:
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                shapes[_plain(name)] = tuple(file.get_slice(name).get_shape())
    return shapes


def config_of(shapes: Mapping[str, Sequence[int]], origin: object) -> dict[str, Any]:
    """The configuration of a Wan transformer, in the words of diffusers' `config.json`.

    Raises:
        ModelError: these are not the tensors of a Wan transformer.
    """
    if other := next((name for name in shapes if name.startswith(OTHERS)), None):
        raise ModelError(
            f"{origin} is no Wan transformer but another model's (it has {other}); image models are read as "
            "folders in diffusers layout: write one with the pipeline of the model, such as "
            "diffusers.StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)."
        )
    strays = [
        name
        for name in shapes
        if parameter_from_original(name) is None and not name.endswith(SCALES) and name not in MARKS
    ]
    needed = (
        "patch_embedding.weight",
        "text_embedding.0.weight",
        "time_embedding.0.weight",
        "head.head.weight",
    )
    missing = [name for name in (*needed, "blocks.0.ffn.0.weight") if name not in shapes]
    if strays or missing:
        what = f"no {missing[0]}" if missing else f"{len(strays)} tensors such as {strays[0]}"
        raise ModelError(f"{origin} is no Wan transformer that kinema runs: it has {what}.")
    width, channels, *patch = shapes["patch_embedding.weight"]
    if width % HEAD_WIDTH or len(patch) != 3:
        raise ModelError(f"{origin} is no Wan transformer: it is {width} wide, no multiple of {HEAD_WIDTH}.")
    blocks = {int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))}
    image = shapes.get("img_emb.proj.0.weight")
    places = shapes.get("img_emb.emb_pos")
    return {
        "patch_size": tuple(patch),
        "num_attention_heads": width // HEAD_WIDTH,
        "attention_head_dim": HEAD_WIDTH,
        "in_channels": channels,
        "out_channels": shapes["head.head.weight"][0] // math.prod(patch),
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "num_layers": 1 + max(blocks),
        "cross_attn_norm": "blocks.0.norm3.weight" in shapes,
        "image_dim": None if image is None else image[0],
        "added_kv_proj_dim": width if "blocks.0.cross_attn.k_img.weight" in shapes else None,
        "pos_embed_seq_len": None if places is None else places[1],
    }


def load_original(
    files: Sequence[Path], *, dtype: Precision | None = None, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The tensors of a transformer under our names; fp8 as the float32 that it stands for.

    Each is read, multiplied with its scale and converted on the host, and only then moved.

    Args:
        files: that share the tensors out among them.
        dtype: of the floating ones, one for all or by our name; None leaves them so.
        device: where they go.

    Raises:
        ModelError: a file is damaged, or has a scale without its weight.
    """
    state: dict[str, Tensor] = {}
    scales = _scales(files)
    for path in files:
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 - the file is no mapping
                name = _plain(key)
                if (ours := parameter_from_original(name)) is None:
                    continue
                if ours in state:
                    raise ModelError(f"{path} has {name} twice, under two names; fetch it again.")
                state[ours] = placed(_meant(file, key, scales.get(ours), path), ours, dtype, device)
    return state


def _meant(file: Any, key: str, scale: Tensor | None, path: Path) -> Tensor:
    """What a tensor of a file stands for."""
    tensor: Tensor = file.get_tensor(key)
    require_finite(_plain(key), tensor, path)
    if scale is not None:
        return tensor.float() * scale.float()
    return tensor.float() if tensor.dtype.itemsize == 1 else tensor


def _scales(files: Sequence[Path]) -> dict[str, Tensor]:
    """The number beside each scaled weight, by our names."""
    found: dict[str, Tensor] = {}
    there = set()
    for path in files:
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 - the file is no mapping
                there.add(name := _plain(key))
                if name.endswith(SCALE):
                    found[name.removesuffix(SCALE)] = file.get_tensor(key)
    for stem in found:
        if f"{stem}.weight" not in there or parameter_from_original(f"{stem}.weight") is None:
            raise ModelError(f"{files[0]} has a scale for {stem} and no weight; fetch it again.")
    return {str(parameter_from_original(f"{stem}.weight")): scale for stem, scale in found.items()}


def original_shelf(files: Sequence[Path]) -> Shelf:
    """The tensors of a transformer under our names, to be read when they are asked for, fp8 with its scales.

    Raises:
        ModelError: a file is damaged, or has a scale without its weight.
    """
    shelf = Shelf.of(files, lambda name: parameter_from_original(_plain(name)))
    marked = Shelf.of(files, lambda name: _plain(name) if name.endswith(SCALE) else None).places
    scales: dict[str, Place] = {}
    for name, place in marked.items():
        stem = name.removesuffix(SCALE)
        ours = parameter_from_original(f"{stem}.weight")
        if ours is None or ours not in shelf.places:
            raise ModelError(f"{files[0]} has a scale for {stem} and no weight; fetch it again.")
        scales[ours] = place
    return Shelf(shelf.places, scales)


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the path.")
    check_start(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or not safetensors ({error}); fetch it again.") from None
