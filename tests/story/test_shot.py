"""Shots: what is accepted, what is refused and how it is said, and the way through JSON and back."""

import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import kinema
from kinema.core.errors import ConfigError
from kinema.story.shot import Extend, Keyframe, Shot, Source
from kinema.story.storyboard import Storyboard
from kinema.story.timing import parse_fps, write_fps

FULL = {
    "name": "opening",
    "model": "org/wan",
    "prompt": {0: "a fox", "2s": {"prompt": "a wolf", "ease": "in_out"}},
    "negative": "blurry",
    "size": "832x480",
    "frames": 81,
    "fps": "30000/1001",
    "seed": 7,
    "steps": 20,
    "solver": "unipc",
    "grid": "wan",
    "shift": 5.0,
    "guidance": "0:(5), 40:(3)",
    "guidance_rescale": 0.5,
    "guidance_interval": [0.1, 0.9],
    "guidance_method": "apg",
    "blend": "velocity",
    "keyframes": ["a.png", "b.png@2s:0.7", {"image": "c.png", "frame": -1}],
    "source": "clip.mp4",
    "fit": "pad",
    "length_fit": True,
    "device": "cuda:1",
    "dtype": "bfloat16",
}


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("fields", [FULL, {}, {"prompt": "a", "seconds": 2.5, "extend": "previous"}])
def test_json_and_back(fields, everything):
    shot = Shot.from_mapping(fields)
    text = json.dumps(shot.to_mapping(all_fields=everything), allow_nan=False)
    assert Shot.from_mapping(json.loads(text)) == shot
    assert Shot.model_validate_json(shot.model_dump_json()) == shot
    assert hash(Shot.from_mapping(json.loads(text))) == hash(shot)


STANDS = {
    "model": "embedded",
    "negative": "",
    "guidance_interval": [0.0, 1.0],
    "fit": "crop",
    "weights": "full",
}


def test_a_default_that_was_written_over_a_models_own_stays_written():
    shot = Shot(prompt="a fox", speed="exact", **STANDS)
    assert shot.to_mapping() == {"prompt": "a fox", **STANDS}
    assert Shot.outranked <= Shot.from_mapping(shot.to_mapping()).model_fields_set
    assert Shot(fit="crop").with_(prompt="b").to_mapping() == {"prompt": "b", "fit": "crop"}
    board = Storyboard.from_mapping({"shots": [{"prompt": "a", "negative": ""}, {"prompt": "b"}]})
    assert board.to_mapping()["shots"] == [{"prompt": "a", "negative": ""}, {"prompt": "b"}]


def test_what_asks_whether_it_was_written_is_told_after_a_file():
    """Each field of a shot that any code asks that of."""
    sources = Path(kinema.__file__).parent.rglob("*.py")
    found = re.findall(r'"(\w+)" (?:not )?in \w+\.model_fields_set', "".join(p.read_text() for p in sources))
    assert set(found) == Shot.outranked


def test_what_was_not_given_is_left_to_the_model():
    shot = Shot(prompt="a rooster")
    assert shot.to_mapping() == {"prompt": "a rooster"}
    undecided = (
        "width",
        "height",
        "frames",
        "seconds",
        "fps",
        "seed",
        "steps",
        "solver",
        "grid",
        "shift",
        "guidance",
    )
    assert [getattr(shot, name) for name in undecided] == [None] * len(undecided)


@pytest.mark.parametrize("size", ["64x48", "64*48", " 64 X 48 ", "64×48", [64, 48], (64, 48)])
def test_size(size):
    shot = Shot(size=size)
    assert (shot.width, shot.height) == (64, 48)


def test_shorthands():
    shot = Shot(keyframes="a@2x.png@50%:0.25", source="c.mp4", extend=None, guidance=3, seed=-1)
    (key,) = shot.keyframes
    assert (key.image, key.frame.source, key.strength) == ("a@2x.png", "50%", 0.25)
    assert shot.source == Source(path="c.mp4", strength=0.6)
    assert shot.seed is None
    assert shot.guidance.sample(2, 24).tolist() == [3, 3]
    assert Shot(extend="previous").extend.previous
    assert not Shot(extend=Extend(path="./previous", context=2)).extend.previous
    assert Keyframe.model_validate("a.png").frame.resolve(9, 24) == 0


def test_numbers_may_come_as_text():
    shot = Shot(steps="20", shift="1e-1", frames="5", seed="-1")
    assert (shot.steps, shot.shift, shot.frames, shot.seed) == (20, 0.1, 5, None)


@pytest.mark.parametrize(
    ("written", "fps", "saved"),
    [
        (24, 24, 24), (12.5, Fraction(25, 2), "25/2"), ("24", 24, 24),
        ("30000/1001", Fraction(30000, 1001), "30000/1001"),
        (29.97, Fraction(30000, 1001), "30000/1001"), (23.976, Fraction(24000, 1001), "24000/1001"),
        ("23.98", Fraction(24000, 1001), "24000/1001"), (59.94006, Fraction(60000, 1001), "60000/1001"),
        (Fraction(25), 25, 25), (24.0, 24, 24),
    ],
)  # fmt: skip
def test_frame_rates_are_exact(written, fps, saved):
    assert Shot(fps=written).fps == fps
    assert write_fps(parse_fps(written)) == saved
    assert parse_fps(saved) == fps


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_any_ratio_survives_the_record(numerator, denominator):
    fps = Fraction(numerator, denominator)
    if Fraction(1, 10) <= fps <= 1000:
        assert parse_fps(write_fps(parse_fps(fps))) == fps


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps=0 is out of range; write 1 to 1000."),
        ({"steps": 1.5}, "steps=1.5 is not a whole number; write 1 to 1000."),
        ({"steps": True}, "steps=True is not a number or a text."),
        ({"stpes": 3}, "unknown setting 'stpes'. Did you mean 'steps'?"),
        ({"num_inference_steps": 3}, "Here it is called 'steps'."),
        ({"frames": 3, "seconds": 1}, "exclude each other"),
        ({"seconds": 0}, "seconds=0 is out of range; write more than 0, up to 3600."),
        ({"shift": float("nan")}, "shift=nan is not finite"),
        ({"shift": float("inf")}, "shift=inf is not finite"),
        ({"guidance": float("inf")}, "guidance: inf is not finite"),
        ({"guidance": "2 * sqt(t)"}, "guidance: column 5: unknown function 'sqt'. Did you mean 'sqrt'?"),
        ({"prompt": "a (b"}, "prompt: ( is never closed"),
        (
            {"prompt": {0: "a", 30: "b"}, "frames": 20},
            "prompt: 30 is past the end: the last of 20 frames is 19.",
        ),
        ({"keyframes": "a@2s", "frames": 20, "fps": 10}, "keyframes[0]: 2s (frame 20) is past the end"),
        ({"keyframes": ["a.png@x"]}, "keyframes[0]: 'a.png@x': after @ comes a frame"),
        ({"keyframes": [{"image": "a", "strenght": 1}]}, "Did you mean 'strength'?"),
        (
            {"keyframes": [{"image": "a", "strength": 2}]},
            "keyframes[0].strength=2 is out of range; write 0 to 1.",
        ),
        ({"keyframes": ["a@1", "b@1"]}, "keyframes[0] and keyframes[1] are both at 1"),
        ({"size": "64"}, "size='64' is not a size; write WIDTHxHEIGHT"),
        ({"size": "64x48", "width": 32}, "disagree"),
        ({"width": 3}, "width=3 is out of range; write 8 to 16384."),
        ({"blend": "atention"}, "unknown blend 'atention'. Did you mean 'attention'?"),
        ({"device": "gpu"}, "device='gpu' is unknown"),
        ({"fps": "1/0"}, "is not a frame rate"),
        ({"fps": "1e999999999"}, "is not a frame rate"),
        ({"fps": float("nan")}, "is not a frame rate"),
        ({"fps": 0}, "fps=0 is out of range; write 0.1 to 1000."),
        ({"seed": 2**63}, "is out of range"),
        ({"seed": -2}, "seed=-2 is out of range"),
        ({"guidance_interval": (0.9, 0.1)}, "upside down"),
        ({"guidance_interval": [0, 2]}, "guidance_interval[1]=2 is out of range; write 0 to 1."),
        ({"source": "a", "extend": "b"}, "source and extend exclude each other"),
        ({"model": "\ud800"}, "surrogate"),
        ({"extend": "a\0"}, "NUL"),
        ({"name": "a/b"}, "a character that it cannot have"),
        ({"steps": 0, "width": 2, "foo": 1}, "Also wrong: steps, foo."),
    ],
)
def test_errors_name_value_rule_and_way_out(fields, message):
    with pytest.raises(ConfigError) as error:
        Shot(**fields)
    text = str(error.value)
    assert message in text
    assert "\n" not in text or text.endswith("^")  # one line, and a caret where the setting is a text
    with pytest.raises(ConfigError):
        Shot.from_mapping(fields)
    with pytest.raises(ValidationError):
        Shot.model_validate(fields)


def test_every_problem_is_found_for_a_form():
    problems = Shot.problems({"steps": 0, "keyframes": [{"image": "a", "strength": 2}], "foo": 1})
    assert {problem.location for problem in problems} == {("steps",), ("keyframes", 0, "strength"), ("foo",)}
    assert Shot.problems({"steps": 3}) == ()


def test_keys_in_seconds_wait_for_the_frame_rate():
    shot = Shot(prompt={0: "a", "2s": "b"}, frames=49)
    assert shot.with_(fps=24).frames == 49
    with pytest.raises(ConfigError, match=r"2s \(frame 60\) is past the end"):
        shot.with_(fps=30)


def test_with_replaces_length_and_size_however_written():
    shot = Shot(seconds=2, width=64, height=48, steps=4)
    changed = shot.with_(frames=49, size="32x16")
    assert (changed.frames, changed.seconds, changed.width, changed.height, changed.steps) == (
        49,
        None,
        32,
        16,
        4,
    )
    assert shot.seconds == 2
    with pytest.raises(ConfigError, match="steps=0"):
        shot.with_(steps=0)


def test_numpys_numbers_are_numbers():
    shot = Shot(
        prompt={np.int64(0): "a", 8: "b"},
        guidance={0: np.float32(2.5), np.int32(8): np.int64(3)},
        camera={"zoom": np.float64(1.5)},
        keyframes=[{"image": "a.png", "frame": np.int64(8)}],
        steps=np.int16(4),
        shift=np.float32(2),
    )
    plain = Shot(
        prompt={0: "a", 8: "b"},
        guidance={0: 2.5, 8: 3},
        camera={"zoom": 1.5},
        keyframes=[{"image": "a.png", "frame": 8}],
        steps=4,
        shift=2,
    )
    assert json.dumps(shot.to_mapping()) == json.dumps(plain.to_mapping())
    with pytest.raises(ConfigError, match="is not a number"):
        Shot(guidance=np.bool_(True))


def test_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Shot().steps = 3


def test_the_schema_describes_every_field_for_a_form():
    schema = Shot.model_json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    for name, field in schema["properties"].items():
        assert field.get("title"), name
        assert field.get("description"), name
    steps = schema["properties"]["steps"]["anyOf"][0]
    assert (steps["minimum"], steps["maximum"]) == (1, 1000)
    assert schema["properties"]["blend"]["enum"] == ["attention", "embedding", "slerp", "velocity"]
    assert schema["properties"]["prompt"]["default"] == ""


def test_no_torch_is_imported():
    code = "import sys, kinema.story.storyboard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(Shot.names()), VALUES, max_size=3))
def test_nothing_but_config_errors(fields):
    try:
        shot = Shot.from_mapping(fields)
    except ConfigError:
        assert Shot.problems(fields)
        return
    assert Shot.from_mapping(json.loads(json.dumps(shot.to_mapping(), allow_nan=False))) == shot


@pytest.mark.parametrize("name", ["keyframes", "source", "extend"])
def test_a_picture_in_memory_is_told_to_be_a_path_in_one_line(name):
    value = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ConfigError, match="given by their paths") as caught:
        Shot(prompt="a fox", **{name: [value] if name == "keyframes" else value})
    assert "\n" not in str(caught.value)


def test_every_default_in_the_schema_is_of_its_type():
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool}
    for name, entry in Shot.model_json_schema()["properties"].items():
        if entry.get("type") in kinds and "default" in entry:
            assert isinstance(entry["default"], kinds[entry["type"]]), name


def test_a_path_may_be_a_path():
    shot = Shot(prompt="a fox", audio=Path("songs/a.flac"), keyframes=[{"image": Path("a.png"), "frame": 0}])
    assert shot == Shot(prompt="a fox", audio="songs/a.flac", keyframes=[{"image": "a.png", "frame": 0}])
    assert json.loads(shot.model_dump_json())["audio"] == "songs/a.flac"


def test_a_path_may_stand_for_the_whole():
    """In a text @ and : have a meaning; in a path they are its name."""
    odd = Path("shots@3") / "a.png@2:0.5.png"
    shot = Shot(prompt="a fox", keyframes=[odd], source=Path("in.mp4"), loras=Path("ink.safetensors"))
    assert [(key.image, key.frame, key.strength) for key in shot.keyframes] == [
        (str(odd), Keyframe(image="a.png").frame, 1.0)
    ]
    assert Shot(prompt="a fox", keyframes=odd) == Shot(prompt="a fox", keyframes=[{"image": str(odd)}])
    assert (shot.source.path, shot.source.strength) == ("in.mp4", 0.6)
    assert [lora.path for lora in shot.loras] == ["ink.safetensors"]
    assert Shot(prompt="a fox", extend=Path("in.mp4")).extend.path == "in.mp4"
    assert Shot(prompt="a fox", control=Path("edges.png")).control.path == "edges.png"
    assert Shot.from_mapping(json.loads(json.dumps(shot.to_mapping()))) == shot


def test_what_is_printed_is_what_was_said():
    assert repr(Shot(prompt="a fox", frames=9)) == "Shot(prompt=PromptTrack('a fox'), frames=9)"
    assert "strength=0.5" in repr(Shot(keyframes=["a.png@3:0.5"]))


def test_an_array_that_is_no_schedule_is_told_in_one_line():
    with pytest.raises(ConfigError, match=r"guidance: array\(\[.*… is not a number") as caught:
        Shot(prompt="a fox", guidance=np.linspace(1, 3, 99))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 120
