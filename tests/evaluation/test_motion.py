"""Paths, amounts and flicker of clips whose motion is known."""

from __future__ import annotations

import pytest
import torch

from kinema.evaluation.motion import LEAST_TRAVEL, amounts, centroids, directions, flicker, travel

SIZE, FRAMES = 48, 9


def block(starts, ends, side=12):
    """A white block on black whose upper left corner goes in a straight line; parts outside are cut off."""
    clip = -torch.ones(1, 3, FRAMES, SIZE, SIZE)
    for frame in range(FRAMES):
        y, x = (round(a + (b - a) * frame / (FRAMES - 1)) for a, b in zip(starts, ends, strict=True))
        clip[..., frame, max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = 1
    return clip


def test_centroid_and_area_of_a_block():
    coverage = torch.zeros(1, 1, SIZE, SIZE)
    coverage[..., 6:18, 24:36] = 1
    centre, area = centroids(coverage)
    assert centre[0, 0].tolist() == pytest.approx([2 * 30 / SIZE - 1, 2 * 12 / SIZE - 1])
    assert float(area) == pytest.approx((12 / SIZE) ** 2)


@pytest.mark.parametrize(
    ("starts", "ends", "named"),
    [
        ((18, 2), (18, 34), "right"),
        ((18, 34), (18, 2), "left"),
        ((34, 18), (2, 18), "up"),
        ((2, 18), (34, 18), "down"),
        ((18, 18), (18, 22), "none"),
        ((20, 4), (12, 34), "right"),
    ],
)
def test_direction_of_the_longer_axis(starts, ends, named):
    assert directions(block(starts, ends)) == [named]


def test_travel_is_the_distance_between_first_and_last_centre():
    dx, dy = travel(block((18, 4), (18, 34)))[0].tolist()
    assert dx == pytest.approx(2 * 30 / SIZE, abs=0.02)
    assert dy == pytest.approx(0, abs=1e-5)


def test_frames_in_which_nobody_is_left_do_not_count():
    """A block that enters from outside still reads as a crossing, though early frames are empty."""
    assert directions(block((18, -20), (18, 30))) == ["right"]


def test_nothing_at_all_stays():
    assert directions(torch.zeros(2, 3, FRAMES, SIZE, SIZE)) == ["none", "none"]
    assert float(travel(torch.zeros(1, 3, FRAMES, SIZE, SIZE)).abs().max()) < LEAST_TRAVEL


def test_amount_is_the_mean_change_of_a_pixel():
    clip = torch.zeros(1, 3, 3, 4, 4)
    clip[:, :, 1] = 0.5
    assert float(amounts(clip)) == pytest.approx(0.25)  # half the range of 0.5, there and back
    assert float(amounts(torch.ones(1, 3, 5, 4, 4))) == 0


def test_flicker_sees_the_background_and_not_the_sprite():
    moving = block((18, 2), (18, 34))
    assert float(amounts(moving)) > 0.01
    assert float(flicker(moving)) == 0
    trembling = moving.clone()
    trembling[:, :, ::2, 40:] += 0.5  # the two lower corners alone could be a sprite that passes
    assert float(flicker(trembling)) == 0
    trembling[:, :, ::2, :8, :8] += 0.5
    assert float(flicker(trembling)) == pytest.approx(0.25)
