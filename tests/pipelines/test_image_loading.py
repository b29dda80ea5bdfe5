"""Checkpoints of image models that are not whole are refused; none is drawn with random numbers."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file

import kinema
from kinema.core.errors import ModelError

PARTS = [
    ("sd", "text_encoder", "CLIPTextModel"),
    ("sd", "unet", "UNet2DConditionModel"),
    ("sd", "vae", "AutoencoderKL"),
    ("sdxl", "text_encoder_2", "CLIPTextModelWithProjection"),
    ("flux", "text_encoder_2", "T5EncoderModel"),
    ("flux", "transformer", "FluxTransformer2DModel"),
]


def without_a_tensor(folder):
    """Takes the first matrix out of a part's only file; its name."""
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    name = min(name for name, tensor in tensors.items() if tensor.ndim > 1)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize(("kind", "part", "class_name"), PARTS)
def test_a_part_that_lacks_a_tensor_is_refused(image_model, tmp_path, kind, part, class_name):
    folder = tmp_path / "copy"
    shutil.copytree(image_model(kind), folder)
    lost = without_a_tensor(folder / part)
    with pytest.raises(
        ModelError, match=rf"{part} lacks \d tensors of a {class_name} \(first: (.+)\); get"
    ) as e:
        kinema.load(str(folder), device="cpu")
    assert lost.rsplit(".", 2)[-2] in str(e.value)
