"""The preview's pictures: what is drawn stands where it belongs, and weights on the graph are the model's."""

from __future__ import annotations

import wave
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import kinema
from kinema.animation.camera import path_of
from kinema.core.errors import ConfigError
from kinema.pipelines.camera.plot import window
from kinema.pipelines.cards import read_card
from kinema.pipelines.conditioning import condition
from kinema.pipelines.figure import Figure, shortened
from kinema.pipelines.job import make_job
from kinema.pipelines.planning import make_plan
from kinema.pipelines.plots import LEFT, RIGHT, WIDTH, place, plot, tracks
from kinema.pipelines.preview import COLUMNS, camera_path, preview, preview_clip
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

CARD = read_card("embedded")
TRAVEL = {
    "prompt": {
        "head": "oil",
        0: "a fox",
        "50%": {"prompt": "a wolf", "mode": "hold"},
        -1: "a bear",
        "ease": "in_out",
    },
    "negative": {0: "text", 12: "fog"},
    "frames": 17,
    "size": "64x64",
    "seed": 1,
}


@pytest.mark.parametrize("blend", ["attention", "velocity"])
def test_weights_on_the_graph_are_the_weights_that_the_model_is_given(small, blend):
    model = kinema.load(str(small), device="cpu")
    plan = make_plan(Shot(**TRAVEL, model=str(small), blend=blend), model.card)
    conditions = condition(plan, model)
    drawn = tracks(plan)
    for name, branch in (("prompt", conditions.positive), ("negative", conditions.negative)):
        on_graph = torch.tensor([t.values for t in drawn if t.name == name]).T
        used = branch.shares_TK if blend == "velocity" else branch.contexts[0].weights_BTK[0]
        torch.testing.assert_close(used, on_graph.float(), rtol=0, atol=0)
        assert used.sum(dim=1) == pytest.approx([1.0] * 5)


def test_tracks_of_a_plan_carry_its_texts_and_frames():
    plan = make_plan(Shot(**TRAVEL, guidance="0:(6), 16:(2)", camera={"zoom": "0:(1), 16:(2)"}), CARD)
    drawn = tracks(plan)
    assert [t.label for t in drawn if t.name == "prompt"] == ["oil, a fox", "oil, a wolf", "oil, a bear"]
    assert [t.label for t in drawn if t.name == "negative"] == ["text", "fog"]
    assert all(t.starts == (0, 1, 5, 9, 13) for t in drawn if t.prompt)
    (zoom,) = [t for t in drawn if t.name == "camera.zoom"]
    assert (zoom.low, zoom.high, len(zoom.values)) == (1, 2, 17)


def test_lanes_are_as_high_as_their_weights(tmp_path):
    figure = plot(make_job(Shot(**TRAVEL)))
    image = np.asarray(figure.image()).astype(int)
    plan = make_plan(Shot(**TRAVEL), CARD)
    areas = [m for m in figure.marks if type(m).__name__ == "Area" and len(m.points) > 4]
    lanes = [t for t in tracks(plan) if len(set(t.values)) > 1]
    assert len(areas) == len(lanes)
    for area, track in zip(areas, lanes, strict=True):
        bottom = area.points[0][1]
        tops = [y for _, y in area.points[1:-1:2]]
        assert [(bottom - y) / 22 for y in tops] == pytest.approx(track.values)
        column = round(place(track.starts[-1], 17)) + 5
        filled = (image[round(bottom) - 22 : round(bottom), column] != (240, 240, 236)).any(axis=1).sum()
        assert filled == pytest.approx(22 * track.values[-1], abs=1.5)


def test_figures_are_written_as_png_and_svg(tmp_path):
    figure = Figure(60, 40)
    figure.box(10, 10, 20, 10, "#ff0000")
    figure.words(5, 25, "a <b> & c")
    figure.picture(40, 5, 10, 10, np.full((4, 4, 3), 7, np.uint8))
    image = np.asarray(Image.open(figure.save(tmp_path / "a.png")))
    assert image.shape == (40, 60, 3)
    assert (image[12:18, 12:28] == (255, 0, 0)).all()
    assert (image[8:13, 42:48] == 7).all()
    svg = ET.parse(figure.save(tmp_path / "a.svg")).getroot()
    assert [child.tag.split("}")[1] for child in svg] == ["rect", "polygon", "text", "image"]
    assert svg[2].text == "a <b> & c"
    with pytest.raises(ConfigError, match=r"end it in \.png or \.svg"):
        figure.save(tmp_path / "a.jpg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_long_words_are_cut():
    assert shortened("short", 100) == "short"
    assert shortened("w" * 200, 100).endswith("…")


def test_stills_are_the_clips_frames(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(b"\1\70" * 8000)
    board = Storyboard(
        **{k: v for k, v in TRAVEL.items() if k in ("size", "frames", "seed")},
        audio=str(tmp_path / "a.wav"),
        shots=["a fox", {"prompt": "a wolf", "transition": "dissolve 6", "camera": "zoom in 1.5"}],
    )
    job = make_job(board)
    clip = preview_clip(job).array()
    figure = preview(job)
    stills = [mark.pixels for mark in figure.marks if type(mark).__name__ == "Picture"]
    assert len(clip) == 28
    assert len(stills) == 2 * COLUMNS
    for i, frame in enumerate([0, 2, 4, 6, 9, 11, 13, 16]):
        assert np.array_equal(stills[i], clip[frame])
        assert np.array_equal(stills[COLUMNS + i], clip[11 + frame])
    words = [mark.text for mark in figure.marks if type(mark).__name__ == "Words"]
    assert "28 frames, 3.50 s" in words
    assert "frames 11 to 27 at 8 fps, begins with a dissolve" in words
    assert any(word.startswith("sound: ") for word in words)
    assert any(word.startswith("camera: ") for word in words)


@pytest.mark.parametrize("family", ["joint", "frame by frame", "image model"])
def test_a_shot_with_loras_is_previewed_without_them(wan, image_model, tmp_path, family):
    """Their changes are to layers, of which a stand-in has none; those of text encoders too."""
    layers = ["transformer.blocks.0.attn1.to_q"]
    width, fields = 48, {"model": str(wan("t2v")), "frames": 5}
    if family != "joint":
        fields |= {"mode": "frame_by_frame", "frames": 2}
    if family == "image model":
        layers = ["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"]
        layers += ["lora_te_text_model_encoder_layers_0_self_attn_q_proj"]
        width, fields["model"] = 16, str(image_model("sd"))
    halves = {"lora_down": torch.ones(2, width), "lora_up": torch.ones(width, 2)}
    save_file(
        {f"{layer}.{half}.weight": tensor.clone() for layer in layers for half, tensor in halves.items()},
        tmp_path / "a.safetensors",
    )
    shot = Shot(prompt="a fox", size="32x32", seed=1, **fields)
    job = make_job(shot.with_(loras=f"{tmp_path / 'a.safetensors'}:0.5"))
    assert len(job.plans[0].loras) == 1
    assert np.array_equal(preview_clip(job).array(), preview_clip(make_job(shot)).array())


def test_the_cameras_windows_are_what_its_frames_see():
    plan = make_plan(Shot(**TRAVEL, camera={"zoom": "0:(1), 16:(2)"}), CARD)
    path = camera_path(plan)
    assert path is not None
    first, last = window(path.poses[0]), window(path.poses[-1])
    assert first is not None
    assert last is not None
    assert last == pytest.approx(first / 2)
    reach = np.tan(np.radians(25))
    assert first[2] == pytest.approx([reach, reach])


@pytest.mark.parametrize("zoom", [0.5, 2])
def test_a_zoom_beyond_what_numbers_hold_has_no_window(zoom):
    plan = make_plan(Shot(**TRAVEL, camera={"dialect": "deforum", "zoom": zoom}), CARD)
    assert plan.camera is not None
    found = path_of({"zoom": np.full(1500, zoom)}, plan.camera.look, 1500, (64, 64))
    assert window(found.poses[3]) is not None
    assert window(found.poses[-1]) is None


def test_rulers_and_lanes_share_one_scale():
    assert place(0, 17) == LEFT
    assert place(17, 17) == WIDTH - RIGHT
