"""The camera's settings: words, names and ranges, and rates that mean the same at every frame rate."""

from __future__ import annotations

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.story.camera import Camera, read_moves
from kinema.story.camera_deforum import DeforumCamera
from kinema.story.shot import Shot
from kinema.story.storyboard import dump, load


def test_moves_in_words_are_rates_per_second():
    moves = read_moves("zoom in 1.5, pan left 0.2, roll right, look up 5, orbit left, move forward")
    assert moves == {"zoom": 1.5, "pan_x": -0.2, "roll": 10.0, "pitch": 5.0, "orbit_x": -10.0, "z": 0.1}
    assert read_moves("zoom out 1.25") == {"zoom": 0.8}
    assert Shot(camera="pan up").camera == Camera(speed={"pan_y": 0.1})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "'' is not a move"),
        ("pan", "'pan' is not a move"),
        ("pann left", "Did you mean 'pan'"),
        ("zoom left", "unknown way to zoom 'left'"),
        ("pan left, pan right", "pan_x is moved twice"),
        ("zoom in 0", "zoom by 0"),
    ],
)
def test_words_that_are_no_moves_are_refused(words, says):
    with pytest.raises(ConfigError, match=says):
        Shot(camera=words)


def test_a_rate_per_second_adds_up_to_the_same_at_every_frame_rate():
    camera = Camera(speed={"zoom": 2.0, "pan_x": 0.5})
    for fps in (8, 24, "30000/1001"):
        sampled = camera.sample(10, Shot(fps=fps).fps)
        each = float(Shot(fps=fps).fps)
        assert sampled["speed.zoom"][3] ** each == pytest.approx(2.0)
        assert sampled["speed.pan_x"][3] * each == pytest.approx(0.5)
    per_frame = Camera(speed={"per": "frame", "zoom": 1.02}).sample(4, 24)
    assert per_frame["speed.zoom"] == pytest.approx([1.02] * 4)


def test_positions_are_sampled_as_written():
    camera = Camera(zoom={0: 1, -1: 2}, roll="10 * sec")
    values = camera.sample(5, 2)
    assert set(values) == {"zoom", "roll"}
    np.testing.assert_allclose(values["zoom"], [1, 1.25, 1.5, 1.75, 2])
    np.testing.assert_allclose(values["roll"], [0, 5, 10, 15, 20])


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ({"zom": 2}, "unknown camera setting 'zom'. Did you mean 'zoom'"),
        ({"angle": 2}, "Here it is called 'roll'"),
        ({"dialect": "deforum", "roll": 2}, "Here it is called 'angle'"),
        ({"dialect": "defroum"}, "Did you mean 'deforum'"),
        ({"speed": {"pann_x": 1}}, "Did you mean 'pan_x'"),
        ({"hold": ["5:2"]}, "strength='2' is out of range"),
        ({"depth": {"path": "a.png", "model": "b"}}, "exclude each other"),
        ({"depth": {"near": 3, "far": 2}}, "near=3 is not below far=2"),
        ({"colour": [0, 0, 256]}, "three of 0 to 255"),
        (3, "camera"),
    ],
)
def test_what_is_wrong_is_said(camera, says):
    with pytest.raises(ConfigError, match=says):
        Shot(camera=camera)


def test_values_out_of_range_name_their_track_and_frame():
    with pytest.raises(ConfigError, match=r"camera.zoom=0 at frame 4 is out of range; write 0.001 to 1000"):
        Camera(zoom={0: 1, 4: 0}).sample(9, 8)
    with pytest.raises(ConfigError, match=r"camera.pan_x: .*before the start"):
        Camera(pan_x={0: 0, -20: 1}).sample(9, 8)
    with pytest.raises(ConfigError, match=r"camera.zoom: "):
        Shot(frames=9, camera={"zoom": {0: 1, -20: 2}})
    with pytest.raises(ConfigError, match=r"camera.hold\[0\]: "):
        Shot(frames=9, camera={"hold": 20})


@pytest.mark.parametrize(
    "camera",
    [
        {"zoom": {"0": 1, "-1": 2}, "hold": [-1, "50%:0.5"], "depth": "depth.png"},
        {"speed": {"per": "frame", "roll": "3 * sin(t)"}, "border": "colour", "colour": [1, 2, 3]},
        {"dialect": "deforum", "mode": "3D", "translation_z": "0:(1.75)", "fov": 40},
    ],
)
def test_files_keep_a_camera(camera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shot = Shot(prompt="a fox", camera=camera)
    assert Shot.from_mapping(shot.to_mapping()) == shot
    dump(shot, tmp_path / "shot.yaml")
    again = load(tmp_path / "shot.yaml")
    if again.camera.depth.path is not None:
        assert again.camera.depth.path == str(tmp_path / "depth.png")
        again = again.with_(camera=again.camera.with_(depth="depth.png"))
    assert again.camera == shot.camera


def test_deforum_tracks_that_do_nothing_are_known():
    both = {"angle": "0:(1)", "translation_z": "0:(1.75)", "translation_x": 3, "fov": 70}
    assert DeforumCamera(**both).idle == ("translation_z",)
    assert DeforumCamera(**both, mode="3D").idle == ("angle",)
    assert DeforumCamera(**both, enable_perspective_flip=True).idle == ("translation_x", "translation_z")
    flipped = {**both, "perspective_flip_phi": 20}
    assert DeforumCamera(**flipped, mode="3D").idle == ("angle", "perspective_flip_phi")
    assert DeforumCamera(**flipped, mode="3D", enable_perspective_flip=True).idle == ("angle",)
    assert DeforumCamera(mode="3d").mode == "3D"


def test_each_dialect_reads_its_texts_its_own_way():
    """In Deforum a fraction is an expression, which holds; here it is a value, which is travelled from."""
    text = "0:(1/2), 4:(3/2)"
    native, deforum = Shot(camera={"zoom": text}), Shot(camera={"dialect": "deforum", "zoom": text})
    assert native.camera.sample(5, 24)["zoom"][2] == pytest.approx(1.0)
    assert deforum.camera.sample(5, 24)["zoom"][2] == pytest.approx(0.5)
    by_shot = Shot(dialect="deforum", camera={"zoom": text})
    assert by_shot.camera == deforum.camera
    mixed = Shot(dialect="deforum", camera={"dialect": "native", "zoom": text})
    assert mixed.camera == native.camera
    assert Shot.from_mapping(mixed.to_mapping()) == mixed
    assert Shot(dialect="deforum", camera="pan left").camera == Shot(camera="pan left").camera


def test_the_schema_offers_both_dialects():
    schema = Shot.model_json_schema()
    assert {"Camera", "DeforumCamera"} <= set(schema["$defs"])
