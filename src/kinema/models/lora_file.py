"""LoRA files of every common layout, read into changes to named layers.

    W' = W + scale (alpha / rank) up down        the low-rank change of a layer's weight
    W' = W + scale diff                          a plain difference, which some files have beside it

Layouts: diffusers and PEFT (`transformer.blocks.0.attn1.to_q.lora_A.weight`), the original names that ComfyUI
writes (`diffusion_model.blocks.0.self_attn.q.lora_down.weight`), and the flattened names of kohya and musubi
(`lora_unet_blocks_0_self_attn_q.lora_down.weight`). Text encoders have prefixes of their own (`TEXTS`). A key
that is none of these is an error: nothing is dropped in silence. Changes that are all zeros, which programs
write that save whole models as LoRAs, may be of anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kinema.core.errors import ModelError
from kinema.models.lora_alphas import CONFIG, AdapterConfig, alpha_in_header, beside, header
from kinema.models.lora_keys import (
    PEFT_PREFIX,
    TEXT_PREFIXES,
    TEXTS,
    Owner,
    Part,
    Text,
    Whose,
    layout_of,
    other_kind,
    placed,
)
from kinema.models.weight_files import check_start
from kinema.models.weights import require_finite

Changes = dict[tuple[Owner | None, str], "Change"]


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

    @property
    def idle(self) -> bool:
        """All zeros: it changes nothing at any scale."""
        if (self.down is None) != (self.up is None):
            return False
        low = all(_acts(half) for half in (self.down, self.up))
        return not (low or _acts(self.diff) or _acts(self.diff_b))

    def same(self, other: Change) -> bool:
        """Whether it is the same change, to the bit, under whatever names."""
        mine, others = ((c.down, c.up, c.diff, c.diff_b) for c in (self, other))
        return self.strength == other.strength and all(map(_equal, mine, others))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Change:
        """The same change elsewhere, and in another precision unless that is None."""
        down, up, diff, diff_b = (
            None if t is None else t.to(device, t.dtype if dtype is None else dtype)
            for t in (self.down, self.up, self.diff, self.diff_b)
        )
        return replace(self, down=down, up=up, diff=diff, diff_b=diff_b)


def _acts(tensor: Tensor | None) -> bool:
    return tensor is not None and bool(tensor.float().any())  # 8-bit floats have no `any` of their own


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and torch.equal(a, b)


@dataclass(frozen=True, slots=True, eq=False)
class LoraFile:
    """A file's changes by the file's own layer names; flattened names are told apart when it is fitted.

    Attributes:
        path: where it was read.
        changes: by expert (None: the file does not say) or text encoder, and layer.
        layout: what the names look like.
        count: keys in the file.
        dropped: those of them that are of text encoders which no LoRA of the model changes, all zeros.
        config: what says its alphas beside it, if anything.
        notes: what a person should know of it.
    """

    path: Path
    changes: Mapping[tuple[Owner | None, str], Change] = field(repr=False)
    layout: Literal["diffusers", "original", "kohya"]
    count: int
    dropped: int = 0
    config: Path | None = None
    notes: tuple[str, ...] = ()

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
    found, unknown = _gathered(path, tensors, texts)
    dropped = _zeros_of_others(path, found, unknown)
    changes: Changes = {(whose, stem): c for (whose, stem), c in found.items() if whose != "another"}
    if unknown:
        raise ModelError(
            f"{path} has {len(unknown)} keys of {len(tensors)} that are no part of a LoRA "
            f"({', '.join(unknown[:3])}); it is another kind of file, or damaged."
        )
    if not changes:
        raise ModelError(f"{path} has no change of this model among its {len(tensors)} keys; fetch it again.")
    if any(owner == "low" for owner, _ in changes):  # the others, of plain `transformer`, are the first's
        changes = {(owner or "high", stem): change for (owner, stem), change in changes.items()}
    _check_halves(path, changes)
    config = beside(path, tensors)
    changes = _with_alphas(changes, metadata, config)
    idle = dropped + sum(len(change.keys) for change in changes.values() if change.idle)
    return LoraFile(
        path,
        changes,
        layout_of(tensors),
        len(tensors),
        dropped=dropped,
        config=None if config is None else config.path,
        notes=(*_zeros(path, idle, len(tensors)), *_without_alphas(path, tensors, changes)),
    )


def groups(path: str | Path) -> dict[str, list[str]]:
    """The keys of a file by what they are, in words, whether it can be read as a LoRA or not.

    Raises:
        ModelError: not there, not safetensors, or damaged.
    """
    found: dict[str, list[str]] = {}
    for key in _tensors(Path(path))[0]:
        place = placed(key, tuple(TEXTS))
        what = other_kind(key)
        if what is None and place is None:
            what = "no part of a LoRA"
        elif what is None:
            what = _WHOSE.get(place[0] if place else None, "LoRA")
        found.setdefault(what, []).append(key)
    return found


_WHOSE: Mapping[Whose | None, str] = {
    "text": "LoRA of the text encoder",
    "text_2": "LoRA of the second text encoder",
    "another": "LoRA of another text encoder",
}


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


def _gathered(
    path: Path, tensors: Mapping[str, Tensor], texts: Collection[Text]
) -> tuple[dict[tuple[Whose | None, str], Change], list[str]]:
    """The changes of a file, and the keys that are of none."""
    changes: dict[tuple[Whose | None, str], Change] = {}
    unknown = []
    for key, tensor in tensors.items():
        if (kind := other_kind(key)) is not None:
            raise ModelError(f"{path} is a {kind} ({key}), which kinema does not read; it reads LoRA alone.")
        if (place := placed(key, texts)) is None:
            unknown.append(key)
            continue
        whose, stem, part = place
        before = changes.get((whose, stem), Change())
        if getattr(before, "diff_b" if part == "bias" else part) is not None:
            raise ModelError(
                f"{path} says the {part} of {stem} twice ({key}), and kinema would have to choose; fetch it "
                "again, or leave one of the two out."
            )
        changes[whose, stem] = _with(before, part, tensor, path, key)
    return changes, unknown


def _zeros_of_others(
    path: Path, changes: Mapping[tuple[Whose | None, str], Change], unknown: list[str]
) -> int:
    """How many keys are of text encoders that no LoRA of the model changes; they may only be zeros."""
    others = [change for (whose, _), change in changes.items() if whose == "another"]
    acting = [key for change in others if not change.idle for key in change.keys]
    if acting := [*acting, *(key for key in unknown if key.startswith(TEXT_PREFIXES))]:
        raise ModelError(
            f"{path} also changes a text encoder ({acting[0]}), which LoRAs of this model do not. "
            "Use a file without such keys, or one that was made for this model."
        )
    return sum(len(change.keys) for change in others)


def _zeros(path: Path, idle: int, count: int) -> tuple[str, ...]:
    return (f"LoRA {path.name}: {idle} of {count} keys are of changes that are all zeros.",) if idle else ()


def _without_alphas(path: Path, keys: Collection[str], changes: Changes) -> tuple[str, ...]:
    """A note for PEFT's names without PEFT's configuration: the scale that was trained is not known."""
    if not any(key.startswith(PEFT_PREFIX) for key in keys):
        return ()
    if any(change.alpha is not None or change.rank is None for change in changes.values()):
        return ()
    return (
        f"LoRA {path.name} has PEFT's names and no alpha, so that alpha is taken to be its rank; "
        f"put its {CONFIG} beside it.",
    )


def _with(change: Change, part: Part, tensor: Tensor, path: Path, key: str) -> Change:
    keys = (*change.keys, key)
    if part == "alpha" and tensor.numel() != 1:
        raise ModelError(f"{path} has an alpha of {tensor.numel()} numbers ({key}); fetch it again.")
    if part == "alpha":
        return replace(change, alpha=float(tensor.item()), keys=keys)
    if part == "down":
        return replace(change, down=tensor, keys=keys)
    if part == "up":
        return replace(change, up=tensor, keys=keys)
    if part == "diff":
        return replace(change, diff=tensor, keys=keys)
    return replace(change, diff_b=tensor, keys=keys)


def _check_halves(path: Path, changes: Changes) -> None:
    for (_, stem), change in changes.items():
        if (change.down is None) != (change.up is None):
            missing = "lora_B (up)" if change.up is None else "lora_A (down)"
            raise ModelError(
                f"{path} has one half of a change to {stem}, without its {missing}; fetch it again."
            )
        if change.down is None and change.diff is None and change.diff_b is None:
            raise ModelError(f"{path} has an alpha for {stem} and no change to it; fetch it again.")
        for half in (change.down, change.up):
            if half is not None and (half.ndim < 2 or not half.numel()):
                raise ModelError(
                    f"{path} has a half of a change to {stem} that is empty or no matrix (of shape "
                    f"{list(half.shape)}); fetch it again."
                )
        if change.down is not None and change.up is not None and change.down.shape[0] != change.up.shape[1]:
            raise ModelError(
                f"{path} has halves of {stem} that do not fit each other: ranks {change.down.shape[0]} and "
                f"{change.up.shape[1]}; fetch it again."
            )


def _with_alphas(changes: Changes, metadata: Mapping[str, str], config: AdapterConfig | None) -> Changes:
    """Alphas of the file's header, or of PEFT's configuration beside it, where the tensors have none."""
    written, found = header(metadata), Changes()
    for (owner, stem), change in changes.items():
        alpha = change.alpha
        if alpha is None:
            alpha = alpha_in_header(written, owner, stem, change.rank)
        if alpha is None and config is not None and change.rank is not None:
            alpha = config.alpha_of(stem, change.rank)
        found[owner, stem] = _with_bias_scaled(replace(change, alpha=alpha))
    return found


def _with_bias_scaled(change: Change) -> Change:
    """PEFT scales what `lora_B` gives, its bias too; a `diff_b` is added as it is."""
    if change.diff_b is None or not any(key.endswith(".bias") for key in change.keys):
        return change
    return replace(change, diff_b=(change.strength * change.diff_b.float()).type_as(change.diff_b))
