"""Exports of Parseq: every managed field has its `_delta` and `_pc`, and Deforum plays only some of them."""

import json

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.story.import_file import import_file
from kinema.story.storyboard import from_mapping

FRAMES = 48
T = np.arange(FRAMES)


def export(options=None, **fields):
    """An export with these managed fields, one value per frame or one for all, as Parseq renders it."""
    rows = [{"frame": i, "deforum_prompt": "a cat"} for i in range(FRAMES)]
    for name, values in fields.items():
        values = [float(v) for v in np.broadcast_to(values, FRAMES)]
        top = max(abs(v) for v in values) or 1.0
        for i, row in enumerate(rows):
            difference = values[i] - values[i - 1] + (name == "zoom")
            row |= {name: values[i], f"{name}_delta": difference if i else values[0]}
            row |= {f"{name}_pc": values[i] / top * 100}
            if name == "seed":
                row |= {"subseed": float(np.ceil(values[i])), "subseed_strength": values[i] % 1}
    options = {"input_fps": 20, "bpm": 120, "output_fps": 24, **(options or {})}
    return {"options": options, "managedFields": [*fields], "timeSeries": [], "rendered_frames": rows}


def imported(tmp_path, values):
    path = tmp_path / "parseq.json"
    path.write_text(json.dumps(values))
    found = import_file(path)
    return from_mapping(found.values), found.lost


def lines(lost, name):
    return [line for line in lost if line.startswith(f"{name}: ")]


def test_parseq_export(tmp_path):
    values = export(
        strength=0.5,
        scale=7 + 0.1 * T,
        seed=55 + T // 12,
        zoom=1 + 0.01 * T,
        angle=np.sin(T),
        noise=0.04,
    )
    for i, row in enumerate(values["rendered_frames"]):
        row["deforum_prompt"] = f"a cat --neg {'dog' if i < 24 else 'bird'}"
    shot, lost = imported(tmp_path, values)
    assert (shot.frames, shot.fps, shot.bpm, shot.mode) == (FRAMES, 24, 120, "frame_by_frame")
    assert shot.prompt.constant == "a cat"
    np.testing.assert_array_equal(shot.negative.sample(48, 24)[1][:, 1], T >= 24)
    np.testing.assert_allclose(shot.guidance.sample(48, 24), 7 + 0.1 * T)
    assert shot.guidance.source == {"deforum": "0:(7), 47:(11.7)"}  # a line needs two keys
    np.testing.assert_allclose(shot.redraw.strength.sample(48, 24), 0.5)
    np.testing.assert_array_equal(shot.redraw.seeds.sample(48, 24), 55 + T // 12)
    assert shot.redraw.noise.constant == 0.04
    moves = shot.camera.sample(48, 24)
    np.testing.assert_allclose(moves["zoom"][1:], 1.01)
    np.testing.assert_allclose(moves["angle"][1:], np.diff(np.sin(T)), atol=1e-9)
    assert [line.split(":")[0] for line in lost] == ["model and size"]


def test_only_moves_are_differences(tmp_path):
    fov = 70 - 0.5 * T
    shot, _ = imported(tmp_path, export(translation_z=2.0 * T, fov=fov, aspect_ratio=1.5, near=150, far=9000))
    assert shot.camera.mode == "3D"
    moves = shot.camera.sample(48, 24)
    np.testing.assert_allclose(moves["fov"], fov)
    np.testing.assert_allclose(moves["translation_z"][1:], 2)
    assert (moves["aspect_ratio"][9], moves["near"][9], moves["far"][9]) == (1.5, 150, 9000)


def test_the_flips_angle_of_view_is_no_difference(tmp_path):
    centre = {"transform_center_x": 0.25, "transform_center_y": 0.75}
    shot, _ = imported(
        tmp_path, export(perspective_flip_theta=3.0 * T, perspective_flip_fv=50, angle=0.0, **centre)
    )
    assert shot.camera.enable_perspective_flip
    moves = shot.camera.sample(48, 24)
    np.testing.assert_allclose(moves["perspective_flip_fv"], 50)
    np.testing.assert_allclose(moves["perspective_flip_theta"][1:], 3)
    assert (moves["transform_center_x"][0], moves["transform_center_y"][0]) == (0.25, 0.75)


def test_a_flip_that_never_leans_leaves_the_translation_alone(tmp_path):
    still = {"perspective_flip_theta": 0, "perspective_flip_phi": 0, "perspective_flip_gamma": 0}
    shot, _ = imported(tmp_path, export(translation_x=3.0 * T, **still))
    assert not shot.camera.enable_perspective_flip
    np.testing.assert_allclose(shot.camera.sample(48, 24)["translation_x"][1:], 3)


def test_a_depth_that_stays_makes_no_flight(tmp_path):
    shot, lost = imported(tmp_path, export(translation_z=10, angle=T, fov=40))
    assert shot.camera.mode == "2D"
    assert lines(lost, "fov") == ["fov: only in 3D; the moves make it 2D"]
    assert not lines(lost, "translation_z")


@pytest.mark.parametrize(("seed", "played"), [(55.5, 55), (-1, -1), (7.999, 7)])
def test_a_seed_loses_its_fraction(tmp_path, seed, played):
    shot, lost = imported(tmp_path, export(seed=seed))
    assert shot.redraw.seeds.constant == played
    assert bool(lines(lost, "subseed")) == (seed % 1 != 0)


def test_fields_with_a_place_here(tmp_path):
    given = {"noise_multiplier": 1.1, "steps_schedule": 20.7, "contrast": 0.95}
    sharpening = {"antiblur_amount": 0.2, "antiblur_sigma": 2, "antiblur_threshold": 51}
    shot, lost = imported(tmp_path, export({"cadence": 3}, **given, **sharpening))
    redraw = shot.redraw
    assert (redraw.noise_multiplier.constant, redraw.steps.constant) == (1.1, 20)
    assert (redraw.sharpen.constant, redraw.sharpen_radius, redraw.sharpen_threshold) == (0.2, 2, 0.2)
    assert (redraw.contrast.constant, redraw.cadence.constant) == (0.95, 3)
    assert lines(lost, "contrast")


@pytest.mark.parametrize(
    "name",
    [
        "cn_1_weight", "guided_tweening_frames", "hybrid_comp_alpha", "clipskip", "cadence_flow_factor",
        "prompt_weight_1", "my_own",
    ],
)  # fmt: skip
def test_every_other_managed_field_has_a_line(tmp_path, name):
    shot, lost = imported(tmp_path, export(**{name: 0.5, "noise": 0.1}))
    assert len(lines(lost, name)) == 1
    assert not [line for line in lost if "_delta" in line or "_pc" in line]
    assert shot.redraw.noise.constant == 0.1


@pytest.mark.parametrize(
    ("fields", "name", "says"),
    [
        ({"antiblur_sigma": 2}, "antiblur_sigma", "no antiblur_amount"),
        ({"antiblur_amount": 0.1, "antiblur_sigma": 1 + T}, "antiblur_sigma", "does not run over frames"),
        ({"antiblur_amount": 0.1, "antiblur_sigma": 90}, "antiblur_sigma", "0.001 to 64"),
        ({"antiblur_amount": 0.1, "antiblur_kernel": 5}, "antiblur_kernel", "sharpen_radius alone"),
        ({"translation_z": T, "zoom": 1 + T}, "zoom", "only in 2D; the moves make it 3D"),
    ],
)
def test_what_a_field_lacks_is_told(tmp_path, fields, name, says):
    _, lost = imported(tmp_path, export(**fields))
    assert says in lines(lost, name)[0]


@pytest.mark.parametrize("cadence", [0.5, 1000, "2", -1, [1]])
def test_a_cadence_that_cannot_be(tmp_path, cadence):
    shot, lost = imported(tmp_path, export({"cadence": cadence}, noise=0.1))
    assert shot.redraw.cadence.constant == 1
    assert lines(lost, "cadence")


def test_fields_that_are_not_managed_are_played_too(tmp_path):
    values = export(zoom=1 + 0.01 * T)
    shot, lost = imported(tmp_path, values | {"managedFields": ["noise"]})
    np.testing.assert_allclose(shot.camera.sample(48, 24)["zoom"][1:], 1.01)
    assert lines(lost, "noise") == ["noise: a managed field that the frames do not have"]


def test_very_many_fields_are_told_in_few_lines(tmp_path):
    _, lost = imported(tmp_path, export(**{f"own_{i}": 1 for i in range(300)}))
    assert len(lost) == 202
    assert "fields: 100 more that have no place here" in lost


@pytest.mark.parametrize("managed", [[["zoom"]], "zoom", None, ["zoom", 3]])
def test_odd_lists_of_parseqs_fields(tmp_path, managed):
    shot, _ = imported(tmp_path, export(zoom=1 + 0.01 * T) | {"managedFields": managed})
    np.testing.assert_allclose(shot.camera.sample(48, 24)["zoom"][1:], 1.01)


def test_parseq_without_frames(tmp_path):
    with pytest.raises(ConfigError, match="press Render in Parseq"):
        imported(tmp_path, {"managedFields": [], "rendered_frames": []})
