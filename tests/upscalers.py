"""Small upscaling networks in files, in the layouts of ESRGAN's and Real-ESRGAN's releases."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, GROWTH = 8, 4


def rrdb(doublings: int = 2, fold: int = 1, blocks: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of an RRDBNet under Real-ESRGAN's names, random."""
    draw = torch.Generator().manual_seed(seed)
    layers = {"conv_first": (3 * fold**2, WIDTH)}
    for i in range(blocks):
        for j in (1, 2, 3):
            for k in range(1, 6):
                layers[f"body.{i}.rdb{j}.conv{k}"] = (WIDTH + (k - 1) * GROWTH, GROWTH if k < 5 else WIDTH)
    for name in ("conv_body", *(f"conv_up{n + 1}" for n in range(doublings)), "conv_hr"):
        layers[name] = (WIDTH, WIDTH)
    layers["conv_last"] = (WIDTH, 3)
    return _drawn(layers, draw)


def compact(scale: int = 4, blocks: int = 10, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of an SRVGGNetCompact, random."""
    draw = torch.Generator().manual_seed(seed)
    layers = {"body.0": (3, WIDTH)} | {f"body.{2 * i}": (WIDTH, WIDTH) for i in range(1, blocks + 1)}
    state = _drawn(layers | {f"body.{2 * blocks + 2}": (WIDTH, 3 * scale**2)}, draw)
    slopes = {f"body.{2 * i + 1}.weight": torch.rand(WIDTH, generator=draw) for i in range(blocks + 1)}
    return state | slopes


def _drawn(layers: dict[str, tuple[int, int]], draw: torch.Generator) -> dict[str, Tensor]:
    state = {}
    for name, (gets, gives) in layers.items():
        state[f"{name}.weight"] = torch.randn(gives, gets, 3, 3, generator=draw) / (3 * gets**0.5)
        state[f"{name}.bias"] = torch.randn(gives, generator=draw) / 10
    return state


def bsrgan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network under BSRGAN's names."""
    names = (
        (r"body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2."), (r"conv_body\.", "trunk_conv."),
        (r"conv_up(\d)\.", r"upconv\1."), (r"conv_hr\.", "HRconv."),
    )  # fmt: skip
    return {_renamed(name, names): tensor for name, tensor in state.items()}


def first_esrgan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network under the numbers that the first ESRGAN had."""
    blocks = 1 + max(int(m[1]) for m in (re.match(r"body\.(\d+)", name) for name in state) if m)
    ups = sum(bool(re.fullmatch(r"conv_up\d\.bias", name)) for name in state)
    names = (
        (r"conv_first\.", "model.0."),
        (r"body\.(\d+)\.rdb(\d)\.conv(\d)\.", r"model.1.sub.\1.RDB\2.conv\3.0."),
        (r"conv_body\.", f"model.1.sub.{blocks}."), (r"conv_up1\.", "model.3."), (r"conv_up2\.", "model.6."),
        (r"conv_hr\.", f"model.{3 * ups + 2}."), (r"conv_last\.", f"model.{3 * ups + 4}."),
    )  # fmt: skip
    return {_renamed(name, names): tensor for name, tensor in state.items()}


def _renamed(name: str, names) -> str:
    for pattern, written in names:
        name = re.sub(f"^{pattern}", written, name)
    return name


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    """The file."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def doubled(path: Path) -> Path:
    """A network that makes every pixel two by two of the same colour."""
    state = {name: torch.zeros_like(tensor) for name, tensor in compact(scale=2, blocks=1).items()}
    return saved(path, state)
