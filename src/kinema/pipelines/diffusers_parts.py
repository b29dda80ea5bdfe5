"""Pipelines of diffusers, loaded part by part: safetensors only, complete, no code of a checkpoint's.

A pipeline's own loader fills tensors that a text encoder lacks with random numbers, and leaves those that
another part lacks without memory; here both are errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import ModelError
from kinema.models.pretrained import loading_quietly
from kinema.pipelines.card import read_json
from kinema.pipelines.hub import variant_of


def read_pipeline(
    class_name: str, folder: Path, dtype: torch.dtype, device: torch.device, **given: Any
) -> Any:
    """A pipeline from its folder.

    Args:
        class_name: of diffusers, or one of its `AutoPipelineFor...`.
        folder: with `model_index.json`, whose classes have been checked.
        dtype, device: in what precision it is loaded, and where it goes.
        given: parts that it has already.

    Raises:
        ModelError: files are missing, damaged, or lack tensors.
    """
    import diffusers

    try:
        with loading_quietly():
            parts = {**_weighted_parts(folder, dtype, tuple(given)), **given}
            pipe = getattr(diffusers, class_name).from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, **parts
            )
        return pipe.to(device)
    except torch.OutOfMemoryError:  # nothing is wrong with the folder
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} does not load as {class_name}: {reason}") from None


def read_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of diffusers or transformers from its folder, with every tensor that it has.

    Args:
        kind: its class.
        folder: with `config.json` and safetensors, which may have their precision in their names.
        dtype: in what precision it is loaded.

    Raises:
        ModelError: tensors are missing.
        OSError, ValueError, RuntimeError: what the libraries raise for files that they cannot read.
    """
    model, info = kind.from_pretrained(
        folder,
        dtype=dtype,
        variant=variant_of([path.name for path in folder.iterdir()]),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder} lacks {len(missing)} tensors of a {kind.__name__} (first: {missing[0]}); "
            "get the folder again."
        )
    return model


def _weighted_parts(folder: Path, dtype: torch.dtype, given: tuple[str, ...]) -> dict[str, Any]:
    """The parts that have weights, by their names in the index."""
    found = {}
    for part, entry in read_json(folder / "model_index.json").items():
        if part in given or not (isinstance(entry, list) and len(entry) == 2):
            continue
        kind = _model_class(*entry)
        if kind is not None and (folder / part).is_dir():
            found[part] = read_part(kind, folder / part, dtype)
    return found


def _model_class(library: object, name: object) -> Any:
    """The class of a part that has weights; None for tokenizers, schedulers and what is not there."""
    import diffusers
    import transformers

    home = {"diffusers": diffusers, "transformers": transformers}.get(str(library))
    if home is None and isinstance(library, str):  # a pipeline's own folder, which its safety checker lies in
        home = getattr(diffusers.pipelines, library, None)
    kind = getattr(home, str(name), None)
    models = (diffusers.ModelMixin, transformers.PreTrainedModel)
    return kind if isinstance(kind, type) and issubclass(kind, models) else None
