"""Matrices of flat moves: Deforum's values to 1e-6, and a native rule that keeps its promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.animation.camera import Perspective, matrix_2d
from kinema.animation.matrices import lean, lens, rigid_motion, rotation_x, rotation_y, rotation_z
from kinema.core.errors import ConfigError

HALF = (0.5, 0.5)
# Measured on sd-webui-deforum 3224268: angle, zoom, x, y, centre, size, perspective, matrix.
MEASURED = [
    ((90, 1, 0, 0), HALF, 64, None, [[6.123233996e-17, 1, -3.552713679e-15], [-1, 6.123233996e-17, 64]]),
    ((0, 1, 5, 0), HALF, 64, None, [[1, 0, 5], [0, 1, 0]]),
    ((0, 1.5, 4, 0), HALF, 64, None, [[1.5, 0, -10], [0, 1.5, -16]]),
    ((0, 0, 0, 0), HALF, 64, None, [[0, 0, 32], [0, 0, 32]]),
    (
        (15, 1.1, 0, 0), HALF, 64, None,
        [[1.062518409, 0.2847009496, -11.11101947], [-0.2847009496, 1.062518409, 7.109841302]],
    ),
    (
        (20, 1.1, 0, 0), (1, 0.25), 64, None,
        [[1.033661883, 0.3762221577, -8.173915026], [-0.3762221577, 1.033661883, 23.53962796]],
    ),
    (
        (45, 1, 0, 0), HALF, 65, None,
        [[0.7071067812, 0.7071067812, -13.46194078], [-0.7071067812, 0.7071067812, 32.5]],
    ),
    (
        (0, 1, 0, 0), HALF, 64, (0, 20, 0, 53),
        [[0.8946381807, -0.1525581513, 8.160576418], [0, 0.6881266873, 10.88887484],
         [0, -0.003016905573, 1.056017203]],
    ),
    (  # the translation is dropped
        (0, 1.1, 10, 5), HALF, 64, (10, 0, 0, 53),
        [[1.072711978, -0.1891480548, 7.37935134], [0.1891480684, 1.072711901, -11.11168098],
         [8.988653271e-10, -6.293923182e-10, 0.9999999947]],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("move", "centre", "side", "perspective", "expected"), MEASURED)
def test_deforum_matrices_are_those_measured(move, centre, side, perspective, expected):
    found = matrix_2d(*move, centre, (side, side), perspective=perspective, dialect="deforum")
    expected = np.array(expected if len(expected) == 3 else [*expected, [0, 0, 1]])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


def at(matrix, x, y):
    p = matrix @ [x, y, 1]
    return p[:2] / p[2]


angles = st.floats(-180, 180)
zooms = st.floats(0.1, 10)
shifts = st.floats(-100, 100)
centres = st.tuples(st.floats(-1, 2), st.floats(-1, 2))
sizes = st.tuples(st.integers(2, 400), st.integers(2, 400))


@given(angles, zooms, shifts, shifts, centres, sizes)
def test_native_moves_the_pivot_by_exactly_the_translation(angle, zoom, x, y, centre, size):
    pivot = np.array(centre) * size - 0.5
    found = at(matrix_2d(angle, zoom, x, y, centre, size), *pivot)
    np.testing.assert_allclose(found, pivot + np.array([-x, y]), atol=1e-8)


@given(angles, zooms, shifts, shifts, centres, sizes)
def test_deforum_moves_before_it_turns(angle, zoom, x, y, centre, size):
    """The point that the translation carries to the centre is the one that stays there."""
    middle = np.array(centre) * size
    found = at(matrix_2d(angle, zoom, x, y, centre, size, dialect="deforum"), *(middle - [x, y]))
    np.testing.assert_allclose(found, middle, atol=1e-8)


@given(angles, zooms, sizes)
def test_both_turn_and_scale_alike(angle, zoom, size):
    native, deforum = (
        matrix_2d(angle, zoom, 0, 0, HALF, size, dialect=d)[:2, :2] for d in ("native", "deforum")
    )
    np.testing.assert_array_equal(native, deforum)


def test_native_zoom_keeps_the_true_middle():
    for side in (64, 65):
        middle = (side - 1) / 2
        np.testing.assert_allclose(at(matrix_2d(0, 3, 0, 0, HALF, (side, side)), middle, middle), middle)


def test_directions():
    """A camera that goes right or up moves the picture left or down; positive angles are anticlockwise."""
    assert at(matrix_2d(0, 1, 10, 0, HALF, (64, 64)), 30, 30)[0] == 20
    assert at(matrix_2d(0, 1, 0, 10, HALF, (64, 64)), 30, 30)[1] == 40
    right_of_middle = at(matrix_2d(90, 1, 0, 0, HALF, (64, 64)), 41.5, 31.5)
    np.testing.assert_allclose(right_of_middle, [31.5, 21.5])  # goes to the top
    assert at(matrix_2d(0, 1, 10, 0, HALF, (64, 64), dialect="deforum"), 30, 30)[0] == 40


def test_native_perspective_leans_about_the_middle_and_keeps_the_translation():
    size, flip = (64, 48), Perspective(0, 30, 0, 53)
    middle = np.array([31.5, 23.5])
    np.testing.assert_allclose(
        at(matrix_2d(0, 1, 7, 5, HALF, size, perspective=flip), *middle), middle + np.array([-7, 5])
    )
    leant = lean(flip, size)
    top, bottom = (at(leant, 63, y)[0] - at(leant, 0, y)[0] for y in (0, 47))
    assert top < 56 < 63 < bottom  # the top is farther away
    np.testing.assert_array_equal(lean(Perspective(), size), np.eye(3))
    np.testing.assert_array_equal(matrix_2d(0, 1, 0, 0, HALF, size, perspective=(0, 0, 0, 90)), np.eye(3))
    right = lean(Perspective(0, 0, 30, 53), size)
    assert at(right, 63, 47)[1] - at(right, 63, 0)[1] < 47 < at(right, 0, 47)[1] - at(right, 0, 0)[1]


def test_an_unknown_dialect_is_refused():
    with pytest.raises(ConfigError, match="unknown camera dialect 'a1111'"):
        matrix_2d(0, 1, 0, 0, HALF, (64, 64), dialect="a1111")


def test_a_lens_spans_its_field_of_view():
    k = lens(60, (100, 50))
    top = at(k, 0, -math.tan(math.radians(30)))
    np.testing.assert_allclose(top, [49.5, -0.5])  # the frame's upper edge, half a pixel above its first row


def test_rotations_point_the_camera_where_they_say():
    ahead, right = np.array([0, 0, 1]), np.array([1, 0, 0])
    assert (rotation_y(10) @ ahead)[0] > 0  # looks right
    assert (rotation_x(10) @ ahead)[1] < 0  # looks up: y is down
    assert (rotation_z(10) @ right)[1] > 0  # its right side goes down: clockwise


def test_an_even_motion_adds_up():
    turn, move = np.array([0.2, -0.3, 0.5]), np.array([1.0, 2.0, -0.5])
    whole_r, whole_t = rigid_motion(turn, move)
    r, t = np.eye(3), np.zeros(3)
    for _ in range(7):
        step_r, step_t = rigid_motion(turn / 7, move / 7)
        r, t = r @ step_r, t + r @ step_t
    np.testing.assert_allclose(r, whole_r, atol=1e-12)
    np.testing.assert_allclose(t, whole_t, atol=1e-12)
    np.testing.assert_allclose(whole_r @ whole_r.T, np.eye(3), atol=1e-12)
    tiny_r, tiny_t = rigid_motion(turn * 1e-9, move)
    np.testing.assert_allclose(tiny_r, np.eye(3), atol=1e-8)
    np.testing.assert_allclose(tiny_t, move, atol=1e-8)
