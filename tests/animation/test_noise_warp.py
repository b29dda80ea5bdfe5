"""Noise that moves with the camera is still noise, to the statistics' limit, and moves exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kinema.animation.camera import path
from kinema.animation.noise_warp import mixed, moved_noise
from kinema.core.runtime import generator
from kinema.story.camera import Camera

SHAPE = (16, 24, 32)


def carrier(matrices):
    """Of maps from frame 0."""

    def carry(a, b, x, y):
        m = matrices[b] @ np.linalg.inv(matrices[a])
        w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
        return (
            (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / w,
            (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / w,
            w,
        )

    return carry


def moved(camera, frames=6, fps=5, shape=SHAPE, seed=0):
    found = path(Camera.from_mapping(camera), frames, fps, (shape[2], shape[1]))
    matrices = [found.between(0, f).matrix_33 for f in range(frames)]
    return moved_noise(carrier(matrices), frames, shape, lambda name: generator(seed, name))[0]


def test_a_still_camera_keeps_every_value():
    noise = moved({})
    for t in range(1, 6):
        assert torch.equal(noise[:, t], noise[:, 0])


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, -2), (-5, 4)])
def test_whole_shifts_are_exact(x, y):
    """A camera that goes right and up by whole pixels: the noise goes left and down, value by value."""
    noise = moved({"unit": "pixel", "speed": {"per": "frame", "pan_x": x, "pan_y": y}}, frames=4)
    for t in range(1, 4):
        back = noise[:, t].roll((-t * y, t * x), (1, 2))  # where it came from
        rows = slice(max(-t * y, 0), 24 + min(-t * y, 0))
        columns = slice(max(t * x, 0), 32 + min(t * x, 0))
        assert torch.equal(back[:, rows, columns], noise[:, 0, rows, columns])


def test_what_leaves_and_comes_back_is_the_same():
    there_and_back = {"unit": "pixel", "pan_x": {0: 0, 2: 9, 4: 0}, "pan_y": {0: 0, 2: 7, 4: 0}}
    noise = moved(there_and_back, frames=5)
    assert torch.equal(noise[:, 4], noise[:, 0])
    assert not torch.equal(noise[:, 2], noise[:, 0])


PATHS = [
    {"speed": {"pan_x": 0.31, "pan_y": 0.17}},
    {"speed": {"zoom": 3.1}},
    {"speed": {"zoom": 0.3}},
    {"speed": {"roll": 77, "zoom": 1.3}},
    {"orbit_x": {0: 0, -1: 40}, "orbit_y": {0: 0, -1: -25}},
    {"zoom": {0: 1, -1: 40}},
]


@pytest.mark.parametrize("camera", PATHS)
def test_it_stays_white(camera):
    """Mean, variance, kurtosis, and the correlation with every neighbour, within four standard errors."""
    noise = torch.stack([moved(camera, seed=s)[:, -1] for s in range(4)]).double()
    n = noise.numel()
    assert abs(noise.mean()) < 4 / math.sqrt(n)
    assert abs(noise.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((noise**4).mean() - 3) < 4 * math.sqrt(96 / n)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0)):
        beside = noise.roll((dy, dx), (2, 3))
        assert abs((noise * beside).mean()) < 4 / math.sqrt(n), (dy, dx)
    assert abs((noise[:, :-1] * noise[:, 1:]).mean()) < 4 / math.sqrt(n)


def test_every_pixel_is_white_over_seeds():
    """Not only on the average over a frame: at each pixel, whatever number of cells it took."""
    camera = {"speed": {"zoom": 2, "roll": 30, "pan_x": 0.2}}
    noise = torch.stack([moved(camera, shape=(64, 6, 8), seed=s)[:, -1] for s in range(24)]).flatten(0, 1)
    variance = noise.var(dim=0)
    assert (variance - 1).abs().max() < 5 * math.sqrt(2 / len(noise))
    flat = noise.flatten(1)
    covariance = flat.T @ flat / len(flat) - torch.eye(48)
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 5 / math.sqrt(len(flat))


@pytest.mark.parametrize(
    ("camera", "least"),
    [
        ({"unit": "pixel", "speed": {"per": "frame", "pan_x": 0.5}}, 0.45),
        ({"speed": {"per": "frame", "zoom": 1.05}}, 0.45),
        ({"zoom": {0: 1, -1: 20}}, 0.15),
    ],
)
def test_neighbouring_frames_share_their_noise(camera, least):
    """Read back where the camera saw them, values of one frame predict those of the next."""
    frames = 6
    found = path(Camera.from_mapping(camera), frames, 5, (32, 24))
    noise = moved(camera)
    for t in range(1, frames):
        m = found.between(t - 1, t).matrix_33
        y, x = np.mgrid[0:24, 0:32]
        to_x, to_y = (np.rint(m[i, i] * v + m[i, 2]).astype(int) for i, v in ((0, x), (1, y)))
        seen = (to_x >= 0) & (to_x < 32) & (to_y >= 0) & (to_y < 24)
        before = noise[:, t - 1][:, torch.from_numpy(seen)]
        after = noise[:, t][:, torch.from_numpy(to_y[seen]), torch.from_numpy(to_x[seen])]
        correlation = (before * after).mean() / (before.std() * after.std())
        assert correlation > least


def test_longer_clips_begin_like_shorter_ones():
    camera = {"speed": {"pan_x": 0.4, "zoom": 1.5}}
    assert torch.equal(moved(camera, frames=9)[:, :5], moved(camera, frames=5))


def test_what_is_hidden_does_not_shine_through():
    """Two surfaces land on one pixel: only the nearer one's cells count, and the result is white."""

    def carry(a, b, x, y):
        z = torch.ones_like(x)
        if (a, b) == (0, 1):
            far = x >= 16
            return torch.where(far, x - 16, x), y, torch.where(far, 2.0, 1.0).double()
        return x, y, z

    noise = moved_noise(carry, 2, SHAPE, lambda name: generator(1, name))[0]
    assert torch.equal(noise[:, 1, :, :16], noise[:, 0, :, :16])
    assert abs(noise[:, 1, :, 16:].var() - 1) < 0.1  # nothing landed there but what is beyond the frame


def test_a_share_of_the_noise_moves():
    a, b = torch.randn(2, 1, 4, 3, 50, 50, generator=torch.Generator().manual_seed(0))
    both = mixed(a, b, 0.36)
    assert both.var() == pytest.approx(1, abs=0.02)
    assert (both * a).mean() == pytest.approx(0.6, abs=0.02)
    assert torch.equal(mixed(a, b, 0.0), b)
    assert torch.equal(mixed(a, b, 1.0), a)
