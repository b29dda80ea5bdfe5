"""Encoders of a diffusers folder, loaded by transformers: safetensors only, complete, no remote code.

transformers fills tensors that a checkpoint lacks with random numbers and a warning; here that is an error.
It is imported when a checkpoint is loaded, never before: the import costs seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import ModelError
from kinema.models.weight_files import require_files, require_safetensors, weight_files
from kinema.models.weights import bare, check_amount, read_config, require_finite

__all__ = ["load_encoder", "require_files", "require_safetensors"]


@contextmanager
def loading_quietly() -> Iterator[None]:
    """Loading is reported by us, not by bars of two libraries."""
    import diffusers.utils.logging
    import transformers.utils.logging

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    shown = [logging for logging in libraries if logging.is_progress_bar_enabled()]
    for logging in shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in shown:
            logging.enable_progress_bar()


def load_encoder(folder: Path, class_name: str, dtype: torch.dtype, device: torch.device | str) -> Any:
    """The transformers model of class `class_name` whose `config.json` and safetensors lie in `folder`.

    Returns:
        The model in evaluation mode, gradients off.

    Raises:
        ModelError: a file is missing, the weights are pickles, or tensors are missing or of other shapes.
    """
    require_files(folder, "config.json")
    read_config(folder)
    weight_files(folder, "model")
    import transformers

    kind = getattr(transformers, class_name)
    try:
        with bare():  # the size that the config describes, before memory is given to it
            shell = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
        check_amount(shell, folder, "model")
        with loading_quietly():
            model, info = kind.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except ModelError:
        raise
    except Exception as error:  # what transformers raises about a stranger's file has many classes
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder} does not load as a {class_name}: {reason}; get the folder again."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder} lacks {len(missing)} tensors of a {class_name} (first: {missing[0]}); "
            "get the folder again."
        )
    for name, parameter in model.named_parameters():
        require_finite(name, parameter, folder)
    return model.requires_grad_(False).eval().to(device)
