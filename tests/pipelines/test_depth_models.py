"""Depth from files and from transformers' depth models, in their true layout, tiny and random."""

from __future__ import annotations

import json
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from kinema.core.errors import ModelError
from kinema.pipelines.camera.depth import open_depth
from kinema.story.depth import Depth

PROCESSOR = {
    "do_normalize": True, "do_resize": True, "ensure_multiple_of": 14, "keep_aspect_ratio": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "DPTImageProcessor", "image_std": [0.229, 0.224, 0.225],
    "resample": 3, "size": {"height": 28, "width": 28},
}  # fmt: skip
TRUNK = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 28, "out_features": ["stage1", "stage2"], "reshape_hidden_states": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def depth_anything(tmp_path_factory):
    """A folder as `save_pretrained` writes it for Depth Anything."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    config = DepthAnythingConfig(
        backbone_config=Dinov2Config(patch_size=14, **TRUNK),
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        patch_size=14,
    )
    folder = tmp_path_factory.mktemp("depth-anything")
    model = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        model.head.conv3.bias.fill_(1.0)  # the head ends in ReLU: random weights may leave nothing
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder, model.eval()


def test_a_depth_model_gives_what_transformers_gives(depth_anything):
    folder, model = depth_anything
    source = open_depth(Depth(model=str(folder), near=0.5, far=4.0), Fraction(24))
    assert source.means == "disparity"
    frame = torch.rand(1, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(PROCESSOR[n])[None, :, None, None] for n in ("image_mean", "image_std"))
    with torch.no_grad():
        raw = model((frame - mean) / std).predicted_depth
    low, high = (float(q) for q in raw.flatten().quantile(torch.tensor([0.02, 0.98])))
    found = source(frame, 0)
    share = ((raw - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(found[:, 0], 1 / (0.25 + share * (2 - 0.25)), atol=1e-4, rtol=1e-4)
    assert found.shape == (1, 1, 28, 42)
    assert 0.5 <= float(found.min()) < float(found.max()) <= 4.0


def test_a_model_says_what_its_values_are(depth_anything, tmp_path):
    folder, _ = depth_anything
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"depth_estimation_type": "metric"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_depth(Depth(model=str(tmp_path)), Fraction(24)).means == "distance"
    assert open_depth(Depth(model=str(tmp_path), means="disparity"), Fraction(24)).means == "disparity"


def test_depth_pro_gives_inverse_distances(tmp_path):
    """Distances as transformers' own processor makes them of the network's values, up to a scale."""
    from transformers import DepthProConfig, DepthProForDepthEstimation

    torch.manual_seed(0)
    part = {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 4, "mlp_ratio": 2,
    }  # fmt: skip
    model = DepthProForDepthEstimation(
        DepthProConfig(
            patch_size=16, fusion_hidden_size=8, intermediate_hook_ids=[0], intermediate_feature_dims=[8],
            scaled_images_ratios=[0.5, 1.0], scaled_images_overlap_ratios=[0.0, 0.2],
            scaled_images_feature_dims=[8, 8], merge_padding_value=1, num_fov_head_layers=2,
            image_model_config=dict(part), patch_model_config=dict(part), fov_model_config=dict(part),
        )
    )  # fmt: skip
    with torch.no_grad():
        last = model.head.layers[-2]  # before a ReLU: random weights may leave nothing
        last.weight.fill_(0.01)
        last.bias.fill_(1.0)
    model.eval().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    source = open_depth(Depth(model=str(tmp_path)), Fraction(24))
    frame = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        raw = model(source.preparation(frame)).predicted_depth
    theirs = 1 / raw.clamp(1e-4, 1e4)
    found = source(frame, 0)
    assert source.means == "distance"
    assert float(raw.min()) > 0.01 < float(raw.std())
    torch.testing.assert_close(found[:, 0], theirs / theirs.median(), atol=1e-5, rtol=1e-4)
    other = open_depth(Depth(model=str(tmp_path), means="disparity"), Fraction(24))(frame, 0)
    nearest, farthest = raw.flatten().argmax(), raw.flatten().argmin()
    for distances in (found.flatten(), other.flatten()):  # as disparities they are not turned over
        assert distances[nearest] < distances[farthest]


def test_glpn_sees_what_its_own_processor_gives(tmp_path):
    from transformers import GLPNConfig, GLPNForDepthEstimation, GLPNImageProcessor

    torch.manual_seed(0)
    config = GLPNConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )  # fmt: skip
    model = GLPNForDepthEstimation(config).eval()
    model.save_pretrained(tmp_path)
    processor = GLPNImageProcessor()
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)
    seen = processor(pixels, return_tensors="pt")["pixel_values"]
    source = open_depth(Depth(model=str(tmp_path)), Fraction(24))
    frame = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    found = source.preparation(frame)
    assert found.shape == (1, 3, 64, 96)
    torch.testing.assert_close(found, seen, atol=0.005, rtol=0)  # theirs is rounded to bytes
    assert source.means == "distance"
    assert source(frame, 0).shape == (1, 1, 70, 101)


@pytest.fixture(scope="module")
def zoe():
    """A ZoeDepth in its true layout, tiny and random."""
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    torch.manual_seed(0)
    trunk = BeitConfig(
        image_size=64, patch_size=16, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=32, use_relative_position_bias=True, reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    model = ZoeDepthForDepthEstimation(
        ZoeDepthConfig(
            backbone_config=trunk, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
            num_relative_features=8, bottleneck_features=8, num_attractors=[4, 2, 2, 1], bin_embedding_dim=8,
            bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
        )
    )  # fmt: skip
    for weight in model.parameters():  # as they come, the same depth is everywhere
        torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


@pytest.mark.parametrize("told", [{"do_pad": True}, {"do_pad": False}, None])
def test_zoedepth_sees_and_says_what_its_own_processor_does(zoe, tmp_path, monkeypatch, told):
    """Mirrored beyond its edges and cut again, scaled from corner to corner; with its defaults too."""
    from transformers import ZoeDepthImageProcessorPil
    from transformers.models.zoedepth import image_processing_pil_zoedepth as theirs

    resize = SimpleNamespace(  # torchvision's, of tensors
        resize=lambda x, size, interpolation, antialias: F.interpolate(x[None], size, mode="bicubic")[0],
        InterpolationMode=SimpleNamespace(BICUBIC="bicubic"),
    )
    monkeypatch.setattr(theirs, "tvF", resize, raising=False)
    usual = {"size": {"height": 64, "width": 96}, "ensure_multiple_of": 32}
    processor = ZoeDepthImageProcessorPil(**({} if told is None else {**usual, **told}))
    zoe.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 72, 3), np.uint8)
    seen = processor(pixels, return_tensors="pt")["pixel_values"]
    source = open_depth(Depth(model=str(tmp_path)), Fraction(24))
    frame = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(source.preparation(frame), seen, atol=1e-5, rtol=0)
    if told is None:
        return  # as large as the true model's; what it sees was the question
    with torch.no_grad():
        output = zoe(seen)
    [said] = processor.post_process_depth_estimation(output, source_sizes=[(40, 72)])
    found, depth = source(frame, 0)[0, 0], said["predicted_depth"]
    assert source.means == "distance"
    assert float(depth.std() / depth.median()) > 1e-2
    if told["do_pad"]:
        torch.testing.assert_close(found, depth / depth.median(), atol=1e-5, rtol=1e-5)
    assert found.shape == (40, 72)


def test_what_is_no_depth_model_is_refused(depth_anything, tmp_path):
    folder, _ = depth_anything
    with pytest.raises(ModelError, match=r"lacks config\.json, preprocessor_config\.json"):
        open_depth(Depth(model=str(tmp_path)), Fraction(24))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"architectures": ["CLIPModel"]}')
    with pytest.raises(ModelError, match="is a CLIPModel; a depth model is"):
        open_depth(Depth(model=str(tmp_path)), Fraction(24))
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickled weights"):
        open_depth(Depth(model=str(tmp_path)), Fraction(24))


def test_depth_from_a_file(tmp_path):
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "d.png")
    frame = torch.zeros(1, 3, 1, 2)
    source = open_depth(Depth(path=str(tmp_path / "d.png"), near=0.5, far=4), Fraction(24))
    assert source.still
    torch.testing.assert_close(source(frame, 0), torch.tensor([[[[4.0, 0.5]]]]))
    source = open_depth(Depth(path=str(tmp_path / "d.png"), near=0.5, far=4, means="distance"), Fraction(24))
    torch.testing.assert_close(source(frame, 0), torch.tensor([[[[0.5, 4.0]]]]))
    assert torch.equal(open_depth(Depth(), Fraction(24))(frame, 0), torch.ones(1, 1, 1, 2))
