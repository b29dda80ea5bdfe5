"""Alphas that are no tensors of a LoRA's file: diffusers writes them into its header, PEFT beside it.

    lora_adapter_metadata        in the header: `transformer.lora_alpha`, `transformer.alpha_pattern`, ...
    adapter_config.json          beside `adapter_model.safetensors`: `lora_alpha`, `alpha_pattern`, ...

PEFT divides by the rank, or with `use_rslora` by its root; here the alpha is always the one that is divided
by the rank: `alpha sqrt(r)` with `use_rslora`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError
from kinema.models.lora_keys import PEFT_PREFIX, Owner, without_prefixes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""PEFT's names of the two files of an adapter."""
LARGEST = 4_000_000  # bytes; a pattern for every layer of the largest models takes a tenth of it
DEFAULT_ALPHA = 8  # PEFT's own
_COMPONENTS: Mapping[Owner | None, tuple[str, ...]] = {
    "low": ("transformer_2",),
    "text": ("text_encoder",),
    "text_2": ("text_encoder_2",),
}
_NAME = re.compile(r"\^?[\w.]+\$?")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What PEFT's file beside an adapter says of its scales.

    Attributes:
        path: of the file.
        alpha: of every layer that no pattern names.
        alphas, ranks: by the end of a layer's name.
        rank: of every layer that no pattern names; None where the file does not say.
        rslora: the scale is `alpha / sqrt(r)`.
    """

    path: Path
    alpha: float
    alphas: Mapping[str, float]
    rank: int | None
    ranks: Mapping[str, float]
    rslora: bool

    def alpha_of(self, stem: str, rank: int) -> float:
        """What is divided by the rank at a layer.

        Raises:
            ModelError: the layer has another rank there: the file is another adapter's.
        """
        told = _matching(self.ranks, stem, self.rank)
        if told is not None and told != rank:
            raise ModelError(
                f"{self.path} says rank {told:g} for {stem}, and the LoRA beside it has {rank}: it is "
                "another one's. Put the right one there, or take it away."
            )
        alpha = _matching(self.alphas, stem, self.alpha)
        return _divided_by_rank(alpha, rank, self.rslora)


def beside(path: Path, keys: Iterable[str]) -> AdapterConfig | None:
    """PEFT's configuration of a file with PEFT's names; None where there is none, or it is another file's.

    Args:
        path: of the weights.
        keys: of theirs.

    Raises:
        ModelError: it cannot be read, or is of another kind than LoRA.
    """
    config = path.with_name(CONFIG)
    if not any(key.startswith(PEFT_PREFIX) for key in keys) or not config.is_file():
        return None
    if path.name != WEIGHTS and path.with_name(WEIGHTS).is_file():
        return None
    written = _read(config)
    if (kind := written.get("peft_type", "LORA")) != "LORA":
        raise ModelError(f"{config} is of a {str(kind)[:40]!r}, which kinema does not read; it reads LoRA.")
    if written.get("use_dora"):
        raise ModelError(f"{config} is of a DoRA (use_dora), which kinema does not read; it reads LoRA.")
    rank = written.get("r")
    return AdapterConfig(
        path=config,
        alpha=_number(written.get("lora_alpha", DEFAULT_ALPHA), config, "lora_alpha"),
        alphas=_patterns(written, config, "alpha_pattern"),
        rank=None if rank is None else int(_number(rank, config, "r")),
        ranks=_patterns(written, config, "rank_pattern"),
        rslora=written.get("use_rslora") is True,
    )


def _read(config: Path) -> Mapping[str, Any]:
    try:
        if config.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        written = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{config} is damaged ({error}); fetch it again.") from None
    if not isinstance(written, dict):
        raise ModelError(f"{config} is no configuration of an adapter; fetch it again.")
    return written


def _patterns(written: Mapping[str, Any], config: Path, name: str) -> dict[str, float]:
    found = written.get(name) or {}
    if not isinstance(found, dict):
        raise ModelError(f"{config} has no table for {name}; fetch it again.")
    for pattern in found:
        if not _NAME.fullmatch(pattern):  # PEFT would run it as a regular expression, which need not end
            raise ModelError(
                f"{config} has {name} for {pattern[:80]!r}, which is no layer's name; kinema matches names "
                "alone. Write the layers out."
            )
    return {pattern: _number(value, config, name) for pattern, value in found.items()}


def _number(value: Any, config: Path, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelError(f"{config} has {name} {str(value)[:40]!r}, which is no number; fetch it again.")
    return float(value)


def _matching(patterns: Mapping[str, Any], stem: str, default: Any) -> Any:
    """The value of the first pattern that is the layer's name, or with which that ends, as in PEFT."""
    for pattern, value in patterns.items():
        name, _ = without_prefixes(pattern.removeprefix("^").removesuffix("$"))
        if stem == name or (stem.endswith(f".{name}") and not pattern.startswith("^")):
            return value
    return default


def _divided_by_rank(alpha: float, rank: int, rslora: bool) -> float:
    return alpha * math.sqrt(rank) if rslora else alpha


def header(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """What diffusers wrote into a file's header; empty where nothing was written."""
    try:
        written = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    return written if isinstance(written, dict) else {}


def alpha_in_header(
    written: Mapping[str, Any], owner: Owner | None, stem: str, rank: int | None
) -> float | None:
    """PEFT's `lora_alpha`, or the entry of `alpha_pattern` that matches; None where neither is written."""
    for part in _COMPONENTS.get(owner, ("transformer", "unet")):
        patterns = written.get(f"{part}.alpha_pattern")
        value = written.get(f"{part}.lora_alpha")
        value = _matching(patterns, stem, value) if isinstance(patterns, dict) else value
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return _divided_by_rank(float(value), rank or 1, written.get(f"{part}.use_rslora") is True)
    return None
