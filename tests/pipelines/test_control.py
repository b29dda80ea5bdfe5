"""Image models that follow control pictures, equal to diffusers' own ControlNet pipelines where both are
asked the same; and masks that open what a picture of another shape leaves."""

from __future__ import annotations

import shutil

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from checkpoints import save_control
from kinema.core.errors import ConfigError, ModelError
from kinema.core.runtime import generator
from kinema.pipelines.cards import read_card
from kinema.pipelines.durable.key import plan_keys
from kinema.pipelines.images.engine import Drawing, Seeds
from kinema.pipelines.images.engine_diffusers import DiffusersImages
from kinema.pipelines.images.model import given_noise
from kinema.pipelines.job import make_job
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

SIDE = 32
SEEDS = Seeds(7, 7, 0.0)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return {
        kind: str(save_control(kind, tmp_path_factory.mktemp(f"control-{kind}"))) for kind in ("sd", "sdxl")
    }


@pytest.fixture(scope="module")
def loaded(image_model):
    models = {}

    def of(kind):
        if kind not in models:
            models[kind] = kinema.load(str(image_model(kind)), device="cpu")
        return models[kind]

    return of


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Control pictures as files: one, and a clip of four; and a wide picture."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, SIDE, SIDE, 3), dtype=np.uint8)
    kinema.Clip(frames, 12).save(folder / "clip.mkv", quality="lossless")
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:04d}.png")
    Image.fromarray(frames[0]).save(folder / "edges.png")
    Image.fromarray(rng.integers(0, 255, (16, SIDE, 3), dtype=np.uint8)).save(folder / "wide.png")
    return folder


def plan_of(model, frames=3, **fields):
    given = {"prompt": "a red fox", "negative": "dog", "guidance": 4, "steps": 3, "seed": 7} | fields
    return make_plan(
        Shot(model=model.card.id, frames=frames, size="32x32", mode="frame_by_frame", **given), model.card
    )


def canvas():
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def asked(**fields):
    return Drawing(**{"frame": 0, "seeds": SEEDS, "steps": 6, "solver": "checkpoint", **fields})


CALLS = {
    ("sd", "text"): "StableDiffusionControlNetPipeline",
    ("sd", "image"): "StableDiffusionControlNetImg2ImgPipeline",
    ("sd", "inpaint"): "StableDiffusionControlNetInpaintPipeline",
    ("sdxl", "text"): "StableDiffusionXLControlNetPipeline",
    ("sdxl", "image"): "StableDiffusionXLControlNetImg2ImgPipeline",
    ("sdxl", "inpaint"): "StableDiffusionXLControlNetInpaintPipeline",
}


@pytest.mark.parametrize(("kind", "task"), CALLS)
def test_a_controlled_drawing_is_the_pipelines_own(loaded, networks, media, kind, task):
    model = loaded(kind)
    control = {
        "path": str(media / "edges.png"),
        "model": networks[kind],
        "strength": 0.8,
        "start": 0.1,
        "end": 0.9,
    }
    plan = plan_of(model, control=control)
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 16:] = 1
    more = {"text": {}, "image": {"canvas": canvas(), "strength": 0.7}}
    more["inpaint"] = {**more["image"], "open": mask}
    drawn = DiffusersImages(plan, model).draw(asked(**more[task]))

    network = diffusers.ControlNetModel.from_pretrained(networks[kind])
    pipe = getattr(diffusers, CALLS[kind, task])(**model.pipe.components, controlnet=network)
    pipe.scheduler = model.scheduler("checkpoint")
    pipe.set_progress_bar_config(disable=True)
    edges = torch.from_numpy(np.array(Image.open(media / "edges.png"))).permute(2, 0, 1)[None] / 255
    latents = SIDE // model.card.stride.space
    noise = SEEDS.noise((model.card.latent_channels, latents, latents))
    call = {"image": edges, "height": SIDE, "width": SIDE, "latents": noise}
    if task != "text":
        call = {"image": canvas(), "control_image": edges, "strength": 0.7}
    if task == "inpaint":
        call |= {"mask_image": mask, "height": SIDE, "width": SIDE}
    with given_noise(pipe.scheduler, noise):
        theirs = pipe(
            prompt="a red fox",
            negative_prompt="dog",
            guidance_scale=4.0,
            num_inference_steps=6,
            controlnet_conditioning_scale=0.8,
            control_guidance_start=0.1,
            control_guidance_end=0.9,
            generator=generator(7, "drawing"),
            output_type="pt",
            **call,
        ).images
    if task == "inpaint":
        theirs = canvas() + mask * (theirs - canvas())
    assert torch.allclose(drawn, theirs, atol=1e-5)
    plain = DiffusersImages(plan_of(model), model).draw(asked(**more[task]))
    off = DiffusersImages(plan_of(model, control=control | {"strength": 0}), model).draw(asked(**more[task]))
    assert torch.allclose(off, plain, atol=1e-5)
    assert not torch.allclose(drawn, plain, atol=1e-3)


def test_a_clip_controls_each_frame_by_its_own_picture(loaded, networks, media):
    model = loaded("sd")
    clip = {"path": str(media / "clip.mkv"), "model": networks["sd"], "strength": "0:(1), 2:(0.5)"}
    plan = plan_of(model, control=clip, fps=12)
    assert plan.control is not None
    assert plan.control.strength == (1.0, 0.75, 0.5)
    engine = DiffusersImages(plan, model)
    for frame in range(3):
        still = {"path": str(media / f"{frame:04d}.png"), "model": networks["sd"], "strength": 1 - frame / 4}
        alone = DiffusersImages(plan_of(model, control=still), model)
        assert torch.equal(engine.draw(asked(frame=frame)), alone.draw(asked(frame=frame)))


def test_a_changed_network_is_another_render(image_model, networks, media, tmp_path):
    copy = shutil.copytree(networks["sd"], tmp_path / "copy")
    control = {"path": str(media / "edges.png"), "model": str(copy)}
    shot = Shot(
        model=str(image_model("sd")), frames=3, size="32x32", mode="frame_by_frame", seed=1, control=control
    )
    before = plan_keys(make_job(shot), {})
    save_control("sd", copy, seed=5)
    assert plan_keys(make_job(shot), {}) != before


def test_a_picture_is_painted_on_beyond_its_borders(loaded, media):
    model = loaded("sd")
    fields = {"frames": 1, "fit": "pad", "keyframes": str(media / "wide.png"), "redraw": {"mask": "bars"}}
    given = {"prompt": "a red fox", "guidance": 4, "steps": 3, "seed": 7, "size": "32x32", **fields}
    given["mode"] = "frame_by_frame"
    frame = kinema.generate(model=model, **given).array()[0]
    wide = np.asarray(Image.open(media / "wide.png"))
    assert np.array_equal(frame[8:24], wide)
    assert frame[:8].std() > 5
    assert frame[24:].std() > 5
    other = kinema.generate(model=model, **(given | {"seed": 8})).array()[0]
    assert np.array_equal(other[8:24], wide)
    assert not np.array_equal(other[:8], frame[:8])


def test_a_still_is_inpainted(loaded, media, tmp_path):
    model = loaded("sd")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, 16:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    fields = {"keyframes": f"{media}/edges.png@0:0", "redraw": {"mask": str(tmp_path / "mask.png")}}
    given = {"prompt": "a fox", "frames": 1, "size": "32x32", "steps": 3, "seed": 7, **fields}
    given["mode"] = "frame_by_frame"
    frame = kinema.generate(model=model, **given).array()[0]
    edges = np.asarray(Image.open(media / "edges.png"))
    assert np.array_equal(frame[:, :16], edges[:, :16])
    assert np.abs(frame[:, 16:].astype(int) - edges[:, 16:]).mean() > 5


@pytest.mark.parametrize(
    ("kind", "fields", "error", "message"),
    [
        ("flux", {}, ConfigError, r"control is read by ControlNets of Stable Diffusion and SDXL"),
        (
            "sd",
            {"model": "{sdxl}"},
            ModelError,
            r"has cross_attention_dim 32 and .* 16: it was made for",
        ),
        (
            "sd",
            {"model": "{unet}"},
            ModelError,
            r"is a 'UNet2DConditionModel'; kinema reads",
        ),
        ("sd", {"model": None}, ConfigError, r"control needs a model that reads it for"),
        ("sd", {"mask": "m.png"}, ConfigError, r"control.mask is for VACE; .* write redraw: \{mask: FILE\}"),
        ("sd", {"path": "no.png"}, kinema.KinemaError, r"no\.png"),
        ("sd", {"strength": "0:(1), 2:(9)"}, ConfigError, r"control.strength is 5 at frame 1"),
        ("sd", {"strength": 9}, ConfigError, r"control.strength=9 is out of range; write 0 to 4"),
        ("sd", {"start": 0.9, "end": 0.2}, ConfigError, r"write the earlier share first"),
    ],
)
def test_what_cannot_be_controlled_is_refused(image_model, networks, media, kind, fields, error, message):
    places = {"sdxl": networks["sdxl"], "unet": str(image_model("sd") / "unet")}
    control = {"path": str(media / "edges.png"), "model": networks["sd"]} | {
        name: value.format(**places) if isinstance(value, str) else value for name, value in fields.items()
    }
    card = read_card(str(image_model(kind)))
    with pytest.raises(error, match=message):
        make_plan(
            Shot(prompt="a", model=card.id, frames=3, size="32x32", mode="frame_by_frame", control=control),
            card,
        )


def test_video_models_take_no_control(small, networks, media):
    card = read_card(str(small))
    control = {"path": str(media / "edges.png"), "model": networks["sd"]}
    with pytest.raises(ConfigError, match="control is read by ControlNets of Stable Diffusion"):
        make_plan(Shot(prompt="a", model=card.id, control=control), card)


def test_bars_need_a_picture_shown_whole(image_model, media):
    card = read_card(str(image_model("sd")))
    shot = Shot(
        prompt="a", model=card.id, frames=3, size="32x32", mode="frame_by_frame", redraw={"mask": "bars"}
    )
    with pytest.raises(ConfigError, match="mask: bars is what a keyframe of another shape leaves open"):
        make_plan(shot, card)
