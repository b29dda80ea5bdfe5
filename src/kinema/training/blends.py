"""Finished weights of runs and packed models, and blends of those that began from one another.

Runs that go on from the same weights end apart from each other in directions of which neither has learned
anything; half-way between them that noise is less and what both know is kept (https://arxiv.org/abs/2203.05482).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kinema.core.errors import ConfigError, ModelError
from kinema.models.weights import load_state
from kinema.training.files import opened
from kinema.training.loop import AVERAGE


def finished(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a run's checkpoint, or those of a packed model's folder, in float32.

    Raises:
        ModelError: there is nothing of the kind.
    """
    if path.is_dir():
        return load_state(path / "transformer", dtype=torch.float32)
    with opened(path) as file:
        names = [name for name in file.keys() if name.startswith(AVERAGE)]  # noqa: SIM118
        weights = {name.removeprefix(AVERAGE): file.get_tensor(name) for name in names}
    if not weights:
        raise ModelError(f"{path} has no averaged weights; name a checkpoint that a training run wrote.")
    return weights


def blend(parts: Sequence[tuple[Mapping[str, Tensor], float]]) -> dict[str, Tensor]:
    """The mean of weights by their shares, which may be below 0 but not all in all.

    Raises:
        ConfigError: the shares add up to nothing, or the models differ in shape.
    """
    first, whole = parts[0][0], sum(share for _, share in parts)
    if not 0 < whole < float("inf"):
        raise ConfigError(f"the shares add up to {whole:g}; let them add up to more than 0.")
    for weights, _ in parts[1:]:
        if weights.keys() != first.keys() or any(weights[name].shape != first[name].shape for name in first):
            raise ConfigError("the models have different shapes; blend runs that began from one another.")
    return {
        name: torch.stack([share / whole * weights[name] for weights, share in parts]).sum(dim=0)
        for name in first
    }


def read_blend(text: str) -> dict[str, Tensor]:
    """Weights as scripts name them: `FILE`, or `FILE:SHARE+FILE:SHARE`.

    Raises:
        ConfigError: a share is missing or no number.
    """
    pieces = text.split("+")
    if Path(text).exists() or (len(pieces) == 1 and ":" not in text):
        return finished(Path(text))
    shares = [_share(piece) for piece in pieces]
    return blend([(finished(path), share) for path, share in shares])


def _share(piece: str) -> tuple[Path, float]:
    path, _, number = piece.rpartition(":")
    with contextlib.suppress(ValueError):
        if math.isfinite(share := float(number)):
            return Path(path), share
    raise ConfigError(f"{piece!r} has no share; write FILE:SHARE, such as run.safetensors:0.6.")
