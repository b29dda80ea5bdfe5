"""Whole runs on Wan checkpoints equal diffusers' pipelines; what a checkpoint cannot do is refused early."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.core.errors import ConfigError, GeometryError, KinemaError, ModelError
from kinema.pipelines.cards import read_card
from kinema.pipelines.job import make_job
from kinema.pipelines.known import to_pixels
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

CALL = {
    "prompt": "a red fox in the snow",
    "negative_prompt": "the dog",
    "num_inference_steps": 4,
    "guidance_scale": 4.0,
}
BOUND = 1e-4


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def both(folder: Path, theirs: str, frames: int, side: int, **given: object) -> tuple[np.ndarray, np.ndarray]:
    """Frames by diffusers and by kinema from the same first noise."""
    import diffusers

    space = 16 if side == 64 else 8
    latents = torch.randn(
        1, 4, 1 + (frames - 1) // 4, side // space, side // space, generator=torch.Generator().manual_seed(5)
    )
    call = {**CALL, **given, "num_frames": frames, "height": side, "width": side, "latents": latents}
    reference = getattr(diffusers, theirs).from_pretrained(folder)
    reference.set_progress_bar_config(disable=True)
    expected = reference(**call, output_type="np").frames[0]
    ours = kinema.KinemaPipeline.from_pretrained(folder)
    ours.set_progress_bar_config(disable=True)
    return expected, ours(**call).frames[0]


@pytest.mark.parametrize("frames", [1, 9])
def test_text_to_video_equals_wan_pipeline(wan, frames):
    expected, found = both(wan("t2v"), "WanPipeline", frames, 32)
    assert found.shape == (frames, 32, 32, 3)
    assert expected.std() > 0.02
    assert np.abs(found - expected).max() < BOUND


def test_image_to_video_equals_wan_pipeline(wan):
    expected, found = both(wan("i2v"), "WanImageToVideoPipeline", 9, 32, image=picture(1))
    assert np.abs(found - expected).max() < BOUND
    other, _ = both(wan("i2v"), "WanImageToVideoPipeline", 9, 32, image=picture(2))
    assert np.abs(other - expected).max() > 100 * BOUND  # the picture matters, so equality says something


def test_a_picture_of_another_shape_is_stretched_and_read_as_in_wan_pipeline(wan):
    expected, found = both(wan("i2v"), "WanImageToVideoPipeline", 5, 32, image=picture(1, (40, 24)))
    assert np.abs(found - expected).max() < BOUND


@pytest.mark.parametrize("frames", [5, 9, 13])
def test_first_and_last_frame_equal_wan_pipeline(wan, frames):
    pictures = {"image": picture(1), "last_image": picture(2)}
    expected, found = both(wan("flf2v"), "WanImageToVideoPipeline", frames, 32, **pictures)
    assert np.abs(found - expected).max() < BOUND


@pytest.mark.parametrize("given", [{}, {"image": picture(1, (64, 64))}], ids=["text", "image"])
def test_wan_2_2_with_a_time_for_each_token_equals_wan_pipeline(wan, given):
    theirs = "WanImageToVideoPipeline" if given else "WanPipeline"
    expected, found = both(wan("ti2v"), theirs, 9, 64, **given)
    assert np.abs(found - expected).max() < BOUND


def test_one_generator_draws_what_diffusers_draws(wan):
    from diffusers import WanPipeline

    call = {**CALL, "num_frames": 5, "height": 32, "width": 32, "num_videos_per_prompt": 2}
    reference = WanPipeline.from_pretrained(wan("t2v"))
    expected = reference(**call, generator=torch.Generator().manual_seed(7), output_type="pt").frames
    ours = kinema.KinemaPipeline.from_pretrained(wan("t2v"))
    found = ours(**call, generator=torch.Generator().manual_seed(7), output_type="pt").frames
    assert found.shape == (2, 5, 3, 32, 32)
    torch.testing.assert_close(found, expected, atol=BOUND, rtol=0)


@pytest.mark.parametrize("kind", ["t2v", "i2v", "flf2v", "ti2v"])
def test_load_reads_every_kind(wan, kind):
    model = kinema.load(str(wan(kind)), device="cpu")
    assert model.dtype == torch.float32
    assert (model.image is not None) == (kind in ("i2v", "flf2v"))
    assert model.dit.config.in_channels == (12 if kind in ("i2v", "flf2v") else 4)
    assert model.card.multiple == (32 if kind == "ti2v" else 16)


def test_a_keyframe_inside_a_clip_is_coded_as_a_group_of_frames(wan, tmp_path):
    model = kinema.load(str(wan("ti2v")), device="cpu")
    picture(1, (64, 64)).save(tmp_path / "a.png")
    shot = {"frames": 9, "width": 64, "height": 64, "steps": 2, "keyframes": f"{tmp_path / 'a.png'}@3"}
    latents = kinema.generate("a fox", model=model, seed=1, **shot).latents
    pixels = to_pixels([np.asarray(picture(1, (64, 64)))] * 5, torch.device("cpu"))
    assert torch.equal(latents[:, :, 1], model.vae.encode(pixels)[:, :, 1])
    assert not torch.equal(latents[:, :, 1], model.vae.encode(pixels)[:, :, 0])


# What cannot be done is said before any weight is read


@pytest.fixture
def weightless(wan, tmp_path):
    """A checkpoint whose weights would fail to load, were they touched."""

    def folder(kind: str) -> str:
        shutil.copytree(wan(kind), tmp_path / kind)
        for weights in (tmp_path / kind).rglob("*.safetensors"):
            weights.write_bytes(b"not read")
        return str(tmp_path / kind)

    return folder


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("t2v", {"keyframes": "a.png"}, "image to video"),
        ("t2v", {"keyframes": ["a.png@0", "b.png@-1"]}, "first and last frame"),
        ("t2v", {"keyframes": "a.png@4"}, "held frames anywhere"),
        ("t2v", {"extend": "clip.mp4"}, "extension of a clip"),
        ("i2v", {}, "text to video"),
        ("i2v", {"keyframes": ["a.png@0", "b.png@-1"]}, "first and last frame"),
        ("i2v", {"keyframes": "a.png@0:0.5"}, "keyframes below full strength"),
        ("i2v", {"source": "clip.mp4"}, "video to video"),
        ("flf2v", {"keyframes": "a.png"}, "image to video"),
    ],
)
def test_a_mode_that_a_checkpoint_lacks_is_refused_by_name_before_weights(
    weightless, tmp_path, monkeypatch, kind, fields, reason
):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        picture(1).save(name)
    kinema.Clip(np.zeros((5, 32, 32, 3), np.uint8), 16).save("clip.mp4")
    folder = weightless(kind)
    with pytest.raises(ModelError, match=f"cannot do {reason}.*it does: .*Use ") as caught:
        kinema.generate("a fox", model=folder, frames=9, width=32, height=32, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frames", "place", "reason"),
    [
        (15, "-1", r"b\.png@14: .* holds frames 0 and 16 alone, and length_fit keeps 15 of 17 frames; "
                   r"write frames: 17 without length_fit, and b\.png@-1\."),
        (17, "13", r"b\.png@13: .* holds frames 0 and 16 alone; write b\.png@-1\."),
    ],
)  # fmt: skip
def test_a_last_picture_is_at_the_last_frame_or_refused(
    weightless, tmp_path, monkeypatch, frames, place, reason
):
    """It would be shown at another frame than the one asked for, or not at all."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        picture(1).save(name)
    card = read_card(weightless("flf2v"))
    written = {"model": card.id, "prompt": "a fox", "size": "32x32", "length_fit": True}
    with pytest.raises(GeometryError, match=reason):
        make_plan(Shot(**written, frames=frames, keyframes=["a.png", f"b.png@{place}"]), card)
    for last in ("-1", "16"):
        plan = make_plan(Shot(**written, frames=17, keyframes=["a.png", f"b.png@{last}"]), card)
        assert [held.frame for held in plan.given.held] == [0, 16]


def test_missing_files_are_named(wan, tmp_path):
    folder = tmp_path / "t2v"
    shutil.copytree(wan("t2v"), folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"vae lacks .*\.safetensors"):
        kinema.load(str(folder))
    shutil.rmtree(folder / "transformer")
    with pytest.raises(ModelError, match=r"transformer/config\.json is missing"):
        kinema.load(str(folder))


def test_pickled_weights_are_refused(wan, tmp_path):
    folder = tmp_path / "t2v"
    shutil.copytree(wan("t2v"), folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="pickled"):
        kinema.load(str(folder))


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("model_index.json", {"_class_name": "StableAudioPipeline"}, "'StableAudioPipeline'; kinema runs"),
        ("model_index.json", {"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "two experts"),
        ("transformer/config.json", {"_class_name": "WanVACETransformer3DModel"}, "transformer of model"),
        ("transformer/config.json", {"in_channels": 52}, "reads 52 channels and makes 4"),
        ("vae/config.json", {"_class_name": "AutoencoderKLMochi"}, "vae of model"),
    ],
)
def test_another_architecture_is_refused_by_its_name(weightless, file, change, reason):
    path = Path(weightless("t2v")) / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=reason):
        kinema.load(str(path.parents[len(Path(file).parts) - 1]))


def test_a_name_that_is_nothing_is_refused():
    with pytest.raises(ModelError, match="not a folder"):
        read_card("./no/such/model")


# What a checkpoint decides where the shot says nothing


def test_a_picture_keeps_its_shape_at_the_models_area(wan, tmp_path):
    picture(1, (300, 100)).save(tmp_path / "wide.png")
    job = make_job(Shot(model=str(wan("i2v")), prompt="a fox", keyframes=str(tmp_path / "wide.png")))
    assert job.width / job.height == pytest.approx(3, rel=0.05)
    assert 0.9 < job.width * job.height / (832 * 480) <= 1
    assert job.width % 16 == job.height % 16 == 0


def test_defaults_are_those_of_the_checkpoint(wan):
    plan = make_job(Shot(model=str(wan("ti2v")), prompt="a fox")).plans[0]
    assert (plan.geometry.width, plan.geometry.height, plan.geometry.frames) == (1280, 704, 121)
    assert (plan.sampling.solver, plan.sampling.grid, plan.sampling.shift) == ("unipc", "diffusers", 3.0)


def test_loading_draws_no_bars_of_other_libraries(wan, capfd):
    kinema.load(str(wan("i2v")))
    assert "Loading" not in capfd.readouterr().err


def test_a_model_takes_paths_and_torchs_own_dtypes(small):
    assert kinema.load(small, dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(KinemaError, match="unknown model 'None'"):
        kinema.load(None)
    with pytest.raises(ConfigError, match="unknown dtype"):
        kinema.load(str(small), dtype=torch.float64)
