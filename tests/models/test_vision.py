"""CLIP image tokens: equal to diffusers' Wan image-to-video pipeline, without torchvision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kinema.core.errors import ModelError
from kinema.models.vision import CheckpointImageEncoder, ImagePreparation

SIZES = [(40, 56), (57, 33), (24, 24), (15, 90)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wan image encoder in small, with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("wan-i2v")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=24,
        patch_size=8,
    )
    CLIPVisionModel(config).save_pretrained(folder / "image_encoder")
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    processor.save_pretrained(folder / "image_processor")
    return folder


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def test_tokens_equal_diffusers_wan_pipeline(folder, images):
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPVisionModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    reference = WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        scheduler=None,
        image_processor=CLIPImageProcessorPil.from_pretrained(folder / "image_processor"),
        image_encoder=CLIPVisionModel.from_pretrained(folder / "image_encoder").eval(),
    )
    with torch.no_grad():
        expected_BND = reference.encode_image(
            [Image.fromarray(image) for image in images], torch.device("cpu")
        )
    tokens_BND = CheckpointImageEncoder.from_folder(folder).encode(images)
    assert tokens_BND.shape == (4, 10, 16)
    torch.testing.assert_close(tokens_BND, expected_BND, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 31, "width": 17}},  # pads and crops
        {"size": {"height": 20, "width": 30}, "do_center_crop": False, "resample": 2},
        {"do_resize": False, "crop_size": {"height": 16, "width": 16}, "do_normalize": False},
        {
            "size": {"shortest_edge": 24},
            "do_center_crop": False,
            "image_mean": [0.5] * 3,
            "image_std": [0.25] * 3,
        },
    ],
)
def test_preparation_follows_the_processors_settings(settings, images):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    reference = CLIPImageProcessorPil(**settings)
    ours = ImagePreparation.from_dict(json.loads(reference.to_json_string()))
    for image in images:
        expected_CHW = reference(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(ours(image), expected_CHW, atol=1e-6, rtol=0)


def test_whole_numbers_mean_the_shortest_edge_and_a_square_crop():
    assert ImagePreparation.from_dict({"size": 24, "crop_size": 24}) == ImagePreparation.from_dict(
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    )


def test_names_of_published_checkpoints_load(folder, images, tmp_path):
    """Published files name tensors `vision_model.*`; newer transformers writes them without it."""
    for path in folder.rglob("*.*"):
        (tmp_path / path.relative_to(folder)).parent.mkdir(exist_ok=True)
        (tmp_path / path.relative_to(folder)).write_bytes(path.read_bytes())
    weights = tmp_path / "image_encoder" / "model.safetensors"
    tensors = {f"vision_model.{k.removeprefix('vision_model.')}": v for k, v in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    old, new = CheckpointImageEncoder.from_folder(tmp_path), CheckpointImageEncoder.from_folder(folder)
    assert torch.equal(old.encode(images), new.encode(images))


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(ModelError, match=r"lacks preprocessor_config\.json"):
        CheckpointImageEncoder.from_folder(tmp_path)
    (tmp_path / "image_processor").mkdir()
    (tmp_path / "image_processor" / "preprocessor_config.json").write_text('{"size": {}}')
    with pytest.raises(ModelError, match="not a CLIP image processor"):
        CheckpointImageEncoder.from_folder(tmp_path)
    (tmp_path / "image_processor" / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"lacks config\.json"):
        CheckpointImageEncoder.from_folder(tmp_path)
