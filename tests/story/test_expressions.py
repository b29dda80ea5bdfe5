"""Expressions: the values numpy gives, and an error with a caret for everything else."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.story.expressions import FUNCTIONS, Expression, variables
from kinema.story.tracks import Schedule


def values(text, frames=5, fps=24, seed=0):
    return Expression(text).evaluate(variables(frames, fps, seed), frames)


T = np.arange(5.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t", T),
        ("f * 2 - 1", 2 * T - 1),
        ("sec", T / 24),
        ("fps + max_f", 28),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("-7 % 3", 2),
        ("mod(-7, 3)", 2),
        ("7 / 2", 3.5),
        ("-7 // 2", -4),
        ("1 if t > 2 else 0", T > 2),
        ("t > 2 ? 1 : 0", T > 2),
        ("t < 1 ? 5 : t < 3 ? 6 : 7", [5, 6, 6, 7, 7]),
        ("if (t > 2) -1 else t", [0, 1, 2, -1, -1]),
        ("1 if t > 3 else 2 if t > 1 else 3", [3, 3, 2, 2, 1]),
        ("t > 1 && t < 3 || !t", (T > 1) & (T < 3) | (T == 0)),
        ("not t > 1 and t", T == 1),
        ("2 ** -1 ** 2", 0.5),
        ("-t ** 2 * 2", -2 * T * T),
        ("8 - 4 - 2 + 12 / 3 / 2 % 3", 4),
        ("beat", T / 12),
        ("bpm", 120),
        ("mix(10, 20, t / 4)", 10 + 2.5 * T),
        ("step(2, t)", T >= 2),
        ("sign(t - 2) + pow(2, 3) + hypot(3, 4)", np.sign(T - 2) + 13),
        ("arctan2(1, -1) + arcsin(1)", 1.25 * math.pi),
        ("where(t > 2, 5, 6)", np.where(T > 2, 5, 6)),
        ("0 < t < 3", (T > 0) & (T < 3)),
        ("not t", T == 0),
        ("t > 1 and t < 3", (T > 1) & (T < 3)),
        ("t == 0 or t == 4", (T == 0) | (T == 4)),
        ("sin(tau / 4) + cos(pi) + log(e)", 1),
        ("atan2(1, -1)", 0.75 * math.pi),
        ("min(t, 2, 3) + max(t, 1)", np.minimum(T, 2) + np.maximum(T, 1)),
        ("clamp(t, 1, 3)", np.clip(T, 1, 3)),
        ("round(t / 2)", [0, 1, 1, 2, 2]),
        ("saw(t / 4)", [0, 0.25, 0.5, 0.75, 0]),
        ("tri(t / 4)", [0, 0.5, 1, 0.5, 0]),
        ("pulse(t / 4)", [1, 1, 0, 0, 1]),
        ("pulse(t / 4, 0.3)", [1, 1, 0, 0, 1]),
        ("smoothstep(0, 4, t)", [0, 0.15625, 0.5, 0.84375, 1]),
        ("sqrt(t - 2) if t > 2 else 0", np.sqrt(np.maximum(T - 2, 0))),
        ("  \n 1 + \n 2 ", 3),
        ("1e-3", 1e-3),
    ],
)
def test_values(text, expected):
    np.testing.assert_allclose(values(text), np.broadcast_to(expected, 5).astype(float), rtol=1e-12)


def test_seconds_follow_an_exact_frame_rate():
    assert values("sec", fps=Fraction(30000, 1001))[3] == pytest.approx(3 * 1001 / 30000)
    sec_F = values("sec", frames=60_001, fps=Fraction(30000, 1001))
    assert all(sec == float(Fraction(1001 * t, 30000)) for t, sec in enumerate(sec_F))


@pytest.mark.parametrize(("fps", "bpm"), [(15, 100), (15, 110), (24, 135), (30, 105), (60, 110), (12, 70.5)])
@pytest.mark.parametrize("part", [1, 2, 3, 4, 6, 16])
def test_a_frame_on_a_part_of_a_beat_is_on_it(fps, bpm, part):
    beats = [Fraction(t) * Fraction(bpm) / 60 / fps * part for t in range(4000)]
    on_F = np.array([beat.denominator == 1 for beat in beats])
    saw_F = Schedule(f"saw(beat * {part})").values(4000, fps, bpm=bpm)
    assert on_F.any()
    np.testing.assert_array_equal(saw_F == 0, on_F)
    np.testing.assert_allclose(saw_F, [float(beat % 1) for beat in beats], atol=1e-7)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("2 * sqt(t)", "Did you mean 'sqrt'", 4),
        ("2 * tt", "unknown name 'tt'", 4),
        ("sin", "sin is a function", 0),
        ("sin(1, 2)", "takes 1 values, not 2", 0),
        ("2 ^ 3", "a power is written **", 2),
        ("2t", "a number runs into a word", 1),
        ("3 + ", "a value is missing at the end", 3),
        ("__import__('os')", "unexpected", 11),
        ("t.real", "unknown name 't.real'", 0),
        ("(1)(2)", "two values side by side", 3),
        ("1, 2", "unexpected ','", 1),
        ("True", "unknown name 'True'", 0),
        ("t in t", "two values side by side", 2),
        ("max(*t)", "a value is missing before", 4),
        ("round(x=1)", "unexpected '='", 7),
        ("lambda", "unknown name", 0),
        ("1e999", "too large", 0),
        ("2 * (t + 1", "never closed", 4),
        ("sin(t", "the \\( of sin is never closed", 0),
        ("t)", "closed without being opened", 1),
        ("t > 1 ? 2", "without `:`", 9),
        ("1 if t", "without `else`", 6),
        ("if t 1 else 2", "condition in \\( \\)", 3),
        ("a = 2", "equality is ==", 2),
        ("s + 1", "here it is called seed", 0),
        ("'t'", "no quotes", 0),
        ("t + $", "unexpected '\\$'", 4),
        ("audio.band", "takes two frequencies", 0),
        ("audio.band(200, 60)", "the lower first", 0),
        ("audio.band(t, 60)", "two plain numbers", 0),
        ("audio.rms(1)", "write audio.rms", 0),
        ("audio.rms", "add audio: music.mp3", 0),
    ],
)
def test_errors_point_at_the_place(text, message, column):
    with pytest.raises(ConfigError, match=message.replace("**", r"\*\*")) as error:
        values(text)
    assert f"column {column + 1}: " in str(error.value)
    assert str(error.value).splitlines()[-1] == "  " + " " * column + "^"


@pytest.mark.parametrize(
    "text", ["9**9**9", "9**9**9**9**9", "1/0", "0/0", "log(-1)", "exp(9999)", "(-1) ** 0.5"]
)
def test_a_value_that_is_not_finite_is_an_error(text):
    with pytest.raises(ConfigError, match="at frame 0"):  # 9**9**9 in whole numbers would not end
        values(text)


def test_the_first_bad_frame_is_named():
    with pytest.raises(ConfigError, match="gives inf at frame 3"):
        values("1 / (t - 3)")


@pytest.mark.parametrize(
    "text",
    [
        "-" * 1999 + "1",
        "(" * 900 + "1" + ")" * 900,
        "+".join("t" * 200),
        "**".join("1" * 600),
        "9" * 2001,
    ],
)
def test_length_and_depth_are_capped(text):
    with pytest.raises(ConfigError):
        Expression(text)


def test_noise_is_smooth_bounded_and_depends_on_the_seed():
    a = values("noise(t / 100)", frames=2000, seed=1)
    assert np.abs(a).max() <= 1
    assert np.abs(np.diff(a)).max() < 0.05
    assert a.std() > 0.2
    np.testing.assert_array_equal(a, values("noise(t / 100)", frames=2000, seed=1))
    assert not np.allclose(a, values("noise(t / 100)", frames=2000, seed=2))
    assert not np.allclose(a, values("noise(t / 100, 1)", frames=2000, seed=1))
    assert np.isfinite(values("noise(t * 1e300)")).all()


def test_noise_has_no_jump_where_its_argument_becomes_positive():
    for seed in range(6):
        around = values("noise((t - 500) / 1000)", frames=1001, seed=seed)
        assert np.abs(np.diff(around)).max() < 0.01
        np.testing.assert_allclose(around[499], values("noise(t)", seed=seed)[0], atol=1e-6)


def test_noise_values_are_independent_between_lattice_points():
    a = values("noise(t)", frames=4000)
    assert abs(a.mean()) < 0.05
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.05


GRAMMAR = st.recursive(
    st.sampled_from(["t", "sec", "fps", "max_f", "pi", "0", "1", "2.5", "1e3", "9"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "%", "**", "<", "=="]), inner).map(" ".join),
        st.tuples(st.sampled_from(sorted(FUNCTIONS)), st.lists(inner, max_size=3)).map(
            lambda call: f"{call[0]}({', '.join(call[1])})"
        ),
        st.tuples(inner, inner, inner).map("({0[0]} if {0[1]} else {0[2]})".format),
        inner.map("not ({})".format),
    ),
    max_leaves=12,
)


@given(st.one_of(GRAMMAR, st.text(max_size=60), st.text("0123456789.etx+-*/%()<>=!, ", max_size=60)))
def test_anything_gives_finite_values_or_a_config_error(text):
    try:
        result = values(text)
    except ConfigError:
        return
    assert result.shape == (5,)
    assert result.dtype == np.float64
    assert np.isfinite(result).all()
