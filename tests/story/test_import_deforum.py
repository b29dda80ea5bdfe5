"""Deforum's settings files in the layouts that the extension itself saves, of today and of old."""

import json

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.story import deforum_renames
from kinema.story.import_file import import_file
from kinema.story.storyboard import from_mapping

FRAMES = 40
SAVED = {  # as a render saves it: the prompts have both ends in them, and the two names after are for people
    "W": 512, "H": 512, "tiling": False, "seed": 7, "sampler": "Euler a", "steps": 25,
    "seed_behavior": "iter", "seed_iter_N": 1, "use_init": False, "strength": 0.8, "init_image": None,
    "use_mask": False, "mask_file": "https://example.org/mask.jpg", "fill": 0,
    "prompts": {
        "0": "oil painting a hill --neg fog, text",
        "20": "oil painting a river --neg text",
    },
    "positive_prompts": "oil painting", "negative_prompts": "text",
    "animation_mode": "2D", "max_frames": FRAMES, "border": "replicate", "angle": "0: (1)",
    "zoom": "0: (1.01)", "enable_perspective_flip": False, "noise_schedule": "0: (0.065)",
    "strength_schedule": "0: (0.65)",
    "cfg_scale_schedule": "0: (7)", "seed_schedule": '0:(s), 1:(-1), "max_f-2":(-1), "max_f-1":(s)',
    "enable_steps_scheduling": False, "steps_schedule": "0: (25)", "color_coherence": "LAB",
    "diffusion_cadence": 2, "optical_flow_cadence": "None", "optical_flow_redo_generation": "None",
    "noise_type": "perlin", "use_depth_warping": True, "depth_algorithm": "Midas-3-Hybrid",
    "hybrid_motion": "None", "hybrid_composite": "None", "parseq_manifest": "", "use_looper": False,
    "init_images": '{\n    "0": "a.png",\n    "max_f/3": "b.png",\n    "max_f+9": "c.png"\n}',
    "cn_1_enabled": False, "fps": 15, "add_soundtrack": "None", "soundtrack_path": "a.mp3",
    "sd_model_name": "model.safetensors",
}  # fmt: skip
TRAVEL = SAVED | {"animation_mode": "Interpolation"}


def imported(tmp_path, values):
    path = tmp_path / "settings.txt"
    path.write_text(json.dumps(values))
    found = import_file(path)
    return from_mapping(found.values), found.lost


def names(lost):
    return {line.split(":")[0] for line in lost}


def test_a_renders_prompts_have_their_ends_in_them(tmp_path):
    shot, lost = imported(tmp_path, SAVED)
    assert shot.prompt.sample(FRAMES, 15)[0] == ("oil painting a hill", "oil painting a river")
    prompts, weights_FK = shot.negative.sample(FRAMES, 15)
    assert prompts == ("fog, text", "text")
    np.testing.assert_array_equal(weights_FK[:, 1], np.arange(FRAMES) >= 20)
    assert names(lost) == {"sd_model_name"}


def test_the_pages_prompts_get_their_ends(tmp_path):
    ends = {"animation_prompts_positive": "in ink", "animation_prompts_negative": "--neg noise"}
    shot, _ = imported(tmp_path, SAVED | {"prompts": {"0": "a hill --neg fog", "20": "a river"}} | ends)
    assert shot.prompt.sample(FRAMES, 15)[0] == ("in ink, a hill", "in ink, a river")
    assert shot.negative.sample(FRAMES, 15)[0] == ("fog, noise", "noise")


def test_old_names_and_values():
    old = {
        "flip_2d_perspective": True, "skip_video_for_run_all": True, "color_coherence": "Match Frame 0 HSV",
        "hybrid_composite": True, "optical_flow_cadence": True, "optical_flow_redo_generation": False,
        "cn_2_resize_mode": "Scale to Fit (Inner Fit)", "cn_5_weight": 0.5, "use_zoe_depth": True,
        "add_soundtrack": True, "angle": "0:(1)", "enable_perspective_flip": False,
    }  # fmt: skip
    before = dict(old)
    assert deforum_renames.current(old) == {
        "enable_perspective_flip": True, "skip_video_creation": True, "color_coherence": "HSV",
        "hybrid_composite": "Normal", "optical_flow_cadence": "DIS Fine",
        "optical_flow_redo_generation": "None", "cn_2_resize_mode": "Inner Fit (Scale to Fit)",
        "cn_5_weight": "0:(0.5)", "depth_algorithm": "Zoe+AdaBins (old)", "add_soundtrack": "File",
        "angle": "0:(1)",
    }  # fmt: skip
    assert old == before
    new = {"color_coherence": "None", "hybrid_composite": "None", "cn_1_weight": "0:(1)", "cn_6_weight": 1}
    assert deforum_renames.current(new) == new


def test_an_old_file_is_read_by_its_new_names(tmp_path):
    old = SAVED | {"flip_2d_perspective": True, "perspective_flip_theta": "0:(3)", "add_soundtrack": True}
    del old["enable_perspective_flip"]
    shot, lost = imported(
        tmp_path, old | {"color_coherence": "Match Frame 0 LAB", "histogram_matching": True}
    )
    assert shot.camera.enable_perspective_flip
    assert shot.camera.perspective_flip_theta.constant == 3
    assert (shot.redraw.colour, shot.audio) == ("histogram", "a.mp3")
    assert names(lost) == {"sd_model_name", "histogram_matching"}


def test_an_old_depth_is_told(tmp_path):
    old = SAVED | {"animation_mode": "3D", "use_zoe_depth": True}
    del old["depth_algorithm"]
    assert any("Zoe+AdaBins (old)" in line for line in imported(tmp_path, old)[1])


def test_interpolation_draws_each_frame_on_its_own(tmp_path):
    busy = {
        "optical_flow_cadence": "RAFT", "hybrid_motion": "Affine", "use_mask": True,
        "amount_schedule": "0:(1)", "use_looper": True, "enable_steps_scheduling": True,
        "steps_schedule": "0:(20)", "seed_iter_N": 3,
    }  # fmt: skip
    shot, lost = imported(tmp_path, TRAVEL | busy)
    redraw = shot.redraw
    assert (redraw.strength.constant, redraw.cadence.constant, redraw.colour) == (1, 1, "off")
    assert (redraw.noise.constant, redraw.sharpen.constant, redraw.mask) == (0, 0, None)
    assert (redraw.steps.constant, redraw.seed, redraw.seed_every) == (20, "iter", 3)
    assert (shot.camera, shot.keyframes, shot.guidance.constant) == (None, (), 7)
    assert names(lost) == {"sd_model_name"}


def test_interpolations_prompts_travel(tmp_path):
    shot, _ = imported(tmp_path, TRAVEL)
    share_F = np.minimum(np.arange(FRAMES) / 20, 1)
    for track, texts in (
        (shot.prompt, ("oil painting a hill", "oil painting a river")),
        (shot.negative, ("fog, text", "text")),
    ):
        found, weights_FK = track.sample(FRAMES, 15)
        assert found == texts
        np.testing.assert_allclose(weights_FK[:, 1], share_F)


def test_interpolation_travels_on_to_a_prompt_behind_the_end(tmp_path):
    prompts = {"10": "a --neg x", "20": "b", "max_f": "a --neg x", "max_f+1": "c"}
    shot, lost = imported(tmp_path, TRAVEL | {"prompts": prompts, "animation_prompts_positive": "in ink"})
    found, weights_FK = shot.prompt.sample(FRAMES, 15)
    assert found == ("in ink, a", "in ink, b")
    b_F = np.interp(np.arange(FRAMES), [10, 20, FRAMES], [0, 1, 0])  # max_f is the number of frames there
    np.testing.assert_allclose(weights_FK[:, 1], b_F)
    np.testing.assert_allclose(shot.negative.sample(FRAMES, 15)[1][:, 1], b_F)
    assert names(lost) == {"sd_model_name", "prompts max_f+1"}


def test_a_prompt_behind_the_end_is_not_reached_from_the_last_frame(tmp_path):
    prompts = {"0": "a", "max_f-1": "b", "max_f": "c"}
    shot, lost = imported(tmp_path, TRAVEL | {"prompts": prompts})
    assert shot.prompt.sample(FRAMES, 15)[0] == ("a", "b")
    assert "prompts max_f" in names(lost)


def test_interpolation_from_a_picture_is_told(tmp_path):
    shot, lost = imported(tmp_path, TRAVEL | {"use_init": True, "init_image": "a.png"})
    assert shot.keyframes == ()
    assert "init_image" in names(lost)


def test_guided_images_are_the_text_of_a_mapping(tmp_path):
    shot, lost = imported(tmp_path, SAVED | {"use_looper": True, "use_init": True, "init_image": "z.png"})
    assert [(k.image, k.frame.resolve(FRAMES, 15)) for k in shot.keyframes] == [("a.png", 0), ("b.png", 13)]
    assert names(lost) == {"sd_model_name", "use_looper", "init_images max_f+9"}


def test_guided_images_make_seeds_a_schedule(tmp_path):
    assert imported(tmp_path, SAVED)[0].redraw.seed == "iter"
    redraw = imported(tmp_path, SAVED | {"use_looper": True})[0].redraw
    assert redraw.seed == "schedule"
    seeds_F = redraw.seeds.sample(FRAMES, 15, 7)
    np.testing.assert_array_equal(seeds_F, [7, *[-1] * (FRAMES - 3), 7, 7])


@pytest.mark.parametrize(
    ("written", "says"), [("{0: a.png}", "not JSON"), ("[1]", "not a mapping"), (3, "not a")]
)
def test_guided_images_that_cannot_be_read(tmp_path, written, says):
    shot, lost = imported(tmp_path, SAVED | {"use_looper": True, "init_images": written})
    assert shot.keyframes == ()
    assert any(line.startswith("init_images: ") and says in line for line in lost)


def test_a_guided_images_place_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="init_images"):
        imported(tmp_path, SAVED | {"use_looper": True, "init_images": {"foo(1)": "a.png"}})


def test_guided_images_that_are_off_are_not_read(tmp_path):
    assert imported(tmp_path, SAVED | {"init_images": {"foo(1)": "a.png"}})[0].keyframes == ()
