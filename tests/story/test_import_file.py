"""Files of other tools: the shot that they describe, and a line for all that is left behind."""

import json
import os

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.story.import_file import import_file
from kinema.story.storyboard import from_mapping

DEFORUM = {
    "W": 512, "H": 384, "seed": 7, "sampler": "Euler a", "steps": 25, "max_frames": 61, "fps": 15,
    "animation_mode": "2D", "angle": "0:(0), 30:(2*sin(t/9))", "zoom": "0:(1.0)", "border": "wrap",
    "translation_x": "0:(0), max_f/2:(5), 200:(9)", "rotation_3d_x": "0:(5)",
    "strength_schedule": "0:(0.65), 30:(0.4), 40:(0.5+0.1*sin(t))", "cfg_scale_schedule": "0:(7), 60:(9)",
    "noise_schedule": "0:(0.04)", "noise_type": "perlin", "diffusion_cadence": "3",
    "seed_behavior": "iter", "seed_iter_N": 2, "color_coherence": "LAB", "amount_schedule": "0:(0.2)",
    "threshold_schedule": "0:(51)", "sigma_schedule": "0:(2)", "cn_1_enabled": True, "cn_2_enabled": False,
    "prompts": {
        "0": "a (fox:`0.5+0.5`) --neg blurry", "max_f/2": "a wolf <lora:wolf:1>", "99": "a bear",
    },
    "animation_prompts_positive": "oil painting", "animation_prompts_negative": "text",
    "sd_model_name": "v1-5.safetensors",
    "hybrid_motion": "Optical Flow", "optical_flow_cadence": "None", "use_init": True, "init_image": "a.png",
    "enable_sampler_scheduling": True, "sampler_schedule": '0: ("Euler a"), 30: ("Heun"), 40: ("Odd")',
    "soundtrack_path": "song.mp3", "add_soundtrack": "File",
}  # fmt: skip


def imported(tmp_path, values, name="settings.txt"):
    path = tmp_path / name
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    found = import_file(path)
    return from_mapping(found.values), found.lost


def test_deforum_settings(tmp_path):
    shot, _ = imported(tmp_path, DEFORUM)
    assert (shot.width, shot.height, shot.frames, shot.fps, shot.seed, shot.steps) == (
        512,
        384,
        61,
        15,
        7,
        25,
    )
    assert (shot.mode, shot.solver, shot.audio) == ("frame_by_frame", "euler-ancestral", "song.mp3")
    assert shot.keyframes[0].image == "a.png"
    prompts, weights_FK = shot.prompt.sample(61, 15)
    assert prompts == ("oil painting, a (fox:1)", "oil painting, a wolf")
    np.testing.assert_array_equal(weights_FK[:, 1], np.arange(61) >= 30)
    assert shot.negative.sample(61, 15)[0] == ("blurry, text", "text")
    assert shot.camera.mode == "2D"
    assert shot.camera.border == "wrap"
    moves = shot.camera.sample(61, 15, 7)
    assert set(moves) == {"angle", "translation_x"}
    np.testing.assert_allclose(moves["translation_x"], np.minimum(np.arange(61) / 6, 5))
    t = np.arange(61)
    angle = np.where(t < 30, t / 30 * 2 * np.sin(30 / 9), 2 * np.sin(t / 9))
    np.testing.assert_allclose(moves["angle"], angle, atol=1e-12)


def test_the_old_aspect_formula_and_contrast(tmp_path):
    settings = DEFORUM | {
        "animation_mode": "3D",
        "aspect_ratio_use_old_formula": True,
        "aspect_ratio_schedule": "0:(1)",
    }
    shot, lost = imported(tmp_path, settings | {"contrast_schedule": "0:(0.95)"})
    np.testing.assert_allclose(shot.camera.sample(61, 15)["aspect_ratio"], 512 / 384)
    assert any("contrast_schedule" in line for line in lost)
    assert not any("contrast_schedule" in line for line in imported(tmp_path, DEFORUM)[1])


def test_strength_keeps_its_digits_and_tweens_near_one(tmp_path):
    settings = DEFORUM | {"strength_schedule": "0:(0.1234567), 30:(0.99999), 60:(1)"}
    strength = imported(tmp_path, settings)[0].redraw.strength.sample(61, 15)
    np.testing.assert_allclose(strength[[0, 30, 45]], [0.8765433, 1e-5, 5e-6], atol=1e-12)


def test_deforum_redrawing(tmp_path):
    redraw = imported(tmp_path, DEFORUM)[0].redraw
    t = np.arange(61)
    kept = np.where(t < 30, 0.65 - t / 30 * 0.25, 0.4 + (t - 30) / 10 * (0.1 + 0.1 * np.sin(40)))
    kept = np.where(t < 40, kept, 0.5 + 0.1 * np.sin(t))
    np.testing.assert_allclose(redraw.strength.sample(61, 15), 1 - kept, atol=1e-12)
    assert (redraw.cadence.constant, redraw.noise.constant, redraw.sharpen.constant) == (3, 0.04, 0.2)
    assert redraw.solver.sample(61, 15) == ("euler-ancestral",) * 30 + ("heun",) * 31
    assert (redraw.noise_kind, redraw.sharpen_radius, redraw.sharpen_threshold) == ("perlin", 2.0, 0.2)
    assert (redraw.seed, redraw.seed_every, redraw.colour) == ("iter", 2, "histogram")


def test_deforum_samplers_at_formulas(tmp_path):
    text = '0: ("Euler a"), "max_f/2": ("Heun"), max_f-5: ("DDIM")'
    shot, lost = imported(tmp_path, DEFORUM | {"max_frames": 60, "sampler_schedule": text})
    names = ("euler-ancestral",) * 29 + ("heun",) * 25 + ("ddim",) * 6
    assert shot.redraw.solver.sample(60, 15) == names
    assert not any("sampler" in line for line in lost)
    with pytest.raises(ConfigError, match=r"sampler_schedule: column 19: no ':'"):
        imported(tmp_path, DEFORUM | {"sampler_schedule": '0: ("Euler a"), 30'})


@pytest.mark.parametrize(("factor", "scale"), [("x2", 2), ("x4", 4), ("x8", None)])
def test_deforum_upscales(tmp_path, factor, scale):
    settings = {
        "r_upscale_video": True,
        "r_upscale_factor": factor,
        "r_upscale_model": "realesr-animevideov3",
    }
    shot, lost = imported(tmp_path, DEFORUM | settings)
    assert (None if shot.upscale is None else shot.upscale.scale) == scale
    named = "r_upscale_factor: x8" if scale is None else "r_upscale_model: realesr-animevideov3"
    assert any(named in line for line in lost)
    assert imported(tmp_path, DEFORUM | settings | {"r_upscale_video": False})[0].upscale is None


@pytest.mark.parametrize(
    "part",
    [
        "prompts 99: frame 99 is outside", "<lora:wolf:1>", "weights that run over frames",
        "v1-5.safetensors", "cn_1_enabled: ControlNet", "hybrid_motion",
    ],
)  # fmt: skip
def test_what_deforum_loses_is_listed(tmp_path, part):
    assert any(part in line for line in imported(tmp_path, DEFORUM)[1])


def test_what_is_off_is_not_listed(tmp_path):
    lost = "\n".join(imported(tmp_path, DEFORUM)[1])
    assert "cn_2" not in lost
    assert "optical_flow_cadence" not in lost


def test_deforum_in_3d(tmp_path):
    shot, lost = imported(
        tmp_path,
        {**DEFORUM, "animation_mode": "3D", "fov_schedule": "0:(40)", "depth_algorithm": "Midas-3-Hybrid"},
    )
    assert shot.camera.mode == "3D"
    assert shot.camera.fov.constant == 40
    assert shot.camera.rotation_3d_x.constant == 5
    assert "angle" not in shot.camera.tracks
    assert any("Midas-3-Hybrid" in line for line in lost)


@pytest.mark.parametrize("mode", ["2D", "3D"])
def test_deforums_perspective_flip(tmp_path, mode):
    flip = {"enable_perspective_flip": True, "perspective_flip_phi": "0:(20)", "border": "wrap"}
    shot, lost = imported(tmp_path, DEFORUM | flip | {"animation_mode": mode})
    assert shot.camera.enable_perspective_flip
    assert shot.camera.perspective_flip_phi.constant == 20
    assert shot.camera.border == "wrap"
    assert not any("flip" in line for line in lost)
    off, _ = imported(tmp_path, DEFORUM | flip | {"animation_mode": mode, "enable_perspective_flip": False})
    assert "perspective_flip_phi" not in off.camera.tracks


def test_a_schedule_that_deforum_cannot_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"settings\.txt: angle: key 0, column 4: unknown function 'foo'"):
        imported(tmp_path, {**DEFORUM, "angle": "0:(foo(t))"})


ANIMATEDIFF = """{
  "name": "sample/1",   # comments are in the examples
  "path": "share/model.safetensors", "lora_map": {"a.safetensors": 0.5}, "scheduler": "k_dpmpp_2m",
  "steps": 20, "guidance_scale": 7.5, "seed": [31, 32], "prompt_fixed_ratio": 0.25,
  "head_prompt": "best #1 quality", "tail_prompt": "at dusk",
  "prompt_map": {"32": "a wolf", "0": "a fox"}, "n_prompt": ["(ugly:1.2)"], "output": {"fps": 8},
  "img2img_map": {"enable": true, "init_img_dir": "frames", "denoising_strength": 0.8},
  "controlnet_map": {"controlnet_tile": {"enable": true}, "controlnet_canny": {"enable": false}}
}"""


def test_animatediff_configuration(tmp_path):
    shot, lost = imported(tmp_path, ANIMATEDIFF, "travel.json")
    assert (shot.name, shot.frames, shot.fps, shot.seed, shot.steps) == ("sample1", 33, 8, 31, 20)
    assert (shot.solver, shot.guidance.constant, shot.negative.constant) == (
        "dpm++2m-karras",
        7.5,
        "(ugly:1.2)",
    )
    assert any("elsewhere write solver: dpm++2m" in line for line in lost)
    assert (shot.source.path, shot.source.strength) == ("frames", 0.8)
    prompts, weights_FK = shot.prompt.sample(33, 8)
    assert prompts == ("best #1 quality, a fox, at dusk", "best #1 quality, a wolf, at dusk")
    np.testing.assert_allclose(weights_FK[:, 1], np.maximum(np.arange(33) - 8, 0) / 24)
    assert any("tile" in line for line in lost)
    assert not any("canny" in line for line in lost)


def test_a_spacing_without_a_solver_here_is_told(tmp_path):
    """There, k_ before a name stands for Karras' spacing."""
    shot, lost = imported(tmp_path, ANIMATEDIFF.replace("k_dpmpp_2m", "k_euler"), "travel.json")
    assert shot.solver == "euler"
    assert any(line.startswith("scheduler: k_euler; steps are spread") for line in lost)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("DPM++ 2M", "dpm++2m"),
        ("DPM++ 2M Karras", "dpm++2m-karras"),
        ("DPM++ 2M SDE", "dpm++2m-sde"),
        ("DPM++ 2M SDE Karras", "dpm++2m-sde-karras"),
    ],
)
def test_the_spacing_of_a_sampler_is_kept(tmp_path, theirs, ours):
    """At strength 0.35 Karras' levels begin at 0.335 and the plain ones at 0.892."""
    shot, lost = imported(tmp_path, {**DEFORUM, "sampler": theirs})
    assert shot.solver == ours
    plainly = f"elsewhere write solver: {ours.removesuffix('-karras')}"
    assert any(plainly in line for line in lost) == ours.endswith("-karras")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "holds no settings"),
        ('{"a": 1}', "no Deforum settings file"),
        ('{"animation_mode": "2D", "prompts": []}', "prompts is not a mapping"),
        ('{"animation_mode": "2D", "max_frames": "x"}', "max_frames='x' is not a number"),
        ('{"prompt_map": {"a": "b"}}', "'a' is not a frame"),
        ('{"animation_mode": "2D", "max_frames": 1e400}', "max_frames='inf' is not a number"),
        (
            '{"animation_mode": "2D", "prompts": {"0": "a", "1e400": "b"}}',
            "a key at frame inf; write a whole",
        ),
        ('{"animation_mode": "2D", "prompts": {"²": "a"}}', "unexpected|not a formula"),
        ('{"prompt_map": {"²": "b"}}', "'²' is not a frame"),
        (f'{{"prompt_map": {{"{"9" * 5000}": "b"}}}}', "9999' is not a frame"),
        ('{"rendered_frames": [{"frame": 0, "zoom": "x"}]}', "is not a number"),
        ('{"rendered_frames": [{"frame": 0}, {"frame": null}]}', r"\[1\].frame='None' is not a number"),
        (f'{{"rendered_frames": [{{"zoom": 1{"0" * 400}}}]}}', r"\[0\].zoom='1000*' is not a number"),
    ],
)
def test_files_that_cannot_be_imported(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        imported(tmp_path, text, "x.json")


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        import_file(tmp_path / "none.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "settings.txt")
    with pytest.raises(ConfigError, match="not a regular file"):
        import_file(tmp_path / "settings.txt")
