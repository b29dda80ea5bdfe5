"""The depth that a shot's camera asks for, opened: a file's grey values, or a transformers depth model."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.animation.depth import DepthSource, EstimatedDepth, FlatDepth, GivenDepth, Means, Preparation
from kinema.core.errors import ModelError
from kinema.io.grey import GreyClip
from kinema.models.pretrained import load_encoder, require_files
from kinema.story.depth import Depth

METRIC = ("zoedepth", "depth_pro", "glpn", "prompt_depth_anything")
INVERSE = ("depth_pro",)  # metric, but the network gives 1/d
# Depth Pro also finds the field of view, which scales a whole frame's distances. The first frame's median
# takes that out again, and another guess for each later frame of the same lens would make a camera stumble.
_INVERSE_RANGE = (1e-4, 1e4)  # that transformers clips 1/d to
_FILES = ["*.json", "*.safetensors"]


def open_depth(depth: Depth, fps: Fraction, device: torch.device | str = "cpu") -> DepthSource:
    """The source of a shot's distances.

    Args:
        depth: the camera's setting.
        fps: of the shot.
        device: where a model runs.

    Raises:
        MediaError: the picture or clip cannot be read.
        ModelError: the model is missing, damaged, or no depth model.
    """
    if depth.path is not None:
        return _given(depth, fps)
    if depth.model is not None:
        return _estimated(depth, device)
    return FlatDepth()


def _given(depth: Depth, fps: Fraction) -> GivenDepth:
    assert depth.path is not None
    clip = GreyClip(depth.path, fps)
    means: Means = "distance" if depth.means == "distance" else "disparity"
    return GivenDepth(lambda i: torch.from_numpy(clip.frame(i)), depth.near, depth.far, means, clip.still)


def _estimated(depth: Depth, device: torch.device | str) -> EstimatedDepth:
    assert depth.model is not None
    folder = depth_folder(depth.model)
    config, preparation = (_json(folder / name) for name in ("config.json", "preprocessor_config.json"))
    means = depth_means(config, depth.model) if depth.means == "auto" else depth.means
    inverted = means == "distance" and config.get("model_type") in INVERSE
    model = load_encoder(folder, _architecture(config, depth.model), torch.float32, device)

    def network(pixels_BCHW: Tensor) -> Tensor:
        found: Tensor = model(pixels_BCHW.to(device)).predicted_depth
        return 1 / found.clamp(*_INVERSE_RANGE) if inverted else found

    return EstimatedDepth(network, Preparation.from_dict(preparation), means, depth.near, depth.far)


def depth_folder(model: str) -> Path:
    """The folder of a depth model; a hub id is downloaded (resumably) now."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        require_files(folder, "config.json", "preprocessor_config.json")
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"depth model {model!r} is no folder and cannot be fetched ({reason}); give a folder or a hub id."
        ) from None


def _architecture(config: dict[str, Any], model: str) -> str:
    """The transformers class; only those that estimate depth."""
    named = [str(name) for name in config.get("architectures") or ()]
    import transformers

    if not named or not named[0].endswith("ForDepthEstimation") or not hasattr(transformers, named[0]):
        what = named[0] if named else config.get("model_type", "nothing known")
        raise ModelError(
            f"model {model!r} is a {what}; a depth model is a ...ForDepthEstimation of transformers, "
            "such as Depth Anything or DPT."
        )
    return named[0]


def depth_means(config: dict[str, Any], model: str) -> Means:
    """What a depth model's values are, by what its configuration says."""
    if config.get("model_type") in METRIC or config.get("depth_estimation_type") == "metric":
        return "distance"
    return "disparity"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); get it again.") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object; get it again.")
    return found
