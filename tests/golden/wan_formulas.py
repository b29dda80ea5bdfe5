"""A small Wan transformer and two texts, as formulas: the same numbers wherever they are computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

MODEL: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "in_dim": 4,
    "dim": 48,
    "ffn_dim": 64,
    "freq_dim": 64,
    "text_dim": 16,
    "out_dim": 4,
    "num_heads": 2,
    "num_layers": 2,
}
LATENTS = (4, 3, 4, 6)  # channels, latent frames, rows, columns
RUNS = [
    {"steps": 8, "shift": 5.0, "guidance": 5.0, "seed": 42},
    {"steps": 5, "shift": 3.0, "guidance": 2.5, "seed": 7},
]


def wave(shape: Sequence[int], phase: float) -> Tensor:
    """Numbers in -1..1 without a pattern that a transposition keeps."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.7 * index + 0.013 * index**1.5 + phase).float().reshape(tuple(shape))


def fill(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights of about the size that training leaves: 1 / sqrt(inputs), norms near 1, small biases."""
    found = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        drawn = wave(shape, number)
        if len(shape) > 1 and "modulation" not in name:
            drawn = drawn * (2 / math.prod(shape[1:])) ** 0.5
        else:
            drawn = 0.2 * drawn + (1.0 if name.endswith("weight") else 0.0)
        found[name] = drawn
    return found


def texts() -> tuple[Tensor, Tensor]:
    """States of the prompt and of the negative prompt, `[L, D]`."""
    return wave((5, MODEL["text_dim"]), 0.3), wave((3, MODEL["text_dim"]), 2.1)
