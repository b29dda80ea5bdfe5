"""The path, the grids and the tables of noise levels."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.diffusion import flow

LEVEL = st.floats(0, 1, width=32)
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
NAMESAKES = {
    "diffusers": lambda shift: UniPCMultistepScheduler(flow_shift=shift, **FLOW),
    "diffusers-dpm++": lambda shift: DPMSolverMultistepScheduler(flow_shift=shift, **FLOW),
    "diffusers-euler": lambda shift: FlowMatchEulerDiscreteScheduler(shift=shift),
}


@given(LEVEL, LEVEL, st.integers(0, 2**31))
def test_velocity_leads_back_to_both_ends_of_the_path(first, second, seed):
    clean, noise = torch.randn(2, 1, 3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)).double()
    sigma_BT = torch.tensor([[first, second]])
    x, v = flow.noisy(clean, noise, sigma_BT), flow.velocity(clean, noise)
    torch.testing.assert_close(flow.clean(x, v, sigma_BT), clean, atol=1e-6, rtol=0)
    torch.testing.assert_close(flow.noise_from(x, v, sigma_BT), noise, atol=1e-6, rtol=0)


def test_each_frame_has_its_own_level():
    clean, noise = torch.zeros(1, 1, 3, 2, 2), torch.ones(1, 1, 3, 2, 2)
    x = flow.noisy(clean, noise, torch.tensor([[0.0, 0.25, 1.0]]))
    assert x[0, 0, :, 0, 0].tolist() == [0.0, 0.25, 1.0]


def test_a_level_per_position_is_accepted():
    sigma_BTYX = torch.rand(1, 3, 2, 2)
    x = flow.noisy(torch.zeros(1, 1, 3, 2, 2), torch.ones(1, 1, 3, 2, 2), sigma_BTYX)
    assert torch.equal(x[:, 0], sigma_BTYX)


@pytest.mark.parametrize("grid", NAMESAKES)
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0, 12.0])
def test_grids_equal_their_namesakes_number_for_number(grid, shift):
    for n in [2, 3, 4, 9, 20, 27, 30, 37, 50]:
        scheduler = NAMESAKES[grid](shift)
        scheduler.set_timesteps(n)
        sigmas = flow.sigmas(n, shift, grid)
        assert torch.equal(sigmas, scheduler.sigmas)
        assert torch.equal(flow.timesteps(sigmas[:-1], n, shift, grid), scheduler.timesteps)


def test_wan_grid_matches_values_of_wans_own_scheduler():
    # 50 steps, shift 5, as published: the last level 0.0925 (timestep 92), the first 0.9998.
    sigmas = flow.sigmas(50, 5.0, "wan")
    assert sigmas[0].item() == pytest.approx(0.99979985, abs=1e-7)
    assert sigmas[-2].item() == pytest.approx(5 * 0.01998 / (1 + 4 * 0.01998), abs=1e-6)
    steps = flow.timesteps(sigmas, 50, 5.0, "wan")
    assert steps.dtype == torch.int64
    assert steps[[0, 1, -2, -1]].tolist() == [999, 995, 92, 0]
    assert (sigmas - flow.sigmas(50, 5.0, "diffusers")).abs().max().item() == pytest.approx(0.0043, abs=1e-4)


@given(st.sampled_from(sorted(flow.GRIDS)), st.integers(2, 100), st.floats(0.2, 20))
def test_every_grid_falls_strictly_to_zero(grid, n, shift):
    sigmas = flow.sigmas(n, shift, grid)
    assert sigmas.shape == (n + 1,)
    assert sigmas.dtype == torch.float32
    assert bool((sigmas[1:] < sigmas[:-1]).all())
    assert sigmas[-1] == 0
    assert 0.9 < sigmas[0] <= 1


@pytest.mark.parametrize(("n", "shift", "grid", "said"), [(0, 5, "wan", "steps=0"), (5, 0, "wan", "shift=0")])
def test_impossible_grids_are_refused(n, shift, grid, said):
    with pytest.raises(ConfigError, match=said):
        flow.sigmas(n, shift, grid)


def test_a_misspelt_grid_is_told_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'diffusers-euler'"):
        flow.sigmas(5, 1.0, "difusers-euler")


def test_free_frames_get_the_grid_untouched():
    for grid in flow.GRIDS:
        sigmas = flow.sigmas(10, 5.0, grid)
        assert torch.equal(flow.table(sigmas, torch.ones(2, 3)), sigmas[:, None, None].expand(11, 2, 3))


def test_modes_are_tables():
    sigmas = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    table = flow.table(sigmas, torch.tensor([[0.0, 0.5, 1.0]]))
    assert table[:, 0, 0].tolist() == [0.0] * 6
    torch.testing.assert_close(table[:, 0, 1], torch.tensor([0.5, 0.5, 0.5, 0.4, 0.2, 0.0]))
    assert torch.equal(table[:, 0, 2], sigmas)


def test_video_to_video_starts_at_its_strength():
    sigmas = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    table = flow.table(sigmas, torch.full((1, 2), 0.7))
    torch.testing.assert_close(table[:, 0, 0], torch.tensor([0.7, 0.6, 0.4, 0.2, 0.0]))


def test_a_level_just_under_the_cap_is_passed_over():
    sigmas = torch.tensor([1.0, 0.8, 0.6995, 0.4, 0.0])
    torch.testing.assert_close(
        flow.table(sigmas, torch.full((1, 1), 0.7))[:, 0, 0], torch.tensor([0.7, 0.4, 0.0])
    )


def test_nothing_to_do_is_an_empty_run():
    assert flow.table(flow.sigmas(10, 5.0), torch.zeros(1, 4)).tolist() == [[[0.0] * 4]]


@given(st.lists(LEVEL, min_size=1, max_size=5), st.integers(1, 30), st.sampled_from(sorted(flow.GRIDS)))
def test_every_frame_starts_at_its_cap_and_falls_to_zero(caps, n, grid):
    sigmas = flow.sigmas(n, 3.0, grid)
    table = flow.table(sigmas, torch.tensor([caps]))
    assert bool((table[1:] <= table[:-1]).all())
    assert bool((table[-1] == 0).all())
    assert torch.equal(table[0, 0], torch.tensor(caps).clamp(max=sigmas[0].item()))


def test_a_cap_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="must lie in 0"):
        flow.table(flow.sigmas(5, 1.0), torch.tensor([[1.5]]))
