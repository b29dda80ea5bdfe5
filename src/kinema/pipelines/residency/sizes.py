"""How many numbers the parts of a checkpoint have, from their configuration files alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kinema.pipelines.card import ModelCard, read_json


@dataclass(frozen=True, slots=True)
class Transformer:
    """Numbers of one transformer.

    Attributes:
        total: all.
        block: of one block's matrices.
        texts: of the matrices that only texts and pictures pass, in all blocks and outside.
        outside: of what is not in the blocks.
        largest: of the largest matrix.
        count: how many transformers there are.
    """

    total: int
    block: int
    texts: int
    outside: int
    largest: int
    count: int


@dataclass(frozen=True, slots=True)
class TextPart:
    """Numbers of a text encoder: all, one block's, the table's, the largest matrix's."""

    total: int
    block: int
    table: int
    heads: int = 64


UMT5_XXL = TextPart(5_681_000_000, 193_000_000, 1_050_000_000)  # where no configuration is there yet


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of every part."""

    transformer: Transformer
    text: TextPart
    image: int
    vae: int


def sizes(card: ModelCard) -> Sizes:
    """Of a checkpoint; read once for each."""
    return _sizes(card.folder, tuple(sorted(_flat(card.transformer))), card.boundary is not None, card.family)


def _flat(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(k, tuple(v) if isinstance(v, list) else v) for k, v in config.items() if not k.startswith("_")]


@lru_cache(maxsize=16)
def _sizes(folder: Path, config: tuple[tuple[str, Any], ...], pair: bool, family: str) -> Sizes:
    transformer = _transformer(dict(config), 2 if pair else 1)
    if family == "embedded":
        text = TextPart(_on_disk(folder / "text_encoder"), 0, 0)
        return Sizes(transformer, text, 0, _on_disk(folder / "vae"))
    return Sizes(transformer, _text(folder / "text_encoder"), _image(folder / "image_encoder"), _vae(folder))


def _transformer(config: dict[str, Any], count: int) -> Transformer:
    from kinema.models.dit import VideoDiT, VideoDiTConfig
    from kinema.models.shelved import BLOCKS, reads_texts
    from kinema.models.weights import bare

    with bare():
        numbers = {n: p.numel() for n, p in VideoDiT(VideoDiTConfig.from_mapping(config)).named_parameters()}
    return Transformer(
        total=sum(numbers.values()),
        block=sum(n for name, n in numbers.items() if name.startswith(f"{BLOCKS}0.")),
        texts=sum(n for name, n in numbers.items() if reads_texts(name)),
        outside=sum(n for name, n in numbers.items() if not name.startswith(BLOCKS)),
        largest=max(numbers.values()),
        count=count,
    )


def _text(folder: Path) -> TextPart:
    """UMT5: a table of words, then blocks of attention and a gated feed-forward."""
    if not (folder / "config.json").is_file():
        return UMT5_XXL
    c = read_json(folder / "config.json")
    width, hidden, heads = c.get("d_model", 512), c.get("d_ff", 1024), c.get("num_heads", 6)
    table, layers = c.get("vocab_size", 250112) * width, c.get("num_layers", 8)
    block = 4 * width * heads * c.get("d_kv", 64) + 3 * width * hidden
    return TextPart(table + layers * block, block, table, heads)


def _image(folder: Path) -> int:
    """CLIP's vision transformer."""
    if not (folder / "config.json").is_file():
        return 0
    c = read_json(folder / "config.json")
    width, hidden = c.get("hidden_size", 768), c.get("intermediate_size", 3072)
    return int(c.get("num_hidden_layers", 12) * (4 * width**2 + 2 * width * hidden) + 1024 * width)


def _vae(folder: Path) -> int:
    from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig
    from kinema.models.weights import bare

    config = CausalVideoVAEConfig.from_mapping(read_json(folder / "vae" / "config.json"))
    with bare():
        return sum(p.numel() for p in CausalVideoVAE(config).parameters())


def _on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
