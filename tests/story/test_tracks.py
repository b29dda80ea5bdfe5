"""Tracks: keys are met exactly, weights sum to one, and what was written is what is written back."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kinema.core.errors import ConfigError
from kinema.story.easing import EASINGS
from kinema.story.prompt_track import PromptTrack
from kinema.story.tracks import Schedule
from kinema.story.window import sample_around

EASES = st.sampled_from([*EASINGS, "cubic-bezier(0.3,-0.5,0.2,1.8)"])
NUMBERS = st.floats(-1e6, 1e6)
TEXT = st.text("abc xyz", max_size=8)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (3.5, [3.5] * 5),
        ("3.5", [3.5] * 5),
        ("t * 2", [0, 2, 4, 6, 8]),
        ("0:(1), 4:(3)", [1, 1.5, 2, 2.5, 3]),
        ("0: 1, 2: 5,", [1, 3, 5, 5, 5]),
        ("0:(where(t > 0, 7, 1)), '50%':(1)", [1, 4, 1, 1, 1]),
        ({2: 5}, [5] * 5),
        ({1: 0, 3: 4}, [0, 0, 2, 4, 4]),
        ({-1: 8, 0: 0}, [0, 2, 4, 6, 8]),
        ({0: 0, "1s": 8}, [0, 2, 4, 6, 8]),
        ({0: 0, "50%": {"value": 1, "ease": "hold"}, "4": 9}, [0, 0.5, 1, 1, 9]),
        ({"ease": "hold", 0: 1, 3: 2}, [1, 1, 1, 2, 2]),
        ({0: 1, 2: "10 * t"}, [1, 10.5, 20, 30, 40]),
    ],
)
def test_schedule_values(source, expected):
    np.testing.assert_allclose(Schedule(source).sample(5, 4), expected, rtol=1e-12)


def test_an_expression_is_evaluated_only_where_it_lives():
    np.testing.assert_allclose(Schedule({0: 1, 3: "1 / (t - 2)"}).sample(5, 24), [1, 1, 1, 1, 0.5])
    with pytest.raises(ConfigError, match="at frame 4"):
        Schedule({0: 1, 3: "1 / (t - 4)"}).sample(5, 24)


@given(st.dictionaries(st.integers(0, 59), st.tuples(NUMBERS, EASES), min_size=1, max_size=8))
def test_a_schedule_gives_at_its_keys_what_is_written_there(keys):
    source = {frame: {"value": value, "ease": ease} for frame, (value, ease) in keys.items()}
    sampled = Schedule(source).sample(60, 24)
    for frame, (value, _) in keys.items():
        assert sampled[frame] == value
    assert (sampled[: min(keys)] == sampled[min(keys)]).all()
    assert (sampled[max(keys) :] == sampled[max(keys)]).all()


PROMPTS = st.dictionaries(
    st.integers(0, 59),
    st.one_of(TEXT, st.fixed_dictionaries({"prompt": TEXT, "ease": EASES})),
    min_size=1,
    max_size=8,
)


@given(PROMPTS)
def test_prompt_weights_are_a_partition_of_one(source):
    prompts, weights_FK = PromptTrack(source).sample(60, 24)
    assert weights_FK.shape == (60, len(prompts))
    assert len(set(prompts)) == len(prompts)
    assert (weights_FK >= 0).all()
    np.testing.assert_allclose(weights_FK.sum(axis=1), 1.0, atol=1e-12)
    for frame, written in source.items():
        text = written if isinstance(written, str) else written["prompt"]
        assert weights_FK[frame, prompts.index(text)] == 1.0


def test_prompts_travel_and_come_back():
    prompts, weights_FK = PromptTrack({0: "a", 4: "b", 8: "a"}).sample(9, 24)
    assert prompts == ("a", "b")
    np.testing.assert_allclose(weights_FK[:, 1], [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0])


def test_hold_and_blend():
    held = PromptTrack({"mode": "hold", 0: "a", 2: {"prompt": "b", "mode": "blend"}, 4: "c"})
    _, weights_FK = held.sample(6, 24)
    np.testing.assert_allclose(
        weights_FK, [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1], [0, 0, 1]]
    )


def test_head_and_tail_join_every_prompt():
    track = PromptTrack({"head": "oil", 0: "a fox", 3: "", "tail": "at dusk"})
    assert track.sample(4, 24)[0] == ("oil, a fox, at dusk", "oil, at dusk")


def test_one_text():
    prompts, weights_FK = PromptTrack("a (fox:1.2)").sample(3, 24)
    assert prompts == ("a (fox:1.2)",)
    assert (weights_FK == 1).all()


def test_seconds_meet_the_exact_frame():
    track = Schedule({0: 0, "1001s": 1})
    assert track.frames_of_keys(30001, Fraction(30000, 1001)) == (0, 30000)


@pytest.mark.parametrize(
    ("place", "frame"), [("0.3s", 3), ("0.24s", 2), ("0.25s", 3), ("33%", 7), ("100%", 20)]
)
def test_places_are_the_nearest_frame(place, frame):
    assert Schedule({place: 1}).frames_of_keys(21, 10) == (frame,)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({-6: 1}, "before the start"),
        ({0: 1, "0%": 2}, "keys 0 and 0% are both frame 0"),
        ({4: 1, -1: 2}, "keys 4 and -1 are both frame 4"),
    ],
)
def test_keys_outside_or_on_one_frame(source, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(source).sample(5, 4)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "without keys"),
        ({0: 1, "0": 2}, "key 0 is written twice"),
        ("0:(1), 0:(2)", "key 0 is written twice"),
        ({"1.5": 1}, "not a place in a clip"),
        ({1.5: 1}, "not a place in a clip"),
        ({"101%": 1}, "0% to 100%"),
        ({0: {"value": 1, "eas": "in"}}, "unknown entry 'eas'"),
        ({0: {"ease": "in"}}, "missing 'value'"),
        ({0: {"value": 1, "ease": "inn"}}, "unknown easing 'inn'"),
        ({0: {"value": 1, "ease": 3}}, "ease=3 is not a name"),
        ({0: [1]}, "not a number"),
        (float("nan"), "not finite"),
        (10**400, "not finite"),
        (True, "not a number"),
        (None, "not a number"),
        ("", "an empty expression"),
        ("0:(1) 4:(2)", "key 0, column 7: two values side by side"),
        ("0:(1), 3", "missing ':'"),
        ("0:", "key 0, column 3: there is no value"),
        (":", "not a place"),
    ],
)
def test_schedules_that_cannot_be_read(source, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "not a prompt"),
        ({0: 3}, "not text"),
        ({"head": "x"}, "without keys"),
        ({0: "a", 5: {"prompt": "b", "mode": "jump"}}, "unknown mode"),
        ({0: {"prompt": "b", "mode": "hold", "ease": "in"}}, "hold has no easing"),
        ({0: "a (b"}, "never closed"),
        ("half \ud800", "cannot be stored"),
        ({0: {"text": "b"}}, "unknown entry 'text'"),
    ],
)
def test_prompts_that_cannot_be_read(source, message):
    with pytest.raises(ConfigError, match=message):
        PromptTrack(source)


class Model(BaseModel):
    number: Schedule
    words: PromptTrack


@pytest.mark.parametrize(
    "number", [3.5, 2, "0:(1), 3:(2)", {0: 1, "2s": {"value": 2, "ease": "in"}, "-1": "t"}]
)
@pytest.mark.parametrize("words", ["a fox", {0: "a", "50%": {"prompt": "b", "mode": "hold"}, "head": "x"}])
def test_json_is_what_was_written(number, words):
    model = Model(number=number, words=words)
    assert json.loads(model.model_dump_json()) == json.loads(json.dumps({"number": number, "words": words}))
    assert Model.model_validate_json(model.model_dump_json()) == model
    assert hash(Model.model_validate_json(model.model_dump_json()).number) == hash(model.number)


def test_the_source_cannot_be_changed_from_outside():
    source = {0: {"value": 1}}
    schedule = Schedule(source)
    source[0]["value"] = schedule.source[0]["value"] = 9
    assert schedule == Schedule({0: {"value": 1}})


def test_constants_are_known_without_sampling():
    assert Schedule({0: 2, 9: 2.0}).constant == 2.0
    assert Schedule({0: 2, 9: 3}).constant is None
    assert Schedule("2").constant is None
    assert PromptTrack({0: "a", 9: "a"}).constant == "a"
    assert PromptTrack(" ").empty
    assert not PromptTrack({0: "", 1: "b"}).empty


JSONISH = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.integers(-9, 9), st.text("0123456789s%-+.", max_size=4), st.sampled_from(["ease", "head"])
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=6,
)


@given(st.one_of(JSONISH, st.text("0123:(),t%s +-*", max_size=40)))
def test_nothing_but_config_errors(source):
    for make in (lambda: Schedule(source).sample(7, 24), lambda: PromptTrack(source).sample(7, 24)):
        try:
            make()
        except ConfigError:
            continue


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"1..3": 2, 5: 4}, [2, 2, 2, 2, 3, 4, 4]),
        ({"0..2": "10 * t", 4: 0}, [0, 10, 20, 15, 0, 0, 0]),  # the formula lives on while it is left
        ({0: 0, "50%..-1": 6}, [0, 2, 4, 6, 6, 6, 6]),
        ("0..1:(0), 3..4:(2, ease=hold), 6:(8)", [0, 0, 1, 2, 2, 2, 8]),
        ({0: 0, "2b": 8}, [0, 2, 4, 6, 8, 8, 8]),  # 120 a minute, 4 frames a second
        ("0:(0), max_f:(6)", [0, 1, 2, 3, 4, 5, 6]),
        ("0:(0), max_f/2:(3), max_f-1:(5)", [0, 1, 2, 3, 4, 5, 5]),
        ("0:(0), 12:(12)", [0, 1, 2, 3, 4, 5, 6]),  # on its way past the end
        ("0:(0), 9:(t * 2), 20:(5)", [0, 2, 4, 6, 8, 10, 12]),
        ({8: 5}, [5] * 7),
        ({0: 1, 2: lambda frame: frame * 10}, [1, 10.5, 20, 30, 40, 50, 60]),
        (lambda frame: 6 - frame, [6, 5, 4, 3, 2, 1, 0]),
        ({0: {"value": 0, "ease": lambda u: u * u}, 4: 16}, [0, 1, 4, 9, 16, 16, 16]),
        ("beat", [0, 0.5, 1, 1.5, 2, 2.5, 3]),
        ("t > 3 ? 1 : 2", [2, 2, 2, 2, 1, 1, 1]),
        ("0:(t > 3 ? 1 : 2), 6:(t < 2 ? 1 : 9)", [2, 2 + 7 / 6, 2 + 14 / 6, 5.5, 1 + 32 / 6, 1 + 40 / 6, 9]),
    ],
)
def test_places_ranges_and_functions(source, expected):
    np.testing.assert_allclose(Schedule(source).sample(7, 4), expected, rtol=1e-9)


def test_prompts_hold_over_a_range():
    _, weights_FK = PromptTrack({"0..3": "a", 5: "b"}).sample(7, 4)
    np.testing.assert_allclose(weights_FK[:, 1], [0, 0, 0, 0, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"5..3": 1}, "the earlier place first"),
        ({"0..4": 1, 2: 3}, "keys 0..4 and 2 are both frame 2"),
        ({0: 1, -99: 2}, "-99 is before the start"),
        ("0:(1, ease=inn), 3:(2)", "key 0, column 12: unknown easing 'inn'"),
        ("0:(1), 3:(2 +)", "key 3, column 14: a value is missing before '\\)'"),
        ("0:(1), 30:(sqrt(2 - t)), 60:(1)", "key 30, column 11: the expression gives nan at frame 30"),
        (lambda frame: float("nan"), "the function gives nan at frame 0"),
        (lambda frame: "x", "must give a finite number"),
        ("0:(1), 2x:(3)", "column 8: '2x' is not a place"),
    ],
)
def test_what_schedules_refuse(source, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(source).sample(61, 24)


def test_functions_are_frozen_into_numbers():
    schedule = Schedule({0: lambda frame: frame**2, 3: 1})
    frozen = schedule.frozen(5, 24)
    np.testing.assert_array_equal(frozen.sample(5, 24), schedule.sample(5, 24))
    assert json.loads(json.dumps(frozen.source))
    assert Schedule("t").frozen(5, 24).source == "t"


def test_a_formula_at_many_keys_is_the_formula():
    many = ", ".join(f"{frame}:(sin(t) + 1/(t + 1))" for frame in range(0, 60, 3))
    held = {"ease": "hold", **dict.fromkeys(range(0, 60, 3), "sin(t) + 1/(t + 1)")}
    expected = Schedule("sin(t) + 1/(t + 1)").sample(60, 24)
    np.testing.assert_array_equal(Schedule(held).sample(60, 24), expected)
    assert np.abs(Schedule(many).sample(60, 24) - expected).max() < 1.0
    with pytest.raises(ConfigError, match=r"key 6, column .* inf at frame 7"):
        Schedule("0:(1/(t - 7)), 3:(1/(t - 7)), 6:(1/(t - 7)), 9:(1/(t - 7))").sample(12, 24)


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["0", "3", "2s", "50%", "-1", "1b", "1..2", "max_f", "99", "x", ""]),
        st.sampled_from([":", ": ", ""]),
        st.sampled_from(
            ["(1)", "2.5", "(t)", "(1, ease=in)", "(1/(t-2))", "(sqrt(t-1))", "(", "(1))", "(t?1:2)",
             "(audio.rms)", "(beat*noise(t))", "(9**9**9)", "'1'", "(1 2)", "(sin)", "(-t if t<2 else 3)"]
        ),
    ),
    max_size=5,
).map(lambda parts: ", ".join("".join(part) for part in parts))  # fmt: skip


@given(st.one_of(PIECES, st.text("0123456789:(),.tsbx%?+-*/ =<>!&|'", max_size=60), st.text(max_size=40)))
def test_any_string_gives_finite_values_or_a_place(text):
    try:
        values = Schedule.parse(text).values(7, fps=24)
    except ConfigError as error:
        told = str(error)
        placed = told.splitlines()[-1].strip() == "^" and "column " in told
        assert placed or "frame" in told or "written twice" in told or "too far apart" in told
        return
    assert values.shape == (7,)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()


def test_a_loop_keeps_the_frames_that_a_prompt_holds():
    texts, weights_FK = sample_around(PromptTrack({"0..3": "a", 6: "b"}), 12, 8)
    assert texts == ("a", "b")
    np.testing.assert_allclose(
        weights_FK[:, 1], [0, 0, 0, 0, 1 / 3, 2 / 3, 1, 5 / 6, 2 / 3, 1 / 2, 1 / 3, 1 / 6]
    )


@pytest.mark.parametrize(
    "text", ["0:(1, ease=" + " " * 99_000 + ")x)", "0:(1" + ", ease=a" * 12_000 + " )x)"]
)
def test_long_nonsense_is_refused_in_one_pass(text):
    """Days, where every comma is tried with every end."""
    with pytest.raises(ConfigError, match="key 0, column 3"):
        Schedule(text)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("0:(1, ease=in_ou)", 12, "in_ou"),
        ("0:((1), ease = cubic(0.1, (2), 0.3, 1) )", 16, "cubic"),
        ("0:(1, ease=)", 12, "''"),
        ("0:(1, ease=in, ease=out)", 12, "in, ease=out"),
    ],
)
def test_an_easing_that_is_none_is_shown_where_it_begins(text, column, says):
    with pytest.raises(ConfigError, match=f"column {column}: .*{says}"):
        Schedule(text)


def test_an_easing_may_have_commas_of_its_own():
    found = Schedule("0:(min(1, 2) , ease = cubic-bezier(0.1, 0.2, 0.3, 1) ), 9:(5)")
    assert found.keys[0].ease == "cubic-bezier(0.1, 0.2, 0.3, 1)"
    assert found.sample(10, 24)[0] == 1
