"""What a forward of diffusers' own networks costs, read off the shapes of their weights.

    operations = sum over matrices of 2 * size * positions + sum over attentions of 4 * queries * keys * width

A matrix, and the kernel of a convolution, acts once at every position: of the latents, in tokens for
transformers, a quarter of them from level to level of a U-Net; of the words for what reads words; once for
what modulates. The names of the weights tell which (`down_blocks.1.`, `add_k_proj`, `norm1.linear`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError
from kinema.pipelines.card import ModelCard, read_json

Shape = tuple[int, ...]
NETWORKS = ("transformer", "unet")
WORDS, LONG_WORDS = 77, 256
"""Tokens of a prompt: of CLIP's for U-Nets, about for transformers."""
_ONCE = re.compile(
    r"time|norm[\w.]*\.linear|adaln|guidance_embed|pooled|pos_embed|\.scale_shift|add_embedding|fps"
)
_WORDS = re.compile(r"context|caption|text|add_[kqv]_proj|to_add_out|attn2\.to_[kv]|encoder_hid")
_LEVEL = re.compile(r"(?P<part>down_blocks|up_blocks)\.(?P<index>\d+)\.(?P<kind>\w+)")
_BLOCKS = re.compile(r"down_blocks\.(\d+)\.")
_MOST_HEADER = 100 << 20


@dataclass(frozen=True, slots=True)
class Latents:
    """What a network sees in one forward: latent frames, rows and columns, in tokens."""

    frames: int
    rows: int
    columns: int

    def at(self, level: int) -> int:
        """Positions of a frame at a level of a U-Net."""
        return max(1, math.ceil(self.rows / 2**level) * math.ceil(self.columns / 2**level))


def borrowed_operations(card: ModelCard, frames: int, rows: int, columns: int) -> float | None:
    """Operations of one forward; None where the checkpoint's files do not tell.

    Args:
        card: of a model that one of diffusers' pipelines runs.
        frames, rows, columns: of the latents that it sees.
    """
    folder = next((path for name in NETWORKS if (path := card.folder / name).is_dir()), None)
    if folder is None:
        return None
    files = [*sorted(folder.glob("*.safetensors")), *(path for one in card.files for path in one)]
    try:
        shapes = {name: shape for path in files for name, shape in weight_shapes(path)}
        t, y, x = patch_of(read_json(folder / "config.json"), card.latent_channels)
    except (OSError, ValueError, KeyError, TypeError, ModelError):  # loading will say what is wrong with it
        return None
    if not shapes:
        return None
    tokens = Latents(math.ceil(frames / t), math.ceil(rows / y), math.ceil(columns / x))
    return forward_operations(shapes, tokens)


def patch_of(config: Mapping[str, Any], channels: int) -> tuple[int, int, int]:
    """Latent frames, rows and columns of one token; a pipeline may pack several latents into its channels."""
    written = config.get("patch_size") or 1
    if isinstance(written, list | tuple):
        t, y, x = written
        return int(t), int(y), int(x)
    packed = math.isqrt(max(1, int(config.get("in_channels") or channels) // channels))
    side = packed if int(config.get("in_channels") or channels) == channels * packed**2 else 1
    return int(config.get("patch_size_t") or 1), int(written) * side, int(written) * side


def forward_operations(shapes: Mapping[str, Shape], latents: Latents) -> float:
    """Floating-point operations of one forward.

    Args:
        shapes: of all weights, by name.
        latents: that it sees.
    """
    blocks = [int(match[1]) for name in shapes if (match := _BLOCKS.search(name))]
    levels = max(blocks) + 1 if blocks else 0
    return sum(_cost(name, shape, latents, levels) for name, shape in shapes.items() if len(shape) >= 2)


def _cost(name: str, shape: Shape, latents: Latents, levels: int) -> float:
    words = WORDS if levels else LONG_WORDS
    here = latents.at(_level(name, levels)) if levels else latents.rows * latents.columns
    places = latents.frames * here
    size = math.prod(shape)
    attends = name.endswith("to_q.weight")
    if _ONCE.search(name):
        return 2.0 * size
    if _WORDS.search(name):
        return 2.0 * size * words
    cost = 2.0 * size * places
    return cost + _attention(name, shape[0], latents.frames, here, levels, words) if attends else cost


def _attention(name: str, width: int, frames: int, here: int, levels: int, words: int) -> float:
    """Scores and mixtures: of a frame in a U-Net, over frames in motion modules, of all in transformers."""
    if "attn2" in name and "motion" not in name and "temporal" not in name:
        return 4.0 * frames * here * words * width
    if not levels:
        return 4.0 * (frames * here + words) ** 2 * width
    if "motion" in name or "temporal" in name:
        return 4.0 * here * frames**2 * width
    return 4.0 * frames * here**2 * width


def _level(name: str, levels: int) -> int:
    if name.startswith("mid_block"):
        return levels - 1
    match = _LEVEL.match(name)
    if match is None:
        return 0
    index = int(match["index"])
    level = index if match["part"] == "down_blocks" else levels - 1 - index
    return level + (match["kind"] == "downsamplers") - (match["kind"] == "upsamplers")


def weight_shapes(path: Path) -> Iterator[tuple[str, Shape]]:
    """Names and shapes in a safetensors file, from its header alone."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, _MOST_HEADER)))
    for name, facts in header.items():
        if name != "__metadata__":
            yield name, tuple(facts["shape"])
