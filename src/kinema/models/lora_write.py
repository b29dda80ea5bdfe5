"""A LoRA in the names of another program: diffusers', the original ones (ComfyUI), or kohya's.

    (alpha / r) up down       stays the same product in every layout

diffusers' layout has no alphas, so they are folded into `up`, in fp32; it has no plain differences either,
but a bias of `up`, which without an alpha is added as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor
from torch import tensor as as_tensor

from kinema.core.errors import ModelError, unknown_name
from kinema.models.lora_file import Change, LoraFile
from kinema.models.wan_names import from_flat, from_original, to_original

Layout = Literal["diffusers", "original", "kohya"]
LAYOUTS: tuple[Layout, ...] = ("diffusers", "original", "kohya")
PREFIX = {"diffusers": "transformer.", "original": "diffusion_model.", "kohya": "lora_unet_"}


def relaid(file: LoraFile, layout: str) -> dict[str, Tensor]:
    """The tensors of a LoRA under another layout's names.

    Args:
        file: from `read_lora`; of a Wan transformer, or of one with Wan's layer names.
        layout: "diffusers", "original" or "kohya".

    Raises:
        ConfigError: an unknown layout.
        ModelError: a layer that the layout has no name for, or a change that it cannot say.
    """
    if layout not in LAYOUTS:
        raise unknown_name("LoRA layout", layout, LAYOUTS)
    found: dict[str, Tensor] = {}
    for (expert, stem), change in file.changes.items():
        if expert == "low" and layout != "diffusers":
            raise ModelError(
                f"{file.path} is for two transformers, which only diffusers' layout tells apart; "
                "convert it to diffusers."
            )
        name = _named(stem, layout, file)
        if layout == "diffusers":
            prefix = "transformer_2." if expert == "low" else PREFIX[layout]
            found.update(_for_diffusers(prefix + name, change, file))
        else:
            found.update(_for_others(name, change, layout))
    return {key: value.contiguous() for key, value in found.items()}


def _named(stem: str, layout: str, file: LoraFile) -> str:
    ours = from_original(stem) or from_flat(stem) or (stem if to_original(stem) else None)
    name = ours if ours is None or layout == "diffusers" else to_original(ours)
    if name is None:
        raise ModelError(f"{file.path} changes {stem}, which is no layer of a Wan transformer.")
    return name.replace(".", "_") if layout == "kohya" else name


def _for_diffusers(name: str, change: Change, file: LoraFile) -> Iterator[tuple[str, Tensor]]:
    if change.diff is not None or (change.diff_b is not None and change.down is None):
        raise ModelError(
            f"{file.path} has plain differences ({name}), which diffusers' layout cannot hold; "
            "convert to original or kohya."
        )
    if change.down is not None and change.up is not None:
        yield f"{name}.lora_A.weight", change.down
        yield f"{name}.lora_B.weight", (change.strength * change.up.float()).type_as(change.up)
    if change.diff_b is not None:
        yield f"{name}.lora_B.bias", change.diff_b


def _for_others(name: str, change: Change, layout: str) -> Iterator[tuple[str, Tensor]]:
    key = PREFIX[layout] + name
    if change.down is not None and change.up is not None and change.rank is not None:
        yield f"{key}.lora_down.weight", change.down
        yield f"{key}.lora_up.weight", change.up
        yield f"{key}.alpha", as_tensor(change.strength * change.rank)
    if change.diff is not None:
        table = key.endswith("modulation")
        yield (
            (f"{key.removesuffix('modulation').rstrip('._')}.diff_m" if table else f"{key}.diff"),
            change.diff,
        )
    if change.diff_b is not None:
        yield f"{key}.diff_b", change.diff_b
