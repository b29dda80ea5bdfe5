"""Spherical interpolation: ends to the bit, lengths kept, every vector its own way."""

from __future__ import annotations

import math

import pytest
import torch

from kinema.diffusion.slerp import slerp


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_ends_are_the_vectors_themselves():
    a, b = noise(0, 4, 5), noise(1, 4, 5)
    assert torch.equal(slerp(a, b, 0.0, dims=(0, 1)), a)
    assert torch.equal(slerp(a, b, 1.0, dims=(0, 1)), b)


def test_a_right_angle_is_cut_where_it_should_be():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    angle = math.pi / 6
    assert slerp(a, b, 1 / 3, dims=(0,)).tolist() == pytest.approx([math.cos(angle), math.sin(angle)])


def test_noise_keeps_its_strength_where_a_mean_would_lose_it():
    a, b = noise(0, 1, 16, 32, 32), noise(1, 1, 16, 32, 32)
    half = slerp(a, b, 0.5, dims=(1, 2, 3))
    assert float(half.std()) == pytest.approx(1, abs=0.02)
    assert float(((a + b) / 2).std()) < 0.75


def test_every_token_goes_its_own_way():
    """A whole-tensor angle would be ruled by the padding; a token's result depends on that token alone."""
    a, b = noise(0, 6, 8), noise(1, 6, 8)
    changed = a.clone()
    changed[3:] *= 10
    first, second = (slerp(x, b, 0.3, dims=(1,)) for x in (a, changed))
    assert torch.equal(first[:3], second[:3])
    assert not torch.equal(slerp(a, b, 0.3, dims=(0, 1))[:3], slerp(changed, b, 0.3, dims=(0, 1))[:3])


def test_parallel_opposite_and_zero_vectors_go_straight():
    a = noise(0, 1, 8)
    for b in (a * 2, -a, torch.zeros_like(a)):
        assert torch.allclose(slerp(a, b, 0.25, dims=(1,)), 0.75 * a + 0.25 * b, atol=1e-4)


def test_each_vector_may_have_its_own_place_on_the_way():
    a, b = noise(0, 3, 8), noise(1, 3, 8)
    found = slerp(a, b, torch.tensor([[0.0], [0.4], [1.0]]), dims=(1,))
    assert torch.equal(found[0], a[0])
    assert torch.equal(found[2], b[2])
    assert torch.allclose(found[1:2], slerp(a[1:2], b[1:2], 0.4, dims=(1,)))
