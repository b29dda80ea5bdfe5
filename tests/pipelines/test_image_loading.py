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


def half_alone(folder, parts):
    """Names the files of these parts as a copy in half precision has them."""
    for part in parts:
        for path in (folder / part).glob("*.safetensors"):
            path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))


@pytest.mark.parametrize("parts", [("unet", "vae", "text_encoder"), ("unet",)])
def test_a_folder_of_half_precision_alone_is_read(image_model, tmp_path, parts):
    folder = tmp_path / "copy"
    shutil.copytree(image_model("sd"), folder)
    half_alone(folder, parts)
    fields = {"prompt": "a fox", "frames": 1, "size": "32x32", "steps": 2, "seed": 1, "device": "cpu"}
    found, whole = (kinema.generate(model=str(place), **fields) for place in (folder, image_model("sd")))
    assert (found.array() == whole.array()).all()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_file_of_an_image_model_is_called_what_it_is(image_model, tmp_path, prefix):
    (path,) = (image_model("sd") / "unet").glob("*.safetensors")
    file = tmp_path / "dreamshaper.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in load_file(path).items()}, file)
    with pytest.raises(
        ModelError, match=r"dreamshaper.* image models are read as folders .*from_single_file"
    ):
        kinema.load(str(file), device="cpu")
