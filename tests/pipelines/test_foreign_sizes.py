"""Sizes of other diffusers pipelines: what a checkpoint is for, what it is bound to, what goes in tiles."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.core.errors import GeometryError
from kinema.pipelines.cards import read_card
from kinema.pipelines.foreign.families import CLASSES
from kinema.pipelines.loading import load_decoder
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

# What the transformers' configurations of THUDM's repositories say of sizes.
COG = {
    "CogVideoX-5b": {"sample_height": 60, "sample_width": 90, "sample_frames": 49, "patch_size_t": None},
    "CogVideoX1.5-5B": {"sample_height": 300, "sample_width": 300, "sample_frames": 81, "patch_size_t": 2},
}


@pytest.mark.parametrize(
    ("kind", "name", "size", "frames", "fps"),
    [
        ("cogvideo", "CogVideoX-5b", (720, 480), 49, "8"),
        ("cogvideo-1.5", "CogVideoX1.5-5B", (1360, 768), 81, "16"),
    ],
)
def test_cogvideox_has_its_makers_size(foreign, tmp_path, kind, name, size, frames, fps):
    folder = shutil.copytree(foreign(kind), tmp_path / name)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | COG[name]))
    geometry = make_plan(Shot(model=str(folder), prompt="a fox"), read_card(str(folder))).geometry
    assert (geometry.width, geometry.height) == size
    assert (geometry.frames, geometry.fps) == (frames, fps)


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def test_learned_positions_are_for_one_size(foreign, picture):
    name = str(foreign("cogvideo-i2v-learned"))
    shot = {"model": name, "prompt": "a fox", "keyframes": picture, "frames": 9, "steps": 2, "seed": 1}
    model = kinema.load(name, device="cpu")
    call = {"num_frames": 9, "num_inference_steps": 1, "height": 48, "width": 32}
    with pytest.raises(ValueError, match="different resolution"):  # what diffusers says, while it runs
        model.pipe(prompt="a fox", image=Image.open(picture), **call)
    with pytest.raises(GeometryError, match=r"32x48: .* has learned positions for 32x32 and") as caught:
        make_plan(Shot(**shot, size="32x48"), read_card(name))
    assert "\n" not in str(caught.value)
    made = kinema.generate(model=model, **{k: v for k, v in shot.items() if k != "model"}).array()
    assert made.shape == (9, 32, 32, 3)  # though the picture has another shape
    other = str(foreign("cogvideo-i2v"))
    plan = make_plan(Shot(**shot | {"model": other}, size="32x48"), read_card(other))
    assert (plan.geometry.width, plan.geometry.height) == (32, 48)


TILED = {"hunyuan": True, "mochi": True, "cogvideo": True, "ltx": False}


@pytest.mark.parametrize("kind", TILED)
def test_large_pictures_are_decoded_in_tiles_where_its_makers_do(foreign, monkeypatch, kind):
    card = read_card(str(foreign(kind)))
    assert CLASSES[card.transformer["_class_name"]].tiled == TILED[kind]
    model = kinema.load(card.id, device="cpu")
    alone = load_decoder(card, device="cpu")
    space = card.stride.space
    for vae in (model.pipe.vae, alone.vae):
        assert vae.use_tiling == TILED[kind]
    latents = torch.randn(1, card.latent_channels, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    vae, sizes = model.pipe.vae, []
    decoder = vae.decoder.forward
    monkeypatch.setattr(
        vae.decoder, "forward", lambda z, *a, **k: sizes.append(z.shape[-2:]) or decoder(z, *a, **k)
    )
    with torch.no_grad():
        frames = vae.decode(latents, **({"temb": torch.zeros(1)} if kind == "ltx" else {})).sample
    assert frames.shape[-2:] == (48 * space, 48 * space)
    assert (len(sizes) > 1) == TILED[kind]
