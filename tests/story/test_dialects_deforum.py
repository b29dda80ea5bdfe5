"""Deforum's schedule strings: values that its parsers were measured to give, and their rules one by one."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema import Schedule, Shot
from kinema.core.errors import ConfigError
from kinema.story.redraw import NameTrack

MEASURED = json.loads((Path(__file__).parent / "deforum_values.json").read_text())
SEED = 42


def expected(case):
    """The extension's values, and deforum-studio's where the extension fails."""
    values = case["studio"] if isinstance(case["a1111"], dict) else case["a1111"]
    return [float(value.replace("Infinity", "inf")) if isinstance(value, str) else value for value in values]


def interpolation(case):
    return next((name for name in ("cubic", "quadratic") if name in case["kind"]), "linear")


@pytest.mark.parametrize(
    "case", [c for c in MEASURED["cases"] if not c.get("is_text")], ids=lambda case: case["id"]
)
def test_measured_values(case):
    schedule = Schedule.parse(case["string"], "deforum", interpolation=interpolation(case))
    values = schedule.values(case["max_frames"], fps=24, seed=SEED)
    np.testing.assert_allclose(values, expected(case), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "case", [c for c in MEASURED["cases"] if c.get("is_text")], ids=lambda case: case["id"]
)
def test_measured_words(case):
    found = NameTrack({"deforum": case["string"]}).sample(case["max_frames"], 24, SEED)
    assert list(found) == (case["studio"] if isinstance(case["a1111"], dict) else case["a1111"])


@pytest.mark.parametrize("case", MEASURED["malformed"], ids=lambda case: case["id"])
def test_what_deforum_refuses_is_refused_with_a_place(case):
    if isinstance(case["a1111"], list):
        values = Schedule.parse(case["string"], "deforum").values(61, seed=SEED)
        np.testing.assert_allclose(values, case["a1111"])
        return
    with pytest.raises(ConfigError, match="column") as error:
        Schedule.parse(case["string"], "deforum").values(61, seed=SEED)
    assert str(error.value).splitlines()[-1].strip() == "^"


def values(text, frames=10, **settings):
    return Schedule.parse(text, "deforum").values(frames, **settings).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:(1), 4:(5)", [1, 2, 3, 4, 5, 5]),  # numbers are tweened
        ("0:( 1 ), 4:( 5 )", [1, 1, 1, 1, 5, 5]),  # blanks inside make a formula, which is held
        ("0:(4/2), 4:(1e1)", [2, 2, 2, 2, 10, 10]),
        ("0:(1), 2:(t)", [1, 1.5, 2, 3, 4, 5]),  # to the formula's first value, then live
        ("0:(t), 4:(9)", [0, 1, 2, 3, 9, 9]),  # a formula is never tweened out of
        ("0:(0), 100:(50)", [0] * 6),  # a key past the end is dropped, with the way to it
        ("4:(5), 0:(1)", [1, 2, 3, 4, 5, 5]),
        ("0:(1), 4:(2), 4:(5)", [1, 2, 3, 4, 5, 5]),
        ("0:(1), -3:(9)", [1] * 6),
        ("0:(1), max_f:(6)", [1, 2, 3, 4, 5, 6]),
        ('"0":(1), "max_f-1":(5)', [1, 2, 3, 4, 5, 5]),
        ("0:(sqrt(t-2))", [0, 0, 0, 1, 2**0.5, 3**0.5]),  # NaN is filled
        ("0:(1)(2)", [12] * 6),
        ("0:((1)(2)), 5:(7)", [12, 11, 10, 9, 8, 7]),
        ("0:(1):(2)", [1] * 6),
        ("3:(1), 5:(3)", [1, 1, 1, 1, 2, 3]),  # deforum-studio fills the start
        ("0:(where(t>2, 5, -1))", [-1, -1, -1, 5, 5, 5]),
        ("0:(t*pi/pi), 3:(frames_to_go)", [0, 1, 2, 2, 1, 0]),
        ("0:(-t**2 + 7//2)", [3, 2, -1, -6, -13, -22]),
        ("0:((t>1)&(t<4))", [0, 0, 1, 1, 0, 0]),
        ("0:(s%100 + i*0)", [42] * 6),
        ("0:(1), 100:(foo(t))", [1] * 6),  # never evaluated
        ("0:(+.5), 1:(-0.5)", [0.5, -0.5, -0.5, -0.5, -0.5, -0.5]),
    ],
)
def test_rules(text, expected):
    np.testing.assert_allclose(values(text, 6, seed=142), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0:(1), ", "column 8: a key is missing"),
        ("0", "column 2: no ':'"),
        ("0:", "key 0, column 3: there is no value"),
        ("0:(1), 5:(2 +)", "key 5, column 14"),
        ("0:(-)", "sign without a number"),
        ("0:(t and 2)", r"\(a\) & \(b\)"),
        ("0:(2 if t else 3)", "write where"),
        ("0:(0<t<3)", "do not chain"),
        ("100:(1)", "no key is inside the clip of 61 frames"),
        ("0:(log(-1-t))", "not numbers at any frame"),
        ("0:(9**9**9**9 * (t<1) & 2.5)", "take comparisons or whole numbers"),
        ("0:(1/0)", "division by zero"),
        ("0:('text')", "only numbers"),
        ("0:(1), 1/0:(2)", "division by zero"),
    ],
)
def test_errors_say_where(text, says):
    with pytest.raises(ConfigError, match=says) as error:
        Schedule.parse(text, "deforum").values(61, seed=SEED)
    assert str(error.value).splitlines()[-1].strip() == "^"


def test_infinities_are_values_but_not_for_a_render():
    assert values("0:(1/(t-2))", 4) == [-0.5, -1.0, float("inf"), 1.0]
    with pytest.raises(ConfigError, match="at frame 2 is inf"):
        Schedule.parse("0:(1/(t-2))", "deforum").sample(4, 24)


def test_a_shot_a_camera_and_a_value_can_be_in_the_dialect():
    text = "0:(1/2), 5:(3/2)"
    steps = [0.5] * 5 + [1.5]
    for schedule in (
        Shot(dialect="deforum", guidance=text).guidance,
        Shot(guidance={"deforum": text}).guidance,
        Shot(camera={"dialect": "deforum", "zoom": text}).camera.zoom,
    ):
        assert schedule.dialect == "deforum"
        np.testing.assert_allclose(schedule.sample(6, 24), steps)
        assert Schedule(schedule.source) == schedule
    assert Shot(guidance=text).guidance.dialect == "native"
    shot = Shot(dialect="deforum", guidance=text)
    assert Shot.from_mapping(shot.to_mapping()) == shot


def test_surprises_are_told():
    found = Schedule.parse("0:(1/2), 100:(2), -4:(1)", "deforum").warnings(61)
    assert len(found) == 3
    assert "1/2) is a formula" in found[2]
    assert Schedule.parse("0:(1), 60:(2)", "deforum").warnings(61) == ()


@given(st.text("0123456789:(),.tsin+-*/% maxf_<>&|'\"e", max_size=40))
def test_any_text_gives_values_or_a_place(text):
    try:
        found = Schedule.parse(text, "deforum").values(7, seed=SEED)
    except ConfigError as error:
        caret = str(error).splitlines()[-1].strip()
        assert caret == "^", str(error)  # noqa: PT017
        return
    assert found.shape == (7,)
    assert not np.isnan(found).any()


def test_high_whole_powers_go_by_real_numbers():
    assert values("0:((t*0+2)**50)", 2) == [2.0**50] * 2
    assert values("0:((t*0+1)**100)", 2) == [1, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('0: ("Euler a"), "max_f/2": ("Heun"), max_f-5: ("DDIM")', {0: "Euler a", 29: "Heun", 54: "DDIM"}),
        ("0: ('a b'), 3:c, s-39: (\"(d)\")", {0: "a b", 3: "d"}),  # the later written counts
        ('9:(x), 60:(y), -4:(z), 59:("w", 1)', {0: "x", 59: "w, 1"}),  # commas as deforum-studio has them
        ("0:(C:/a.ckpt), 4:(7)", {0: "C", 4: "7"}),  # a second colon ends the value
    ],
)
def test_words_hold_from_key_to_key(text, expected):
    names = NameTrack({"deforum": text}).sample(60, 24, SEED)
    changes = {f: name for f, name in enumerate(names) if not f or name != names[f - 1]}
    assert changes == expected
    assert len(names) == 60


def test_names_are_in_the_shots_dialect():
    text = '0:("euler"), max_f/2:("heun")'
    fields = {"prompt": "a fox", "mode": "frame_by_frame", "redraw": {"solver": text}}
    shot = Shot(dialect="deforum", **fields)
    assert shot.redraw.solver.sample(10, 24) == ("euler",) * 4 + ("heun",) * 6
    assert Shot.from_mapping(shot.to_mapping()) == shot
    assert shot.to_mapping()["redraw"]["solver"] == {"deforum": text}
    assert Shot(dialect="deforum", **fields | {"redraw": {"solver": "heun"}}).redraw.solver.sample(1, 24) == (
        "heun",
    )
    with pytest.raises(ConfigError, match="is not a name"):
        NameTrack({"deforum": '0:("euler"), 5:("")'})
    with pytest.raises(ConfigError, match="column 15: no ':'"):
        NameTrack({"deforum": '0:("euler"), 5'})
    with pytest.raises(ConfigError, match="deforum stands alone"):
        NameTrack({"deforum": "0:(euler)", 5: "heun"})
    with pytest.raises(ConfigError, match="no key is inside the clip of 5 frames"):
        NameTrack({"deforum": "9:(euler)"}).sample(5, 24)


T = np.arange(49)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("events_passed", 0 * T),
        ("events_to_go", 0 * T),
        ("events_total", 0 * T),
        ("progress_until_next_event", T / 48),
        ("frames_until_next_event", 48 - T),
        ("beats_until_next_event", (48 - T) / 24 * 1.5),
        ("seconds_until_next_event", (48 - T) / 24),
        ("frames_since_prev_event", T),
        ("beats_since_prev_event", (48 - T) / 24 * 1.5),  # deforum-studio's slip, twice
        ("seconds_since_prev_event", (48 - T) / 24),
    ],
)
def test_without_events_the_clips_ends_are_the_events(name, expected):
    np.testing.assert_allclose(values(f"0:(1.0*{name})", 49, fps=24, bpm=90), expected, atol=1e-12)
    assert values("0:(progress_until_next_event)", 1) == [0]
