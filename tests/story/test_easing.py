"""Easings: their ends, their symmetry, their overshoot, and CSS's Bezier."""

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.story.easing import EASINGS, easing

U = np.linspace(0, 1, 1001)


@pytest.mark.parametrize(
    "name", [*EASINGS, "cubic-bezier(0.42, 0, 0.58, 1)", "cubic-bezier(0.3,-0.5,0.2,1.8)"]
)
def test_from_zero_to_one(name):
    e = easing(name)(U)
    assert e[0] == pytest.approx(0, abs=1e-12)
    assert e[-1] == pytest.approx(1, abs=1e-12)
    assert np.isfinite(e).all()


@pytest.mark.parametrize("shape", ["quad", "cubic", "sine", "expo", "back", "bounce", "elastic"])
def test_out_mirrors_in_and_in_out_is_odd_about_the_middle(shape):
    into, out, both = (easing(f"{way}_{shape}") for way in ("in", "out", "in_out"))
    np.testing.assert_allclose(out(U), 1 - into(1 - U), atol=1e-12)
    np.testing.assert_allclose(both(U), 1 - both(1 - U), atol=1e-12)
    assert into(np.array([0.3]))[0] < 0.3 < out(np.array([0.3]))[0]


@pytest.mark.parametrize(
    ("name", "at_quarter"),
    [
        ("linear", 0.25), ("hold", 0), ("in_quad", 0.0625), ("in_cubic", 0.015625), ("in", 0.015625),
        ("in_out", 0.0625), ("out_bounce", 0.47265625), ("in_sine", 1 - np.cos(np.pi / 8)),
        ("in_back", 0.0625 * (2.70158 * 0.25 - 1.70158)), ("in_expo", 2**-7.5),
    ],
)  # fmt: skip
def test_known_values(name, at_quarter):
    assert easing(name)(np.array([0.25]))[0] == pytest.approx(at_quarter)


def published(name: str, x: float) -> float:
    """The formulas as easings.net prints them, one by one."""
    c1, c4, c5 = 1.70158, 2 * np.pi / 3, 2 * np.pi / 4.5
    c2 = c1 * 1.525
    two_sided = {
        "in_out_back": (
            (2 * x) ** 2 * ((c2 + 1) * 2 * x - c2) / 2
            if x < 0.5
            else ((2 * x - 2) ** 2 * ((c2 + 1) * (2 * x - 2) + c2) + 2) / 2
        ),
        "in_out_elastic": (
            -(2 ** (20 * x - 10)) * np.sin((20 * x - 11.125) * c5) / 2
            if x < 0.5
            else 2 ** (-20 * x + 10) * np.sin((20 * x - 11.125) * c5) / 2 + 1
        ),
        "in_out_expo": 2 ** (20 * x - 10) / 2 if x < 0.5 else (2 - 2 ** (-20 * x + 10)) / 2,
    }
    return {
        "in_expo": 2 ** (10 * x - 10),
        "out_expo": 1 - 2 ** (-10 * x),
        "in_elastic": -(2 ** (10 * x - 10)) * np.sin((x * 10 - 10.75) * c4),
        "out_elastic": 2 ** (-10 * x) * np.sin((x * 10 - 0.75) * c4) + 1,
        "out_back": 1 + (c1 + 1) * (x - 1) ** 3 + c1 * (x - 1) ** 2,
        **two_sided,
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        *("in_expo", "out_expo", "in_out_expo", "in_elastic", "out_elastic", "in_out_elastic"),
        *("out_back", "in_out_back"),
    ],
)
def test_published_formulas(name):
    inside = np.array([0.01, 0.2, 0.37, 0.49, 0.5, 0.51, 0.8, 0.99])
    np.testing.assert_allclose(
        easing(name)(inside), [published(name, float(x)) for x in inside], rtol=1e-12, atol=1e-12
    )


def test_bounce_is_continuous_and_stays_inside():
    e = easing("out_bounce")(np.linspace(0, 1, 100_001))
    assert np.abs(np.diff(e)).max() < 2e-4
    assert e.min() >= 0
    assert e.max() <= 1


def test_back_and_elastic_overshoot():
    assert easing("in_back")(U).min() < -0.09
    assert easing("out_elastic")(U).max() > 1.2


def test_bezier_solves_for_time():
    x1, y1, x2, y2 = 0.25, 0.1, 0.25, 1.0  # CSS `ease`
    s = np.linspace(0, 1, 50)
    x, y = (3 * a * s * (1 - s) ** 2 + 3 * b * s**2 * (1 - s) + s**3 for a, b in ((x1, x2), (y1, y2)))
    np.testing.assert_allclose(easing("cubic-bezier(0.25, 0.1, 0.25, 1)")(x), y, atol=1e-9)


@pytest.mark.parametrize("spelling", ["in_out", "in-out", "ease-in-out", " Ease_In_Out "])
def test_spellings(spelling):
    np.testing.assert_array_equal(easing(spelling)(U), easing("in_out_cubic")(U))


@pytest.mark.parametrize(
    ("name", "message"),
    [("in_cubc", "Did you mean 'in_cubic'"), ("cubic-bezier(2,0,0,1)", "0 to 1"), ("", "unknown easing")],
)
def test_unknown_names(name, message):
    with pytest.raises(ConfigError, match=message):
        easing(name)


def test_springs_swing_and_steps_jump():
    u = np.linspace(0, 1, 1001)
    swung = easing("spring(0.2, 3)")(u)
    assert swung[0] == 0
    assert swung[-1] == 1
    crossings = np.flatnonzero(np.diff(np.sign(swung - 1)) != 0)
    assert len(crossings) == 6  # three swings about the end, and the end
    assert swung.max() > 1.4
    assert easing("spring(0.9, 3)")(u).max() < 1.01
    np.testing.assert_array_equal(easing("spring")(u), easing("spring(0.3, 3)")(u))
    np.testing.assert_array_equal(
        easing("steps(4)")(np.array([0, 0.24, 0.25, 0.74, 0.99, 1])), [0, 0, 0.25, 0.5, 0.75, 1]
    )


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("easeInOutCubic", "in_out"),
        ("ease-out-quad", "out_quad"),
        ("ease", "cubic-bezier(0.25,0.1,0.25,1)"),
        ("easeIn", "in"),
    ],
)
def test_names_from_elsewhere(name, same):
    u = np.linspace(0, 1, 21)
    np.testing.assert_array_equal(easing(name)(u), easing(same)(u))


@pytest.mark.parametrize(
    "name", ["spring(2, 3)", "spring(0.3, 0)", "spring(1,2,3)", "steps", "steps(0)", "steps(1.5)", "steps(x)"]
)
def test_springs_and_steps_out_of_range(name):
    with pytest.raises(ConfigError, match=r"such as|as in|one whole number"):
        easing(name)
