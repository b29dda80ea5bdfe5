"""Encoders of a diffusers folder, loaded by transformers: safetensors only, complete, no remote code.

transformers fills tensors that a checkpoint lacks with random numbers and a warning; here that is an error.
It is imported when a checkpoint is loaded, never before: the import costs seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import ModelError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def load_encoder(folder: Path, class_name: str, dtype: torch.dtype, device: torch.device | str) -> Any:
    """The transformers model of class `class_name` whose `config.json` and safetensors lie in `folder`.

    Returns:
        The model in evaluation mode, gradients off.

    Raises:
        ModelError: a file is missing, the weights are pickles, or tensors are missing or of other shapes.
    """
    require_files(folder, "config.json")
    require_safetensors(folder)
    import transformers

    try:
        model, info = getattr(transformers, class_name).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder} does not load as a {class_name}: {reason}; get the folder again."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder} lacks {len(missing)} tensors of a {class_name} (first: {missing[0]}); "
            "get the folder again."
        )
    return model.requires_grad_(False).eval().to(device)


def require_files(folder: Path, *names: str) -> None:
    """`ModelError` that names what is missing."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {', '.join(missing)}; it must be a component folder in diffusers' layout."
        )


def require_safetensors(folder: Path) -> None:
    """`ModelError` when a folder has no safetensors, with another word for pickles."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"{folder} holds pickled weights ({pickles[0]}), which can run code when opened and are refused; "
            "convert them to safetensors."
        )
    raise ModelError(f"{folder} lacks model.safetensors; download the component's weights.")
