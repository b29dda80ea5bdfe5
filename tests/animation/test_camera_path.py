"""Paths: one convention in the plane and in space, rates that add up alike at every frame rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kinema.animation.camera import path
from kinema.animation.matrices import Perspective, deforum_flip, lens
from kinema.animation.steps import DeforumStep, PlaneStep, SpaceStep
from kinema.core.errors import ConfigError
from kinema.story.camera import Camera
from kinema.story.camera_deforum import DeforumCamera

SIZE = (64, 48)
MIDDLE = np.array([31.5, 23.5])
SCENE = {"depth": "depth.png"}


def total(camera, frames=25, fps=24, size=SIZE):
    """From the first frame's pixels to the last one's, at distance 1."""
    found = path(Camera.from_mapping(camera), frames, fps, size).between(0, frames - 1)
    return found.plane().matrix_33 if isinstance(found, SpaceStep) else found.matrix_33


def goes(matrix, x=MIDDLE[0], y=MIDDLE[1]):
    p = matrix @ [x, y, 1]
    return p[:2] / p[2] - [x, y]


@pytest.mark.parametrize(
    ("move", "axis", "sign"),
    [
        ({"pan_x": 0.1}, 0, -1),
        ({"x": 0.1}, 0, -1),
        ({"yaw": 5}, 0, -1),
        ({"pan_y": 0.1}, 1, 1),
        ({"y": 0.1}, 1, 1),
        ({"pitch": 5}, 1, 1),
    ],
)
@pytest.mark.parametrize("scene", [{}, SCENE])
def test_right_is_right_and_up_is_up_in_the_plane_and_in_space(move, axis, sign, scene):
    """The camera goes or looks right or up: the picture goes left or down, by rate and by position."""
    by_rate = goes(total({"speed": move, **scene}))
    (name, end), *_ = move.items()
    by_place = goes(total({name: {0: 0, -1: end}, **scene}))
    np.testing.assert_allclose(by_rate, by_place, atol=1e-9)
    assert by_rate[axis] * sign > 1
    assert abs(by_rate[1 - axis]) < 1e-9


def test_nearer_is_larger():
    for camera in ({"zoom": {0: 1, -1: 2}}, {"speed": {"zoom": 2}}, {"z": {0: 0, -1: 0.5}}):
        np.testing.assert_allclose(goes(total(camera), 41.5, 33.5), [10, 10])
    narrow = {"fov": {0: 50, -1: 2 * math.degrees(math.atan(math.tan(math.radians(25)) / 2))}}
    np.testing.assert_allclose(goes(total(narrow), 41.5, 33.5), [10, 10])


def test_rolling_clockwise_turns_the_picture_anticlockwise():
    for camera in ({"roll": {0: 0, -1: 90}}, {"speed": {"roll": 90}}):
        np.testing.assert_allclose(goes(total(camera), 41.5, 23.5), [-10, -10], atol=1e-9)


def test_amounts_are_what_the_units_say():
    np.testing.assert_allclose(goes(total({"pan_x": {0: 0, -1: 0.25}})), [-16, 0])
    np.testing.assert_allclose(goes(total({"pan_y": {0: 0, -1: 0.25}})), [0, 12])
    np.testing.assert_allclose(goes(total({"unit": "pixel", "pan_x": {0: 0, -1: 7}})), [-7, 0])
    focal = lens(50, SIZE)[0, 0]
    np.testing.assert_allclose(goes(total({"x": {0: 0, -1: 0.1}})), [-0.1 * focal, 0])
    np.testing.assert_allclose(goes(total({"yaw": {0: 0, -1: 10}}))[0], -focal * math.tan(math.radians(10)))


def test_positions_are_reached_exactly_and_only_differences_count():
    by_two = total({"zoom": {0: 1, 12: 1.3, -1: 2}, "roll": {0: 0, -1: 30}})
    again = total({"zoom": {0: 3, -1: 6}, "roll": {0: 10, -1: 40}})
    np.testing.assert_allclose(by_two, again, atol=1e-9)
    assert math.sqrt(np.linalg.det(by_two[:2, :2])) == pytest.approx(2)


@pytest.mark.parametrize(
    "speed",
    [
        {"zoom": 1.5, "roll": 20, "pan_x": 0.2, "pan_y": -0.1},
        {"x": 0.2, "yaw": -12, "pitch": 7, "z": 0.1},
        {"orbit_x": 25},
        {"orbit_y": -15, "z": 0.2},
    ],
)
def test_rates_give_the_same_path_at_every_frame_rate(speed):
    second = [total({"speed": speed}, frames=fps + 1, fps=fps) for fps in (6, 24, 60)]
    np.testing.assert_allclose(second[0], second[1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(second[1], second[2], rtol=0, atol=1e-9)


def test_rates_are_the_cameras_own():
    """After a quarter roll, right on the screen is down in the world, for pans and for moves alike."""
    for name in ("pan_x", "x"):
        camera = Camera(roll=90, speed={name: 0.1})
        rolled = Camera(roll={0: 0, 24: 90}, speed={name: {0: 0, 24: 0, 25: 0.1}})
        for c in (camera, rolled):
            found = path(c, 50, 24, SIZE)
            step = found.steps[40]
            assert isinstance(step, PlaneStep)
            move = goes(step.matrix_33)
            assert move[0] < -0.05
            assert abs(move[1]) < 1e-6


def test_an_orbit_keeps_the_middle_in_place_and_shows_the_other_side():
    for name, axis in (("orbit_x", 0), ("orbit_y", 1)):
        for camera in ({name: {0: 0, -1: 30}}, {"speed": {name: 30}}):
            found = path(Camera.from_mapping(camera), 25, 24, SIZE)
            np.testing.assert_allclose(goes(total(camera)), 0, atol=1e-9)
            place = found.poses[-1].position_3
            assert place[axis] * (1, -1)[axis] == pytest.approx(0.5)
            assert place[2] == pytest.approx(1 - math.cos(math.radians(30)))
            assert np.linalg.norm(place - [0, 0, 1]) == pytest.approx(1)
    leant = total({"orbit_x": {0: 0, -1: 30}})
    left, right = (goes(leant, x, 47)[1] - goes(leant, x, 0)[1] for x in (0, 63))
    assert right > 0 > left  # from the right, the right side is nearer


def test_a_zoom_keeps_its_pivot():
    camera = {"zoom": {0: 1, -1: 3}, "pivot_x": 0.25, "pivot_y": 1.0}
    np.testing.assert_allclose(goes(total(camera), 15.5, 47.5), 0, atol=1e-9)
    moving = path(Camera(zoom={0: 2, -1: 2}, pivot_x={0: 0, -1: 1}), 25, 24, SIZE)
    assert not moving.moves  # a pivot that moves while nothing turns is no move


def test_steps_multiply_up_to_the_move_at_once():
    camera = Camera(zoom={0: 1, -1: 2}, speed={"roll": 30, "orbit_x": 20, "pan_x": 0.1}, x="0.05 * sin(t)")
    found = path(camera, 25, 24, SIZE)
    product = np.eye(3)
    for step in found.steps:
        product = step.matrix_33 @ product
    at_once = found.between(0, 24).matrix_33
    np.testing.assert_allclose(product / product[2, 2], at_once, atol=1e-9)
    back = found.between(24, 0).matrix_33 @ at_once
    np.testing.assert_allclose(back / back[2, 2], np.eye(3), atol=1e-9)


def test_turning_needs_no_depth_and_has_no_end():
    turning = path(Camera(depth="depth.png", speed={"yaw": 90}), 49, 6, SIZE)
    assert all(isinstance(step, PlaneStep) for step in turning.steps)
    assert not turning.wants_depth
    going = path(Camera(depth="depth.png", speed={"x": 1}), 5, 6, SIZE)
    assert isinstance(going.steps[1], SpaceStep)
    assert going.wants_depth


def test_a_still_camera_is_exactly_still():
    for camera in (Camera(), Camera(zoom=3, yaw=20, x=1), Camera(speed={"zoom": 1})):
        found = path(camera, 4, 24, SIZE)
        assert not found.moves
        assert all(np.array_equal(step.matrix_33, np.eye(3)) for step in found.steps)


def test_flying_through_the_picture_is_refused_by_frame():
    with pytest.raises(ConfigError, match="reaches the flat picture at frame 24"):
        path(Camera(z={0: 0, 24: 1}), 25, 24, SIZE)
    with pytest.raises(ConfigError, match="sees nothing of the flat picture"):
        path(Camera(yaw={0: 0, 24: 95}, x={0: 0, 24: 0.1}), 25, 24, SIZE)


def test_deforum_pictures_multiply_up_and_use_the_values_of_the_new_frame():
    camera = DeforumCamera(angle="0:(90), 1:(0)", zoom="0:(1), 2:(1.5)", translation_x=4)
    found = path(camera, 3, 24, (64, 64))
    np.testing.assert_allclose(found.steps[1].matrix_33[0, 0], 1.25)  # frame 0 is not warped, 1 is half way
    np.testing.assert_allclose(found.steps[2].matrix_33, [[1.5, 0, -10], [0, 1.5, -16], [0, 0, 1]], atol=1e-9)
    with pytest.raises(ConfigError, match=r"camera.zoom=0 at frame 1 leaves nothing"):
        path(DeforumCamera(zoom=0), 3, 24, (64, 64))


@pytest.mark.parametrize("zoom", [1.03, 0.9, 2, 0.5])
def test_a_zoom_is_as_exact_after_many_frames_as_at_first(zoom):
    """Its product over the clip is beyond what numbers hold for 2 and 0.5."""
    found = path(DeforumCamera(zoom=zoom), 1500, 24, (512, 512))
    there = [[zoom, 0, 256 * (1 - zoom)], [0, zoom, 256 * (1 - zoom)], [0, 0, 1]]
    for f in (1, 300, 1499):
        np.testing.assert_allclose(found.between(f - 1, f).matrix_33, there, rtol=0, atol=1e-12)
        back = found.between(f, f - 1).matrix_33
        np.testing.assert_allclose(back @ there, np.eye(3), rtol=0, atol=1e-12)
    assert not any(step.still for step in found.steps[1:])
    at_once = found.between(1490, 1499).matrix_33
    np.testing.assert_allclose(at_once[0], [zoom**9, 0, 256 * (1 - zoom**9)], rtol=1e-12)
    np.testing.assert_allclose(found.between(1499, 1490).matrix_33 @ at_once, np.eye(3), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "more", [{}, {"x": {0: 0, 24: 0.1}}, {"yaw": {0: 0, 24: 5}}, {"x": {0: 0, 24: 0.1}, **SCENE}]
)
def test_a_minutes_zoom_is_as_exact_as_a_moments(more):
    """Whatever else the camera did before: what the view was is no part of what it does."""
    found = path(Camera(speed={"zoom": 2}, **more), 1441, 24, (512, 512))
    growth = 2 ** (1 / 24)
    moves = [found.between(1439, 1440), found.between(1440, 1439)]
    there, back = (m.plane().matrix_33 if isinstance(m, SpaceStep) else m.matrix_33 for m in moves)
    np.testing.assert_allclose(there[0], [growth, 0, 255.5 * (1 - growth)], rtol=0, atol=1e-9)
    np.testing.assert_allclose(back @ there, np.eye(3), rtol=0, atol=1e-9)


def test_deforum_space_goes_from_frame_to_frame():
    found = path(DeforumCamera(mode="3D", translation_z=10, rotation_3d_y=2, fov=40), 3, 24, SIZE)
    step = found.steps[2]
    assert isinstance(step, DeforumStep)
    assert (step.translation, step.rotation, step.fov) == ((0, 0, 10), (0, 2, 0), 40)
    assert found.poses[2].position_3[2] == pytest.approx(0.05 + 0.05 * math.cos(math.radians(2)))
    with pytest.raises(ConfigError, match="from frame to frame only"):
        found.between(0, 2)


def test_deforums_flip_comes_before_its_flight():
    camera = DeforumCamera(
        mode="3D",
        enable_perspective_flip=True,
        perspective_flip_phi="0:(0), 2:(20)",
        border="wrap",
        padding_mode="zeros",
    )
    found = path(camera, 3, 24, SIZE)
    step = found.steps[2]
    assert isinstance(step, DeforumStep)
    np.testing.assert_array_equal(step.flip.matrix_33, deforum_flip(Perspective(phi=20), SIZE))
    assert (step.flip.edge.border, step.flip.edge.sampling, step.padding) == ("wrap", "bilinear", "zeros")
    assert found.moves
    back = found.between(2, 1)
    np.testing.assert_allclose(back.flip.matrix_33 @ step.flip.matrix_33, np.eye(3), atol=1e-12)
    off = path(DeforumCamera(mode="3D", perspective_flip_phi=20), 3, 24, SIZE)
    assert off.steps[2].flip is None
    assert not off.moves


@pytest.mark.parametrize("mode", ["2D", "3D"])
def test_a_flip_that_is_seen_from_its_edge_is_refused_by_frame(mode):
    camera = DeforumCamera(mode=mode, enable_perspective_flip=True, perspective_flip_phi="0:(0), 4:(180)")
    with pytest.raises(ConfigError, match="camera at frame 2: a perspective flip by phi 90"):
        path(camera, 5, 24, SIZE).steps  # noqa: B018
