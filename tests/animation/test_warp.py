"""Warps on scenes whose answer is known: identity to the bit, whole shifts, planes, things before things."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kinema.animation.camera import path
from kinema.animation.holes import fill
from kinema.animation.matrices import (
    Perspective,
    deforum_flip,
    lens,
    matrix_2d,
    rotation_x,
    rotation_y,
    rotation_z,
    shift,
)
from kinema.animation.sampling import pixel_grid, read_at
from kinema.animation.steps import DeforumStep, Edge, PlaneStep, SpaceStep
from kinema.animation.warp import warp_frame
from kinema.animation.warp2d import flow
from kinema.animation.warp3d import deforum_z
from kinema.core.errors import ConfigError
from kinema.story.camera import Camera

SIZE = (48, 32)
NEAREST, LINEAR = Edge(sampling="nearest"), Edge(sampling="bilinear")


def noise(size=SIZE, seed=0, channels=3) -> torch.Tensor:
    return torch.rand(1, channels, size[1], size[0], generator=torch.Generator().manual_seed(seed))


def smooth(size=SIZE, seed=0) -> torch.Tensor:
    coarse = noise((7, 6), seed)
    return F.interpolate(coarse.double(), size[::-1], mode="bicubic", align_corners=True)


def wave(x, y) -> torch.Tensor:
    """A picture that is known everywhere, as `[1, 3, H, W]`."""
    return torch.stack(
        [torch.sin(x / 5) + torch.cos(y / 7), torch.sin((x + y) / 9), torch.cos(x / 6 - y / 8)], 1
    )


def plane(matrix, border="replicate", sampling="bicubic", size=SIZE, colour=(0.0, 0.0, 0.0)) -> PlaneStep:
    return PlaneStep(np.asarray(matrix, float), size, Edge(border, colour, sampling))


# Flat


@pytest.mark.parametrize("border", ["replicate", "reflect", "wrap", "colour"])
@pytest.mark.parametrize("sampling", ["nearest", "bilinear", "bicubic"])
def test_a_picture_read_where_it_is_comes_back_to_the_last_bit(border, sampling):
    frame = noise()
    x, y = pixel_grid(SIZE, torch.device("cpu"), torch.float64)
    assert torch.equal(read_at(frame, x, y, Edge(border, sampling=sampling)), frame)
    warped, holes = warp_frame(frame, plane(np.eye(3), border, sampling))
    assert torch.equal(warped, frame)
    assert not holes.any()


@pytest.mark.parametrize("sampling", ["nearest", "bilinear", "bicubic"])
def test_whole_shifts_are_exact_and_borders_are_what_they_say(sampling):
    frame = noise()
    step = {
        b: plane(shift(3, -2), b, sampling, colour=(1, 0.5, 0))
        for b in ("replicate", "reflect", "wrap", "colour")
    }
    moved = {b: warp_frame(frame, s)[0] for b, s in step.items()}
    for found in moved.values():
        assert torch.equal(found[..., :-2, 3:], frame[..., 2:, :-3])
    assert torch.equal(moved["wrap"], frame.roll((-2, 3), (2, 3)))
    assert torch.equal(moved["replicate"][..., :-2, :3], frame[..., 2:, :1].expand(-1, -1, -1, 3))
    assert torch.equal(moved["reflect"][..., :-2, :3], frame[..., 2:, 1:4].flip(3))
    assert torch.equal(moved["colour"][0, :, 0, 0], torch.tensor([1, 0.5, 0]))
    holes = warp_frame(frame, step["wrap"])[1]
    assert holes[..., :3].all()
    assert holes[..., -2:, :].all()
    assert holes.sum() == 48 * 32 - 45 * 30


def test_a_quarter_turn_is_exact():
    frame = noise((32, 32))
    step = plane(np.round(matrix_2d(90, 1, 0, 0, (0.5, 0.5), (32, 32)), 12), size=(32, 32))
    warped, holes = warp_frame(frame, step)
    assert torch.equal(warped, torch.rot90(frame, 1, (2, 3)))
    assert not holes.any()


@pytest.mark.parametrize(("sampling", "most"), [("bilinear", 0.02), ("bicubic", 0.004)])
def test_a_homography_moves_a_known_picture_where_it_should(sampling, most):
    matrix = matrix_2d(12, 1.1, 2.3, -1.7, (0.4, 0.6), SIZE, perspective=(0, 15, -10, 60))
    x, y = pixel_grid(SIZE, torch.device("cpu"), torch.float64)
    warped, holes = warp_frame(wave(x, y), plane(matrix, sampling=sampling))
    back = np.linalg.inv(matrix)
    w = back[2, 0] * x + back[2, 1] * y + back[2, 2]
    from_x, from_y = ((row[0] * x + row[1] * y + row[2]) / w for row in back[:2])
    truth = wave(from_x, from_y)
    seen = ((from_x > 1) & (from_x < 46) & (from_y > 1) & (from_y < 30))[:, None]  # with all its neighbours
    assert not (seen & holes).any()
    assert seen.float().mean() > 0.4
    assert ((warped - truth).abs() * seen).max() < most


def test_catmull_rom_keeps_slopes_and_parabolas():
    x, y = pixel_grid(SIZE, torch.device("cpu"), torch.float64)
    at_x, at_y = x[:, 8:-8, 8:-8] + 0.3, y[:, 8:-8, 8:-8] - 0.45
    bent = (2 * x - 3 * y + 0.1 * x * x)[:, None]
    found = read_at(bent, at_x, at_y, Edge())[:, 0]
    torch.testing.assert_close(found, 2 * at_x - 3 * at_y + 0.1 * at_x**2)


def test_many_small_zooms_stay_sharp_and_in_place():
    frame = smooth((64, 64))
    each = plane(matrix_2d(0, 1.01, 0, 0, (0.5, 0.5), (64, 64)), size=(64, 64))
    at_once = plane(matrix_2d(0, 1.01**30, 0, 0, (0.5, 0.5), (64, 64)), size=(64, 64))
    warped = frame
    for _ in range(30):
        warped = warp_frame(warped, each)[0]
    assert (warped - warp_frame(frame, at_once)[0])[..., 8:-8, 8:-8].abs().max() < 0.02


def test_gradients_reach_the_frame():
    frame = smooth((5, 4)).requires_grad_()
    step = plane(matrix_2d(5, 1.1, 1, 0, (0.5, 0.5), (5, 4)), size=(5, 4))
    assert torch.autograd.gradcheck(lambda f: warp_frame(f, step)[0], (frame,), fast_mode=True)
    fly = space(rotation_y(2), (0.02, 0, 0), (5, 4))
    depth = torch.ones(1, 1, 4, 5)
    assert torch.autograd.gradcheck(lambda f: warp_frame(f, fly, depth)[0], (frame,), fast_mode=True)


def test_a_step_made_for_one_size_serves_another():
    step = plane(matrix_2d(10, 1.2, 4, 2, (0.5, 0.5), SIZE))
    x, y = pixel_grid((96, 64), torch.device("cpu"), torch.float64)
    large = warp_frame(wave(x, y), step)[0]
    small_x, small_y = pixel_grid(SIZE, torch.device("cpu"), torch.float64)
    small = warp_frame(wave(2 * small_x + 0.5, 2 * small_y + 0.5), step)[0]
    assert (F.avg_pool2d(large, 2) - small)[..., 8:-8, 8:-8].abs().max() < 0.05


def test_what_is_behind_the_camera_is_a_hole():
    turned = path(Camera(yaw={0: 0, 1: 80}, fov=90), 2, 24, SIZE).steps[1]
    warped, holes = warp_frame(noise(), turned)
    assert torch.isfinite(warped).all()
    assert holes[..., 24:].all()  # what is now on the right was out of sight


def test_a_map_to_nothing_is_refused():
    with pytest.raises(ConfigError, match="leaves nothing"):
        warp_frame(noise(), plane(np.diag([0, 0, 1])))


# In space


def space(turn=None, move=(0, 0, 0), size=SIZE, fov=50, to=None) -> SpaceStep:
    turn = np.eye(3) if turn is None else turn
    return SpaceStep(lens(fov, size), lens(to or fov, size), turn, np.array(move, float), size)


MOVES = [
    space(move=(0.1, 0, 0)),
    space(move=(-0.05, 0.08, -0.3)),
    space(move=(0, 0, 0.25)),
    space(rotation_y(6) @ rotation_x(-4) @ rotation_z(9), (0.04, -0.06, 0.1)),
    space(rotation_z(30), fov=90, to=70),
]


@pytest.mark.parametrize("distance", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("step", MOVES)
def test_a_plane_at_a_known_distance_moves_by_its_homography(step, distance):
    x, y = pixel_grid(SIZE, torch.device("cpu"), torch.float64)
    depth = torch.full((1, 1, *SIZE[::-1]), distance)
    found, holes = warp_frame(wave(x, y), step, depth)
    exact, exact_holes = warp_frame(wave(x, y), step.plane(distance))
    inner = ~F.max_pool2d(exact_holes.double(), 3, 1, 1).bool()
    assert not (holes & inner).any()  # no cracks
    assert inner.float().mean() > 0.3
    assert ((found - exact).abs() * inner).max() < 1e-6
    assert not (~holes & exact_holes & ~F.max_pool2d((~exact_holes).double(), 3, 1, 1).bool()).any()


def test_a_sideways_move_gives_the_flow_of_stereo():
    """Pixels move by focal * shift / distance, and by nothing else."""
    step = space(move=(-0.1, 0, 0))
    there = flow(step.plane(2.0).matrix_33, SIZE)
    focal = 32 / (2 * math.tan(math.radians(25)))
    torch.testing.assert_close(there[:, 0], torch.full_like(there[:, 0], -focal * 0.1 / 2))
    torch.testing.assert_close(there[:, 1], torch.zeros_like(there[:, 1]))


def test_a_slanted_plane_moves_exactly():
    """1/d is straight across the picture of a plane: n . X = 1."""
    step = space(rotation_y(5), (0.05, -0.03, -0.15))
    normal = np.array([0.3, -0.2, 1.0])
    x, y = pixel_grid(SIZE, torch.device("cpu"), torch.float64)
    slope = normal @ np.linalg.inv(step.source_33)
    depth = 1 / (slope[0] * x + slope[1] * y + slope[2])[:, None]
    truth = (
        step.target_33
        @ (step.rotation_33 + np.outer(step.translation_3, normal))
        @ np.linalg.inv(step.source_33)
    )
    found, holes = warp_frame(wave(x, y), step, depth)
    exact, exact_holes = warp_frame(wave(x, y), plane(truth))
    inner = ~F.max_pool2d(exact_holes.double(), 5, 1, 2).bool() & ~holes
    assert inner.float().mean() > 0.7
    assert ((found - exact).abs() * inner).max() < 1e-4


def two_layers(near=0.5, far=2.0):
    """A square in front of a background, known everywhere."""
    x, y = pixel_grid(SIZE, torch.device("cpu"), torch.float64)
    front = (x >= 16) & (x < 28) & (y >= 8) & (y < 22)
    depth = torch.where(front, near, far)[:, None].double()
    return torch.where(front[:, None], torch.ones(1, 3, 1, 1).double(), 0.2 + 0 * wave(x, y)), depth, front


def test_near_things_hide_far_ones_and_leave_holes_behind_them():
    picture, depth, front = two_layers()
    focal = lens(50, SIZE)[0, 0]
    step = space(move=(4 * 0.5 / focal, 0, 0))  # the square goes 4 pixels right, the background 1
    warped, holes = warp_frame(picture, step, depth)
    square = front.roll(4, 2)
    assert (warped[:, :, square[0]] - 1).abs().max() < 1e-9  # nothing shines through
    expected = torch.zeros_like(holes)
    expected[..., 0] = True  # came into view
    expected[0, 0, 8:22, 17:20] = True  # was behind the square: 16 + 1 to 16 + 4
    assert torch.equal(holes, expected)
    torch.testing.assert_close(
        warped[..., 8:22, 17:20], torch.full((1, 3, 14, 3), 0.2).double(), atol=0.05, rtol=0
    )


def test_holes_take_the_borders_colour_when_asked():
    picture, depth, _ = two_layers()
    step = replace(space(move=(0.05, 0, 0)), edge=Edge("colour", (0, 1, 0)))
    warped, holes = warp_frame(picture, step, depth)
    assert holes.any()
    assert (warped[:, 1:2][holes] == 1).all()
    assert (warped[:, :1][holes] == 0).all()


def test_flying_in_leaves_no_cracks():
    step = space(move=(0, 0, -0.6))  # the picture grows by 2.5
    _, holes = warp_frame(noise(), step, torch.ones(1, 1, *SIZE[::-1]))
    assert not holes.any()


def test_no_move_with_depth_is_the_identity_to_the_bit():
    picture, depth, _ = two_layers()
    warped, holes = warp_frame(picture, space(), depth)
    assert torch.equal(warped, picture)
    assert not holes.any()


def test_depth_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"needs \[1, 1, 32, 48\]"):
        warp_frame(noise(), MOVES[0], torch.ones(1, 1, 8, 8))
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="not positive"):
            warp_frame(noise(), MOVES[0], torch.full((1, 1, 32, 48), bad))


def test_without_depth_a_space_step_is_flat():
    frame = noise()
    assert torch.equal(warp_frame(frame, MOVES[3])[0], warp_frame(frame, MOVES[3].plane())[0])


# Holes


def test_the_filler_keeps_what_is_known_and_continues_what_is_behind():
    picture, depth, _ = two_layers()
    holes = torch.zeros(1, 1, 32, 48, dtype=torch.bool)
    holes[..., 10:20, 28:31] = True  # between the near square (1.0) and the far background (0.2)
    filled = fill(picture, holes, depth)
    assert torch.equal(torch.where(holes, 0, filled), torch.where(holes, 0, picture))
    assert filled[:, :1][holes].max() < 0.3
    assert fill(picture, holes)[:, :1][holes].max() > 0.5  # without distances both sides mix
    everywhere = torch.ones_like(holes)
    assert torch.equal(fill(picture, everywhere), picture)


# Deforum's


# Measured on sd-webui-deforum 3224268: x, y, z, rotations, fov, size, marker in, centroid out.
FLIGHTS = [
    ((0, 0, 0), (0, 0, 0), 70, (128, 128), (80, 50), (80.0, 50.0)),
    ((0, 10, 0), (0, 0, 0), 70, (128, 128), (80, 50), (80.0, 54.569)),
    ((0, 0, 1.75), (0, 0, 0), 70, (128, 128), (80, 50), (80.2123, 49.8264)),
    ((0, 0, 0), (0, 0, 5), 70, (128, 128), (80, 50), (78.0084, 48.2544)),
    ((0, 0, 10), (0, 0, 0), 120, (128, 128), (80, 50), (80.5208, 49.573)),
    ((4, -6, 8), (2, -3, 1.5), 70, (128, 128), (80, 50), (84.2046, 48.3877)),
    ((10, 0, 0), (0, 0, 0), 70, (192, 128), (120, 50), (113.15, 50.0)),
]


@pytest.mark.parametrize(("move", "turn", "fov", "size", "marker", "measured"), FLIGHTS)
def test_deforum_flights_land_where_they_were_measured(move, turn, fov, size, marker, measured):
    x, y = pixel_grid(size, torch.device("cpu"), torch.float64)
    blob = torch.exp(-((x - marker[0]) ** 2 + (y - marker[1]) ** 2) / (2 * 2.5**2))[:, None]
    warped, _ = warp_frame(blob, DeforumStep(turn, move, fov, sampling="bilinear", size=size))
    centre = [float((warped[:, 0] * axis).sum() / warped.sum()) for axis in (x, y)]
    assert centre == pytest.approx(measured, abs=0.02)


def test_deforum_distance_divides_the_shift_and_equalises():
    size = (64, 64)
    step = DeforumStep((0, 0, 0), (10, 0, 0), 70, sampling="bilinear", size=size)
    x, _ = pixel_grid(size, torch.device("cpu"), torch.float64)
    shifts = []
    for z in (1.0, 2.0):
        warped, _ = warp_frame(x[:, None], step, torch.full((1, 1, 64, 64), z).double())
        shifts.append(float(warped[0, 0, 32, 32] - 32))
    assert shifts[0] == pytest.approx(0.05 / math.tan(math.radians(35)) * 32, abs=1e-6)
    assert shifts[1] == pytest.approx(shifts[0] / 2, abs=1e-6)


def deforum_equalised(depth):
    """sd-webui-deforum 3224268's rule, in numpy as there."""
    depth = (depth - depth.min()) / (depth.max() - depth.min())
    hist, edges = np.histogram(depth, bins=1024, range=(0, 1))
    cdf = hist.cumsum() / depth.size
    return np.interp(depth, edges[:-1], cdf)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [0.3, 1, 3])
def test_deforum_distances_are_evened_out_by_its_histogram(dtype, power):
    depth = 7 + 3 * torch.rand(1, 1, 60, 64, generator=torch.Generator().manual_seed(0), dtype=dtype) ** power
    expected = torch.from_numpy(deforum_equalised(depth.numpy()))
    torch.testing.assert_close(deforum_z(depth), (1 + expected).to(dtype), atol=1e-6, rtol=0)
    disparity = deforum_z(depth, far_is_large=False)
    torch.testing.assert_close(disparity, (2 - expected).to(dtype), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("near", "z"), [(50, (1.5, 2.0)), (90, (1.9, 2.0)), (10, (1.1, 2.0))])
def test_deforum_gives_the_nearest_its_own_share(near, z):
    depth = torch.cat([torch.full((near,), 2.0), torch.full((100 - near,), 5.0)]).reshape(1, 1, 10, 10)
    found = deforum_z(depth).flatten()
    assert found[[0, -1]].tolist() == pytest.approx(z)
    turned = deforum_z(1 / depth, far_is_large=False).flatten()  # the far are the smallest there
    assert turned[[0, -1]].tolist() == pytest.approx((1.0, 1 + near / 100))
    assert torch.equal(deforum_z(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))
    assert torch.equal(deforum_z(torch.tensor([[[[1.0, torch.nan]]]])), torch.ones(1, 1, 1, 2))


def test_deforum_flips_the_picture_and_then_flies_by_the_depth_before():
    """The depth is not flipped: each place of the flipped picture goes by what was there before."""
    size, generator = (48, 32), torch.Generator().manual_seed(0)
    frame, depth = (torch.rand(1, n, 32, 48, generator=generator) for n in (3, 1))
    flip = PlaneStep(
        deforum_flip(Perspective(phi=20, gamma=-5), size), size, Edge("wrap", sampling="bilinear")
    )
    step = DeforumStep((1, 2, 3), (10, -4, 6), padding="zeros", size=size)
    warped, holes = warp_frame(frame, replace(step, flip=flip), 1 + depth)
    flipped, empty = warp_frame(frame, flip)
    expected, uncovered = warp_frame(flipped, step, 1 + depth)
    assert torch.equal(warped, expected)
    carried, _ = warp_frame(empty.float(), replace(step, sampling="bilinear"), 1 + depth)
    assert torch.equal(holes, uncovered | (carried > 0.5))
    assert empty.any()
    still = replace(step, rotation=(0, 0, 0), translation=(0, 0, 0), flip=flip)
    assert not still.still
    assert torch.equal(warp_frame(frame, still)[0], flipped)
