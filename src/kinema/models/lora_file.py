"""LoRA files of every common layout, read into changes to named layers.

    W' = W + scale (alpha / rank) up down        the low-rank change of a layer's weight
    W' = W + scale diff                          a plain difference, which some files have beside it

Layouts: diffusers and PEFT (`transformer.blocks.0.attn1.to_q.lora_A.weight`), the original names that ComfyUI
writes (`diffusion_model.blocks.0.self_attn.q.lora_down.weight`), and the flattened names of kohya and musubi
(`lora_unet_blocks_0_self_attn_q.lora_down.weight`). Text encoders have prefixes of their own (`TEXTS`). A key
that is none of these is an error: nothing is dropped in silence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kinema.core.errors import ModelError
from kinema.models.weight_files import check_start
from kinema.models.weights import require_finite

Part = Literal["down", "up", "bias", "alpha", "diff", "diff_b"]
Expert = Literal["high", "low"]
Text = Literal["text", "text_2"]
Owner = Literal["high", "low", "text", "text_2"]

PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "model.",
)
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_")
TEXT_PREFIXES = ("text_encoder", "lora_te", "te.", "conditioner.")
TEXTS: Mapping[Text, tuple[str, ...]] = {
    "text": (
        "text_encoder.",
        "text_encoders.clip_l.transformer.",
        "text_encoders.clip_h.transformer.",
        "lora_te_",
        "lora_te1_",
        "te.",
    ),
    "text_2": ("text_encoder_2.", "text_encoders.clip_g.transformer.", "lora_te2_"),
}
"""How keys of a model's text encoders begin: in diffusers, ComfyUI and kohya."""
OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "boft_": "BOFT",
    "lora_mid": "LoCon with a core tensor",
}
_LOW_RANK = re.compile(
    r"(?P<stem>.+?)\.(?P<part>lora_A|lora_B|lora_down|lora_up|(?:lora|lora_linear_layer)\.(?:down|up))"
    r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.(?P<leaf>weight|bias))?"
)
_PROCESSOR = re.compile(r"(?:\.processor)?\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
_OTHER = re.compile(r"(?P<stem>.+)\.(?P<part>alpha|lora_alpha|diff|diff_b|diff_m|w_norm|b_norm)")
_ORIGINAL = re.compile(
    r"self_attn|cross_attn|\.ffn\.0|(input|output|double|single|joint)_blocks\.|middle_block\."
)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a file does to one layer.

    Attributes:
        down, up: `[r, in, ...]` and `[out, r, ...]`; both or neither.
        alpha: the file's own scale is `alpha / r`; None for 1.
        diff: added to the weight (or to a table that is a parameter by itself).
        diff_b: added to the bias; a bias of `up`, which is scaled as it is, has been.
        keys: the file's names for these, to be counted.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None
    diff: Tensor | None = None
    diff_b: Tensor | None = None
    keys: tuple[str, ...] = ()

    @property
    def rank(self) -> int | None:
        """Of the low-rank part."""
        return None if self.down is None else self.down.shape[0]

    @property
    def strength(self) -> float:
        """`alpha / r`."""
        return 1.0 if self.alpha is None or self.rank is None else self.alpha / self.rank

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Change:
        """The same change elsewhere, and in another precision unless that is None."""
        down, up, diff, diff_b = (
            None if t is None else t.to(device, t.dtype if dtype is None else dtype)
            for t in (self.down, self.up, self.diff, self.diff_b)
        )
        return replace(self, down=down, up=up, diff=diff, diff_b=diff_b)


@dataclass(frozen=True, slots=True, eq=False)
class LoraFile:
    """A file's changes by the file's own layer names; flattened names are told apart when it is fitted.

    Attributes:
        path: where it was read.
        changes: by expert (None: the file does not say) or text encoder, and layer.
        layout: what the names look like.
        count: keys in the file.
    """

    path: Path
    changes: Mapping[tuple[Owner | None, str], Change] = field(repr=False)
    layout: Literal["diffusers", "original", "kohya"]
    count: int

    @property
    def ranks(self) -> tuple[int, ...]:
        """The distinct ranks, rising."""
        return tuple(sorted({c.rank for c in self.changes.values() if c.rank is not None}))


def read_lora(path: str | Path, *, texts: Collection[Text] = ()) -> LoraFile:
    """Read a LoRA; every key of it is understood or the file is refused.

    Args:
        path: of the file.
        texts: the text encoders that it may change too.

    Raises:
        ModelError: not there, not safetensors, damaged, of another kind than LoRA, with halves missing, or
            with two names for one thing.
    """
    path = Path(path)
    tensors, metadata = _tensors(path)
    changes: dict[tuple[Owner | None, str], Change] = {}
    unknown = []
    for key, tensor in tensors.items():
        place = _parsed(key, path, texts)
        if place is None:
            unknown.append(key)
            continue
        expert, stem, part = place
        before = changes.get((expert, stem), Change())
        if getattr(before, "diff_b" if part == "bias" else part) is not None:
            raise ModelError(
                f"{path} says the {part} of {stem} twice ({key}), and kinema would have to choose; fetch it "
                "again, or leave one of the two out."
            )
        changes[expert, stem] = _with(before, part, tensor, key)
    if unknown or not changes:
        raise ModelError(
            f"{path} has {len(unknown)} keys of {len(tensors)} that are no part of a LoRA "
            f"({', '.join(unknown[:3])}); it is another kind of file, or damaged."
        )
    if any(expert == "low" for expert, _ in changes):  # the others, of plain `transformer`, are the first's
        changes = {(expert or "high", stem): change for (expert, stem), change in changes.items()}
    _check_halves(path, changes)
    return LoraFile(path, _with_alphas(changes, metadata), _layout(tensors), len(tensors))


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"LoRA {path} does not exist; check the path.")
    if path.suffix != ".safetensors":
        raise ModelError(
            f"LoRA {path} is no .safetensors file; pickles can run code when opened and are refused."
        )
    check_start(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"LoRA {path} is damaged or not safetensors ({error}); fetch it again.") from None
    for name, tensor in tensors.items():
        require_finite(name, tensor, path)
    return tensors, metadata


def _parsed(key: str, path: Path, texts: Collection[Text]) -> tuple[Owner | None, str, Part] | None:
    """Expert, layer and part of a key; None for a key that is no part of a LoRA."""
    for mark, kind in OTHER_KINDS.items():
        if mark in key:
            raise ModelError(f"{path} is a {kind} ({key}), which kinema does not read; it reads LoRA.")
    expert: Owner | None = None
    if key.startswith(TEXT_PREFIXES):
        text = next((text for text in texts if key.startswith(TEXTS[text])), None)
        if text is None:
            raise ModelError(
                f"{path} also changes a text encoder ({key}), which LoRAs of this model do not. "
                "Use a file without such keys, or one that was made for this model."
            )
        expert, key = text, _without_first(key, TEXTS[text])
    key = _PROCESSOR.sub(_as_usual, key)
    for prefix in FLAT_PREFIXES:
        key = key.removeprefix(prefix)
    for prefix in PREFIXES[:1]:
        key = key.removeprefix(prefix)
    if key.startswith("transformer_2."):
        expert, key = "low", key.removeprefix("transformer_2.")
    for prefix in PREFIXES[1:]:
        key = key.removeprefix(prefix)
    found = _LOW_RANK.fullmatch(key)
    if found is not None:
        down = found["part"].endswith(("lora_A", "down"))
        part: Part = "bias" if found["leaf"] == "bias" else "down" if down else "up"
        return None if part == "bias" and down else (expert, found["stem"], part)
    other = _OTHER.fullmatch(key)
    if other is None:
        return None
    if other["part"] == "diff_m":  # of the table that the original names call modulation
        return expert, f"{other['stem']}.modulation", "diff"
    return expert, other["stem"], _PARTS[other["part"]]


def _without_first(key: str, prefixes: tuple[str, ...]) -> str:
    return next(key.removeprefix(prefix) for prefix in prefixes if key.startswith(prefix))


def _as_usual(found: re.Match[str]) -> str:
    """`.processor.to_out_lora.down.weight`, as diffusers once wrote it, in the way of today."""
    layer = "to_out.0" if found[1] == "to_out" else found[1]
    return f".{layer}.lora_{found[2]}.weight"


_PARTS: dict[str, Part] = {
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "diff",  # LyCORIS, of norms
    "b_norm": "diff_b",
}


def _with(change: Change, part: Part, tensor: Tensor, key: str) -> Change:
    keys = (*change.keys, key)
    if part == "alpha":
        return replace(change, alpha=float(tensor.item()), keys=keys)
    if part == "down":
        return replace(change, down=tensor, keys=keys)
    if part == "up":
        return replace(change, up=tensor, keys=keys)
    if part == "diff":
        return replace(change, diff=tensor, keys=keys)
    return replace(change, diff_b=tensor, keys=keys)


def _check_halves(path: Path, changes: Mapping[tuple[Owner | None, str], Change]) -> None:
    for (_, stem), change in changes.items():
        if (change.down is None) != (change.up is None):
            missing = "lora_B (up)" if change.up is None else "lora_A (down)"
            raise ModelError(
                f"{path} has one half of a change to {stem}, without its {missing}; fetch it again."
            )
        if change.down is None and change.diff is None and change.diff_b is None:
            raise ModelError(f"{path} has an alpha for {stem} and no change to it; fetch it again.")
        if change.down is not None and change.up is not None and change.down.shape[0] != change.up.shape[1]:
            raise ModelError(
                f"{path} has halves of {stem} that do not fit each other: ranks {change.down.shape[0]} and "
                f"{change.up.shape[1]}; fetch it again."
            )


def _with_alphas(
    changes: dict[tuple[Owner | None, str], Change], metadata: Mapping[str, str]
) -> dict[tuple[Owner | None, str], Change]:
    """Alphas that diffusers writes into the header, `lora_adapter_metadata`, where the tensors have none."""
    written, found = _header(metadata), {}
    for (expert, stem), change in changes.items():
        alpha = change.alpha
        for part in _COMPONENTS.get(expert, ("transformer", "unet")):
            alpha = _alpha(written, part, stem, change.rank) if alpha is None else alpha
        found[expert, stem] = _with_bias_scaled(replace(change, alpha=alpha))
    return found


def _header(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        written = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    return written if isinstance(written, dict) else {}


def _with_bias_scaled(change: Change) -> Change:
    """PEFT scales what `lora_B` gives, its bias too; a `diff_b` is added as it is."""
    if change.diff_b is None or not any(key.endswith(".bias") for key in change.keys):
        return change
    return replace(change, diff_b=(change.strength * change.diff_b.float()).type_as(change.diff_b))


_COMPONENTS: Mapping[Owner | None, tuple[str, ...]] = {
    "low": ("transformer_2",),
    "text": ("text_encoder",),
    "text_2": ("text_encoder_2",),
}


def _alpha(written: Mapping[str, Any], part: str, stem: str, rank: int | None) -> float | None:
    """PEFT's `lora_alpha`, or the entry of `alpha_pattern` that matches the end of the layer's name.

    With `use_rslora` PEFT divides by the root of the rank, so that the alpha that is divided by the rank is
    `alpha sqrt(r)`.
    """
    value = written.get(f"{part}.lora_alpha")
    patterns = written.get(f"{part}.alpha_pattern") or {}
    for pattern, given in patterns.items() if isinstance(patterns, dict) else ():
        if stem == pattern or stem.endswith(f".{pattern}"):
            value = given
            break
    if not isinstance(value, int | float):
        return None
    return value * math.sqrt(rank or 1) if written.get(f"{part}.use_rslora") is True else float(value)


def _layout(keys: Iterable[str]) -> Literal["diffusers", "original", "kohya"]:
    names = list(keys)
    if any(name.startswith((*FLAT_PREFIXES, "lora_te")) for name in names):
        return "kohya"
    said = any(_ORIGINAL.search(name) for name in names if not name.startswith(TEXT_PREFIXES))
    return "original" if said else "diffusers"
