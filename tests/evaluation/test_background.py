"""Colours in Oklab, names of backgrounds, and coverage."""

from __future__ import annotations

import pytest
import torch

from kinema.evaluation.background import (
    coverage,
    flat_colours,
    ground,
    matches,
    nearest_names,
    oklab,
    side_colours,
)
from kinema.training.scenes import COLOURS, Background

SIZE = 40


def flat(*rgb, frames=2):
    return torch.tensor(rgb).view(1, 3, 1, 1, 1).expand(1, 3, frames, SIZE, SIZE).clone() * 2 - 1


def gradient(first, last, axis):
    ramp = torch.linspace(0, 1, SIZE)
    blend = ramp[:, None].expand(SIZE, SIZE) if axis == "vertical" else ramp[None].expand(SIZE, SIZE)
    colours = torch.lerp(torch.tensor(first)[:, None, None], torch.tensor(last)[:, None, None], blend)
    return colours.view(1, 3, 1, SIZE, SIZE) * 2 - 1


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (0.62796, 0.22486, 0.12585)),
        ((0.0, 1.0, 0.0), (0.86644, -0.23389, 0.17950)),
        ((0.0, 0.0, 1.0), (0.45201, -0.03246, -0.31153)),
    ],
)
def test_oklab_of_the_primaries(rgb, lab):
    """Values of the CSS Color 4 sample code."""
    torch.testing.assert_close(oklab(torch.tensor(rgb)), torch.tensor(lab), atol=2e-4, rtol=0)


def test_every_named_colour_is_nearest_to_itself_whatever_the_jitter():
    generator = torch.Generator().manual_seed(0)
    for name, rgb in COLOURS.items():
        near = torch.tensor(rgb) + 0.03 * (2 * torch.rand(50, 3, generator=generator) - 1)
        assert nearest_names(oklab(near.clamp(0, 1))) == [name] * 50


def test_a_sprite_in_the_middle_does_not_tint_the_background():
    frames = flat(*COLOURS["green"])
    frames[..., 4:-4, 4:-4] = 1.0
    torch.testing.assert_close(flat_colours(frames)[0], torch.tensor(COLOURS["green"]))
    assert matches(frames, [Background("flat", ("green",), ())]).tolist() == [True]
    assert matches(frames, [Background("flat", ("cyan",), ())]).tolist() == [False]


@pytest.mark.parametrize("axis", ["vertical", "horizontal"])
def test_a_gradient_has_both_its_names_in_order(axis):
    frames = gradient(COLOURS["red"], COLOURS["blue"], axis)
    other = "horizontal" if axis == "vertical" else "vertical"
    assert matches(frames, [Background(axis, ("red", "blue"), ())]).tolist() == [True]
    assert matches(frames, [Background(axis, ("blue", "red"), ())]).tolist() == [False]
    assert matches(frames, [Background(other, ("red", "blue"), ())]).tolist() == [False]
    ends = ("top", "bottom") if axis == "vertical" else ("left", "right")
    sides = side_colours(frames)
    torch.testing.assert_close(sides[ends[0]][0], torch.tensor(COLOURS["red"]), atol=0.06, rtol=0)
    torch.testing.assert_close(sides[ends[1]][0], torch.tensor(COLOURS["blue"]), atol=0.06, rtol=0)


@pytest.mark.parametrize("axis", ["vertical", "horizontal"])
def test_ground_continues_a_gradient_under_the_sprite(axis):
    frames = gradient(COLOURS["yellow"], COLOURS["purple"], axis)
    covered = frames.clone()
    covered[..., 8:-8, 8:-8] = -1.0
    torch.testing.assert_close(ground(covered), (frames[:, :, 0] + 1) / 2, atol=0.06, rtol=0)


def test_coverage_is_the_sprite_and_nothing_else():
    frames = flat(*COLOURS["cyan"])
    frames[..., 10:20, 12:30] = torch.tensor(COLOURS["red"]).view(1, 3, 1, 1, 1) * 2 - 1
    expected = torch.zeros(1, 2, SIZE, SIZE)
    expected[..., 10:20, 12:30] = 1
    torch.testing.assert_close(coverage(frames), expected)
    assert float(coverage(flat(0.2, 0.4, 0.6)).max()) == 0
