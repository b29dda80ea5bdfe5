"""Distances: the formulas, one scale for a shot, and surfaces that are carried along."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinema.animation.depth import (
    EstimatedDepth,
    FlatDepth,
    GivenDepth,
    Preparation,
    carry_depth,
    distances,
)
from kinema.animation.matrices import lens, rotation_y
from kinema.animation.steps import SpaceStep
from kinema.core.errors import ModelError

SIZE = (24, 16)
FRAME = torch.zeros(1, 3, 16, 24)


def test_values_are_distances_as_their_meaning_says():
    values = torch.tensor([0.0, 0.5, 1.0, 7.0])
    torch.testing.assert_close(distances(values, "disparity", 0.5, 2.0), torch.tensor([2.0, 0.8, 0.5, 0.5]))
    torch.testing.assert_close(distances(values, "distance", 0.5, 2.0), torch.tensor([0.5, 1.25, 2.0, 2.0]))


def test_flat_is_at_one():
    assert torch.equal(FlatDepth()(FRAME, 3), torch.ones(1, 1, 16, 24))


def test_given_values_take_the_frames_size_along_planes():
    """Where 1/d is straight, it stays straight at any size."""
    small = torch.linspace(0, 1, 12).expand(8, 12)
    found = GivenDepth(lambda i: small, 0.5, 2.0)(FRAME, 0)
    assert found.shape == (1, 1, 16, 24)
    inner = (1 / found)[0, 0, 8, 2:-2]
    assert inner.diff().std() < 1e-5 * inner.diff().mean()


def network(scale, shift):
    return lambda pixels: shift + scale * torch.linspace(0, 1, 100).reshape(1, 10, 10)


def test_a_network_keeps_one_scale_for_a_shot():
    source = EstimatedDepth(network(5, 3), Preparation(size=(8, 8)), "disparity", 0.5, 2.0)
    first = source(FRAME, 0)
    assert first.min() == pytest.approx(0.5, rel=1e-3)
    assert first.max() == pytest.approx(2.0, rel=1e-3)
    assert source.state == pytest.approx((3.1, 7.9, 0))
    source.network = network(5, 4)  # everything nearer: not scaled away again
    second = source(FRAME, 1)
    assert second.mean() < first.mean() - 0.05
    assert source.state == pytest.approx((3.15, 7.95, 1))
    again = EstimatedDepth(source.network, source.preparation, "disparity", 0.5, 2.0, state=(3.1, 7.9, 0))
    torch.testing.assert_close(again(FRAME, 1), second)
    earlier = EstimatedDepth(source.network, source.preparation, "disparity", 0.5, 2.0, state=(3.1, 7.9))
    torch.testing.assert_close(earlier(FRAME, 1), second)


def test_metric_distances_keep_the_first_frames_unit():
    source = EstimatedDepth(network(4, 2), Preparation(size=(8, 8)), "distance", 0.5, 2.0)
    assert source(FRAME, 0).median() == pytest.approx(1, abs=0.02)
    source.network = network(4, 4)
    assert source(FRAME, 1).median() == pytest.approx(6 / 4, abs=0.03)


def test_a_wall_is_flat_and_nonsense_is_refused():
    wall = EstimatedDepth(network(0, 3), Preparation(size=(8, 8)), "disparity", 0.5, 2.0)
    assert torch.equal(wall(FRAME, 0), torch.ones(1, 1, 16, 24))
    broken = EstimatedDepth(network(float("nan"), 0), Preparation(size=(8, 8)), "disparity", 0.5, 2.0)
    with pytest.raises(ModelError, match="not finite at frame 4"):
        broken(FRAME, 4)


DEPTH_ANYTHING = {
    "size": {"height": 518, "width": 518}, "keep_aspect_ratio": True, "ensure_multiple_of": 14
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "height", "width", "sides"),
    [
        # what transformers' DPTImageProcessor gives for these
        (DEPTH_ANYTHING, 480, 640, (518, 686)),
        (DEPTH_ANYTHING, 64, 64, (518, 518)),
        ({"size": {"height": 384, "width": 384}}, 480, 640, (384, 384)),
        ({"image_processor_type": "GLPNImageProcessor", "size_divisor": 32}, 70, 101, (64, 96)),
        ({"feature_extractor_type": "GLPNFeatureExtractor", "size_divisor": 16}, 70, 9, (64, 16)),
        ({"size": 32, "ensure_multiple_of": 16, "keep_aspect_ratio": True}, 100, 40, (80, 32)),
    ],
)
def test_frames_are_brought_to_the_networks_size(config, height, width, sides):
    preparation = Preparation.from_dict(config)
    assert preparation.sides(height, width) == sides
    assert preparation(torch.rand(1, 3, height, width)).shape[-2:] == sides


def test_pixels_are_normalised():
    preparation = Preparation.from_dict(
        {"size": 8, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 1]}
    )
    white = preparation(torch.ones(1, 3, 8, 8))
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([1.0, 2.0, 0.5]))


@pytest.mark.parametrize(
    ("config", "black"),
    [
        ({}, -1),
        ({"do_normalize": True}, -1),
        ({"do_normalize": False, "image_mean": [0.5, 0.5, 0.5]}, 0),
        ({"image_processor_type": "GLPNImageProcessor"}, 0),
        ({"image_processor_type": "GLPNImageProcessor", "do_normalize": True}, -1),
    ],
)
def test_what_is_not_said_about_pixels_is_as_in_transformers(config, black):
    preparation = Preparation.from_dict({"size": 8, **config})
    assert bool((preparation(torch.ones(1, 3, 8, 8)) == 1).all())
    assert bool((preparation(torch.zeros(1, 3, 8, 8)) == black).all())


def test_surfaces_keep_their_place_when_the_camera_moves():
    forward = SpaceStep(lens(50, SIZE), lens(50, SIZE), np.eye(3), np.array([0, 0, -0.3]), SIZE)
    found = carry_depth(torch.full((1, 1, 16, 24), 1.5), forward)
    torch.testing.assert_close(found, torch.full((1, 1, 16, 24), 1.2))
    turn = SpaceStep(lens(50, SIZE), lens(50, SIZE), rotation_y(-10), np.zeros(3), SIZE)
    there = carry_depth(torch.ones(1, 1, 16, 24), turn)
    assert there[..., 12].mean() == pytest.approx(1 / np.cos(np.radians(10)), abs=0.03)
    assert bool((there > 0).all())
