"""Every field of a shot can be said on the command line, and arrives as it was said."""

from __future__ import annotations

from dataclasses import fields

import pytest

from kinema.cli.options import OutputOptions, ShotOptions, with_options
from kinema.core.errors import ConfigError
from kinema.story.files import parse_yaml
from kinema.story.shot import Shot

# Fields that no shared option sets, and what does instead.
ELSEWHERE = {
    "name": "a shot file; only there are shots told apart",
    "width": "--size",
    "height": "--size",
    "prompt": "the verb's argument",
    "keyframes": "animate, keyframes",
    "source": "restyle",
    "extend": "extend",
    "transition": "a shot file; only there is a shot before",
    "sound": "a shot file",
    "loras": "--lora, --lora-high, --lora-low",
    "shortcuts": "a shot file; --speed fills it in",
}
LORAS = {"lora", "lora_high", "lora_low"}
PARTS = {"control_model", "control_mask", "control_strength"}


def test_every_field_of_a_shot_is_reachable():
    options = {f.name for f in fields(ShotOptions)}
    assert options - {"size"} - LORAS - PARTS == set(Shot.model_fields) - set(ELSEWHERE)
    assert options - LORAS - PARTS <= set(Shot.names())
    found = ShotOptions(lora=["a.safetensors:0.5"], lora_low=["b.safetensors"]).given()["loras"]
    assert [(lora["path"], lora.get("expert")) for lora in found] == [
        ("a.safetensors", None),
        ("b.safetensors", "low"),
    ]


def test_nothing_said_is_nothing_given():
    assert ShotOptions().given() == {}
    assert Shot(**ShotOptions().given()) == Shot()


SAID = {
    "model": ("some/model", "some/model"),
    "audio": ("a.wav", "a.wav"),
    "bpm": ("99.5", 99.5),
    "dialect": ("deforum", "deforum"),
    "negative": ("text", "text"),
    "frames": ("17", 17),
    "seconds": ("2.5", 2.5),
    "seed": ("7", 7),
    "fit": ("pad", "pad"),
    "steps": ("12", 12),
    "guidance_method": ("apg", "apg"),
    "guidance_rescale": ("0.5", 0.5),
    "guidance_interval": ("0.1,0.9", (0.1, 0.9)),
    "solver": ("heun", "heun"),
    "grid": ("diffusers", "diffusers"),
    "shift": ("3", 3.0),
    "blend": ("velocity", "velocity"),
    "device": ("cuda:1", "cuda:1"),
    "dtype": ("bfloat16", "bfloat16"),
}


@pytest.mark.parametrize("name", SAID)
def test_text_becomes_the_fields_own_kind(name):
    text, value = SAID[name]
    shot = Shot.from_mapping(ShotOptions(**{name: text}).given())
    found = getattr(shot, name)
    assert getattr(found, "constant", found) == value
    assert shot.model_fields_set == {name}


def test_options_with_a_syntax_of_their_own():
    shot = Shot(
        **ShotOptions(size="96x64", fps="30000/1001", guidance="0:(6), 8:(2)", length_fit=True).given()
    )
    assert (shot.width, shot.height, str(shot.fps), shot.length_fit) == (96, 64, "30000/1001", True)
    assert shot.guidance is not None
    assert shot.guidance.sample(9, 8)[[0, 8]].tolist() == [6, 2]


@pytest.mark.parametrize("text", ["", "0.5", "0,1,2"])
def test_an_interval_has_two_ends(text):
    with pytest.raises(ConfigError, match="two noise levels; write LOW,HIGH"):
        ShotOptions(guidance_interval=text).given()


def test_redraw_values_are_named_one_by_one():
    said = ShotOptions(redraw=["strength=0.4", "noise = 0:(0.05), 8:(0)", "mask_invert=true", "mask=m.png"])
    shot = Shot(**said.given())
    assert shot.mode == "frame_by_frame"
    assert (shot.redraw.strength.constant, shot.redraw.mask_invert) == (0.4, True)
    assert shot.redraw.noise.sample(9, 8)[[0, 8]].tolist() == [0.05, 0]


BRACES = {
    "interpolate": "{fps: 24, method: blend}",
    "nag": "{scale: 5, tau: 2}",
    "skip_layers": "{layers: [9, 10], scale: 2.8}",
    "guidance": "{0: 5, 1s: {value: 3, ease: out}, -1: 5 - t / 100}",
    "guidance_low": " {0: 5, -1: 3}",
    "negative": "{0: blur, -1: text}",
    "upscale": "{scale: 2, method: nearest}",
    "windows": "{kind: fuse, length: 17}",
    "control": "{path: edges.png, model: ./canny, strength: {0: 1, -1: 0}}",
    "redraw": "{strength: 0.5, seed: travel, seeds: {0: 7, 24: 9}}",
    "options": "{motion_bucket_id: 180}",
    "look": "{image: a.png, frame: -1, strength: 0.5}",
}


@pytest.mark.parametrize("name", BRACES)
def test_a_mapping_is_read_as_in_a_shot_file(name):
    text = BRACES[name]
    rest = {"mode": "frame_by_frame"} if name == "redraw" else {}
    said = ShotOptions(**{name: [text] if name in ("redraw", "options", "look") else text}).given()
    value = parse_yaml(text)
    assert Shot.from_mapping(said) == Shot.from_mapping({name: [value] if name == "look" else value, **rest})


def test_mappings_of_loras_and_of_single_redraw_values():
    said = ShotOptions(lora_high=["{path: a.safetensors, scale: {0: 1, -1: 0}}"]).given()
    assert said["loras"] == [{"path": "a.safetensors", "scale": {0: 1, -1: 0}, "expert": "high"}]
    said = ShotOptions(redraw=["seed=travel", "seeds={0: 7, 24: 9}"]).given()
    assert said["redraw"] == {"seed": "travel", "seeds": {0: 7, 24: 9}}
    with pytest.raises(ConfigError, match="--redraw seed is said twice"):
        ShotOptions(redraw=["seed=travel", "{seed: fixed}"]).given()


def test_a_name_may_begin_with_a_brace():
    assert ShotOptions(model="{mine}", audio="{a}.wav").given() == {"model": "{mine}", "audio": "{a}.wav"}


def test_a_control_is_said_in_three_options():
    said = ShotOptions(control="edges.png", control_model="./canny", control_strength="0:(1), 8:(0)").given()
    control = Shot(**said).control
    assert control is not None
    assert (control.path, control.model) == ("edges.png", "./canny")
    assert control.strength.sample(9, 8)[4] == 0.5
    with pytest.raises(ConfigError, match=r"control\.model needs control\.path, .* \(--control FILE\)\.$"):
        Shot(**ShotOptions(control_model="./canny").given())


def test_options_of_another_pipeline_are_read_as_in_a_shot_file():
    said = ShotOptions(options=["motion_bucket_id=180", "use_dynamic_cfg=true", "decode_timestep=0.05"])
    expected = {"motion_bucket_id": 180, "use_dynamic_cfg": True, "decode_timestep": 0.05}
    shot = Shot(**said.given())
    assert dict(shot.options) == expected
    assert shot.to_mapping()["options"] == expected
    with pytest.raises(ConfigError, match="--option"):
        ShotOptions(options=["motion_bucket_id"]).given()


@pytest.mark.parametrize("texts", [["strength"], ["=1"], ["strength="], ["noise=0", "noise=1"]])
def test_a_redraw_value_has_a_name(texts):
    with pytest.raises(ConfigError, match="--redraw"):
        ShotOptions(redraw=texts).given()


def test_a_verb_gets_its_groups_filled():
    got = {}

    def verb(prompt: str, shot: ShotOptions, output: OutputOptions, strength: str = "1") -> None:
        got.update(locals())

    command = with_options(verb)
    flags = command.__signature__.parameters
    assert list(flags)[:2] == ["prompt", "strength"]
    assert len(flags) == 2 + len(fields(ShotOptions)) + len(fields(OutputOptions))
    defaults = {name: flag.default for name, flag in flags.items() if flag.default is not flag.empty}
    command(**defaults | {"prompt": "a fox", "steps": "3", "quiet": True})
    assert got["prompt"] == "a fox"
    assert got["strength"] == "1"
    assert got["shot"] == ShotOptions(steps="3")
    assert got["output"] == OutputOptions(quiet=True)


def test_a_camera_is_words_or_tracks():
    assert Shot(**ShotOptions(camera="pan left").given()).camera == Shot(camera="pan left").camera
    tracks = Shot(**ShotOptions(camera="{zoom: {0: 1, -1: 2}, hold: -1}").given()).camera
    assert tracks.sample(3, 24)["zoom"].tolist() == [1, 1.5, 2]
    with pytest.raises(ConfigError, match="not YAML"):
        ShotOptions(camera="{zoom: [").given()
