"""Transformers in single files: `FILE.safetensors@PARTS`, where PARTS brings the VAE and the encoders.

    wan2.1_t2v_1.3B_bf16.safetensors@Wan-AI/Wan2.1-T2V-1.3B-Diffusers
    high.safetensors,low.safetensors@Wan-AI/Wan2.2-T2V-A14B-Diffusers       two transformers

A folder of Wan's makers may stand for the file: with `diffusion_pytorch_model.safetensors`, or with shards
and their index. Of PARTS everything is used but its transformers, which are not even fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError
from kinema.pipelines.card import STEM, ModelCard, read_json
from kinema.pipelines.card_check import reading
from kinema.pipelines.wan_card import wan_card

EXAMPLES = {
    (1536, 16, 16): "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    (5120, 16, 16): "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    (5120, 36, 16): "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    (3072, 48, 48): "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
}


@dataclass(frozen=True, slots=True)
class Transformers:
    """One transformer in files of its own, or a pair of them.

    Attributes:
        files: of each.
        configs: of each, as its shapes say.
        parts: the checkpoint that brings everything else.
    """

    files: tuple[tuple[Path, ...], ...]
    configs: tuple[dict[str, Any], ...]
    parts: str


def read_transformers(model: str) -> Transformers:
    """What `FILE@PARTS` names, from the files' headers.

    Raises:
        ModelError: a file is missing or no Wan transformer, or no parts are named.
    """
    from kinema.models.original import config_of, read_shapes

    written, parts = _split(model)
    with reading(written):
        files = tuple(_files(Path(name.strip()).expanduser()) for name in written.split(","))
        configs = tuple(config_of(read_shapes(shards), shards[0]) for shards in files)
    if not parts:
        c = configs[0]
        key = (c["num_attention_heads"] * c["attention_head_dim"], c["in_channels"], c["out_channels"])
        raise ModelError(
            f"{written} is a transformer alone; name a checkpoint that brings its VAE and text encoder: "
            f"{written}@{EXAMPLES.get(key, 'FOLDER_OR_HUB_ID')}."
        )
    return Transformers(files, configs, parts)


def _split(model: str) -> tuple[str, str]:
    """The transformers' files or folder, and the checkpoint with the rest, which may have an @ of its own."""
    marker = ".safetensors@"
    if marker in model:
        written, _, parts = model.rpartition(marker)
        return f"{written}.safetensors", parts
    written, _, parts = model.partition("@")
    if not Path(written).expanduser().is_dir() and model.count("@") > 1:
        written, _, parts = model.rpartition("@")
    return written, parts


def original_card(model: str, alone: Transformers, base: ModelCard) -> ModelCard:
    """The card of transformers in original names with the other parts of another checkpoint.

    Args:
        model: as the user called it.
        alone: from `read_transformers`.
        base: the card of its parts.

    Raises:
        ModelError: the parts are not for it.
    """
    config = alone.configs[0]
    _check(model, config, alone.configs, base)
    index = read_json(base.folder / "model_index.json")
    card = wan_card(model, base.folder, index, config)
    return replace(card, parts=alone.parts, files=alone.files)


def _check(model: str, config: dict[str, Any], configs: Sequence[dict[str, Any]], base: ModelCard) -> None:
    """The transformers belong together, and with the parts."""
    if base.family != "wan" or base.parts:
        raise ModelError(f"model {model!r}: {base.id!r} is no Wan checkpoint in diffusers layout.")
    if any(other != config for other in configs):
        raise ModelError(
            f"model {model!r}: the two transformers have different shapes; they are of two models."
        )
    wanted = 1 if base.boundary is None else 2
    if len(configs) != wanted:
        raise ModelError(
            f"model {model!r} names {len(configs)} transformers and {base.id!r} has {wanted}; "
            "write HIGH.safetensors,LOW.safetensors@PARTS for two."
        )
    for what, found, expected in (
        ("latent channels", config["out_channels"], base.latent_channels),
        ("text width", config["text_dim"], base.transformer.get("text_dim", 4096)),
        ("picture width", config["image_dim"], base.transformer.get("image_dim")),
    ):
        if found != expected:
            raise ModelError(
                f"model {model!r}: the transformer's {what} is {found} and that of {base.id!r} {expected}; "
                "name the checkpoint that it was made from."
            )


def _files(path: Path) -> tuple[Path, ...]:
    """A transformer's files: itself, or those of a folder, a single one first of all."""
    if path.suffix == ".safetensors" and not path.is_dir():
        return (path,)
    single = path / f"{STEM}.safetensors"
    if single.is_file():
        return (single,)
    index = path / f"{STEM}.safetensors.index.json"
    if not index.is_file():
        raise ModelError(
            f"{path} is neither a .safetensors file nor a folder with {single.name} or {index.name}; "
            "check the path."
        )
    shards = read_json(index).get("weight_map")
    names = sorted(set(shards.values())) if isinstance(shards, dict) else []
    if not names or any(not isinstance(n, str) or set("/\\") & set(n) for n in names):
        raise ModelError(f"{index} lists no files beside it; fetch it again.")
    return tuple(path / name for name in names)
