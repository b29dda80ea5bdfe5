"""Painting inside a clip: kept places end as what they are, and are seen at their frame's noise level."""

from __future__ import annotations

import pytest
import torch
from flows import free, mixed, noise

from kinema.diffusion.flow import noisy, sigmas, table
from kinema.diffusion.kept import Kept
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import SOLVERS, solver
from kinema.diffusion.step import FrameNoise

KNOWN = noise(seed=5)
OPEN = torch.zeros(1, 3, 4, 4)
OPEN[:, 0, :2] = 1
OPEN[:, 1:, :, 1:3] = 1
WHERE = OPEN[:, None].expand_as(KNOWN).bool()


def run(velocity, x, name="unipc", levels=None, steps=8):
    levels = free(sigmas(steps, 2.0, "wan-euler"), x) if levels is None else levels
    return sample(velocity, x, levels, solver(name), noise=FrameNoise(3))


def painted(x, name="unipc", levels=None, opened=OPEN):
    return run(Kept(mixed, KNOWN, opened), x, name, levels)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_closed_places_end_as_they_are_and_open_ones_as_without(name):
    """The flow looks at one place at a time, so what is kept beside it must not matter."""
    x = noise()
    out, whole = painted(x, name), run(mixed, x, name)
    assert torch.allclose(out[~WHERE], KNOWN[~WHERE], atol=2e-5)
    assert torch.equal(out[WHERE], whole[WHERE])


@pytest.mark.parametrize("name", ["euler", "heun", "unipc", "dpm++2m"])
def test_the_network_sees_kept_places_at_the_noise_level_of_their_frame(name):
    x, seen = noise(), []

    def velocity(latents, step):
        seen.append((latents.clone(), step.sigma_BT))
        return mixed(latents, step)

    run(Kept(velocity, KNOWN, OPEN), x, name)
    assert len(seen) >= 8
    for latents, sigma_BT in seen:
        expected = noisy(KNOWN, x, sigma_BT)
        assert torch.allclose(latents[~WHERE], expected[~WHERE], atol=2e-5)


def test_all_open_changes_no_bit():
    x = noise()
    assert torch.equal(painted(x, opened=torch.ones_like(OPEN)), run(mixed, x))


def test_a_share_leads_to_a_share():
    x, share = noise(), torch.full_like(OPEN, 0.25)
    seen = {}

    def velocity(latents, step):
        seen["x"], seen["v"], seen["s"] = latents, mixed(latents, step), step.sigma_BT
        return seen["v"]

    out = Kept(velocity, KNOWN, share)(x, step_at(0.6))
    guess = seen["x"] - 0.6 * seen["v"]
    assert torch.allclose(x - 0.6 * out, 0.25 * guess + 0.75 * KNOWN, atol=1e-5)


def test_held_frames_stay_to_the_bit():
    """A frame at level 0 has no noise to divide by, and does not move."""
    x, caps = noise(), torch.tensor([[0.0, 1.0, 0.5]])
    x[:, :, 0] = 0.3
    levels = table(sigmas(8, 2.0, "wan-euler"), caps)
    x[:, :, 2] = noisy(KNOWN, x, torch.full((1, 3), 0.5))[:, :, 2]
    out = painted(x, levels=levels)
    assert torch.equal(out[:, :, 0], x[:, :, 0])
    assert torch.allclose(out[:, :, 1:][~WHERE[:, :, 1:]], KNOWN[:, :, 1:][~WHERE[:, :, 1:]], atol=2e-5)
    assert bool(torch.isfinite(out).all())


def step_at(sigma: float):
    from kinema.diffusion.step import Step

    return Step(0, 8, 0, torch.full((1, 3), sigma))
