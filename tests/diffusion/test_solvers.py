"""Solvers against flows with known solutions, diffusers' scalar schedulers, and themselves."""

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from flows import MEAN, STD, at, free, gaussian, mixed, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.diffusion import flow
from kinema.diffusion.flow import sigmas, table
from kinema.diffusion.multistep import DPM2M
from kinema.diffusion.one_step import DDIM, EulerAncestral
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import SOLVERS, solver
from kinema.diffusion.step import FrameNoise

DETERMINISTIC = ["euler", "heun", "dpm++2m", "unipc", "ddim"]
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 5.0}


def run(name, x, table_SBT, velocity=mixed, **options):
    return sample(velocity, x, table_SBT, solver(name), noise=FrameNoise(3), **options)


def error(name: str, steps: int) -> float:
    """Distance from the exact end point of the flow over all but its last, singular part."""
    levels = torch.linspace(0.95, 0.05, steps + 1, dtype=torch.float64)
    start = noise(dtype=torch.float64)
    point = lambda s: (1 - s) * MEAN + ((1 - s) ** 2 * STD**2 + s**2) ** 0.5 * start  # noqa: E731
    ended = sample(gaussian, point(levels[0]), levels[:, None, None].expand(-1, 1, 3), solver(name))
    return (ended - point(levels[-1])).abs().max().item()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_error_falls_at_the_stated_order(name):
    coarse, fine = error(name, 80), error(name, 160)
    assert fine < 0.01
    assert torch.tensor(coarse / fine).log2().item() == pytest.approx(SOLVERS[name].order, abs=0.25)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("grid", ["wan", "wan-euler", "diffusers"])
def test_pure_noise_becomes_the_data_exactly_where_the_flow_says(name, grid):
    x = noise()
    ended = run(name, x, free(sigmas(100, 3.0, grid), x), gaussian)
    torch.testing.assert_close(ended, MEAN + STD * x, atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["euler-ancestral", "dpm++2m-sde", "ddpm"])
def test_stochastic_solvers_keep_the_marginals(name):
    x = torch.randn(1, 2, 2, 100, 100, generator=torch.Generator().manual_seed(0))
    ended = run(name, x, free(sigmas(150, 1.0, "wan"), x), gaussian)
    assert ended.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert ended.std().item() == pytest.approx(STD, rel=0.05)


def test_lcm_restores_the_level_it_jumped_from():
    x = torch.randn(1, 2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    clean = torch.full_like(x, MEAN)
    perfect = lambda x, step: (x - clean) / flow.per_frame(step.sigma_BT, x)  # noqa: E731
    ended = run("lcm", x, torch.tensor([1.0, 0.8, 0.4])[:, None, None], perfect)
    assert (ended - 0.6 * MEAN).std().item() == pytest.approx(0.4, rel=0.03)
    torch.testing.assert_close(run("lcm", x, torch.tensor([1.0, 0.5, 0.0])[:, None, None], perfect), clean)


def by_diffusers(scheduler, x, steps):
    scheduler.set_timesteps(steps)
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i]
        v = mixed(x, at_scalar(sigma, x))
        x = scheduler.step(v, t, x).prev_sample
    return x


def at_scalar(sigma, x):
    return at(0, 1, sigma.expand(x.shape[0], x.shape[2]))


@pytest.mark.parametrize(
    ("name", "grid", "scheduler"),
    [
        ("euler", "diffusers-euler", lambda: FlowMatchEulerDiscreteScheduler(shift=5.0)),
        ("heun", None, lambda: FlowMatchHeunDiscreteScheduler(shift=5.0)),
        ("unipc", "diffusers", lambda: UniPCMultistepScheduler(**FLOW)),
        ("dpm++2m", "diffusers-dpm++", lambda: DPMSolverMultistepScheduler(**FLOW)),
    ],
)
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 30])
def test_equal_to_diffusers(name, grid, scheduler, steps):
    x, made = noise(), scheduler()
    if grid is None:
        made.set_timesteps(steps)
        levels = made.sigmas.unique().flip(0)
    else:
        levels = sigmas(steps, 5.0, grid)
    torch.testing.assert_close(run(name, x, free(levels, x)), by_diffusers(made, x, steps), atol=1e-5, rtol=0)


def test_sde_equals_diffusers_fed_the_same_noise():
    x, fresh, steps = noise(), FrameNoise(3), 12
    made = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **FLOW)
    made.set_timesteps(steps)
    y = x
    for i, t in enumerate(made.timesteps):
        y = made.step(mixed(y, at_scalar(made.sigmas[i], y)), t, y, variance_noise=fresh(i, y)).prev_sample
    ours = run("dpm++2m-sde", x, free(sigmas(steps, 5.0, "diffusers-dpm++"), x))
    torch.testing.assert_close(ours, y, atol=1e-5, rtol=0)


def test_ddim_without_noise_is_euler_on_the_flow_path():
    x = noise()
    grid = free(sigmas(12, 3.0), x)
    torch.testing.assert_close(run("ddim", x, grid), run("euler", x, grid), atol=2e-6, rtol=0)


@pytest.mark.parametrize("made", [EulerAncestral(eta=0.0), DDIM(eta=0.0)])
def test_without_eta_no_noise_is_asked_for(made):
    x = noise()
    assert not made.stochastic
    grid = free(sigmas(6, 3.0), x)
    torch.testing.assert_close(sample(mixed, x, grid, made), run("euler", x, grid), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", [n for n in SOLVERS if SOLVERS[n].stochastic])
def test_a_missing_noise_source_is_named(name):
    x = noise()
    with pytest.raises(ConfigError, match="FrameNoise"):
        sample(mixed, x, free(sigmas(3, 1.0), x), solver(name))


def caps_table(steps=9, shift=3.0):
    """A held keyframe, a drifting one, two free frames, one of them a step behind."""
    grid = table(sigmas(steps, shift), torch.tensor([[0.0, 0.62, 1.0, 1.0]]))
    grid[1:-1, 0, 3] = grid[:-2, 0, 3].clone()
    grid[4, 0, 3] = grid[3, 0, 3]  # and it rests once in the middle
    return grid


@pytest.mark.parametrize("name", SOLVERS)
def test_frames_together_equal_each_frame_alone(name):
    x, grid, fresh = noise(4), caps_table(), FrameNoise(3)
    together = sample(mixed, x, grid, solver(name), noise=fresh)
    for frame in range(4):
        levels = grid[:, :, frame : frame + 1]
        moves = [i for i in range(len(grid) - 1) if levels[i] != levels[i + 1]]
        kept = levels[[*moves, -1]]
        alone = sample(
            mixed,
            x[:, :, frame : frame + 1],
            kept,
            solver(name),
            noise=lambda i, like, m=moves, f=frame: fresh(m[i], x)[:, :, f : f + 1],
        )
        torch.testing.assert_close(together[:, :, frame : frame + 1], alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_frame_that_does_not_move_is_untouched_even_by_infinities(name):
    x, made = noise(), solver(name)
    fresh, sigma, after = (
        torch.randn_like(x),
        torch.tensor([[1.0, 0.5, 0.0]]),
        torch.tensor([[0.9, 0.5, 0.0]]),
    )
    v = torch.where(torch.tensor([False, True, True])[None, None, :, None, None], torch.inf, noise(seed=1))
    ended, state = made.step(made.init(), x, v, sigma, after, fresh)
    assert torch.equal(ended[:, :, 1:], x[:, :, 1:])
    assert bool(torch.isfinite(ended).all())
    if name in ("dpm++2m", "unipc"):
        ended, _ = made.step(
            state, ended, noise(seed=2), torch.tensor([[0.9, 0.5, 0.3]]), torch.zeros(1, 3), fresh
        )
        assert bool(torch.isfinite(ended).all())


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("first", [1.0, 1 - 1e-7, 0.999])
def test_the_ends_of_the_path_are_finite(name, first):
    x = noise()
    levels = torch.tensor([first, 0.9999 * first, 0.5, 1e-6, 0.0])
    seen = []
    sample(
        mixed,
        x,
        free(levels, x),
        solver(name),
        noise=FrameNoise(0),
        on_state=lambda s: seen.append(s.x_BCTYX),
    )
    assert all(bool(torch.isfinite(x).all()) and x.abs().max() < 20 for x in seen)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(SOLVERS)),
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=4),
    st.integers(1, 6),
    st.floats(0.5, 10),
    st.integers(0, 5),
)
def test_resumed_equals_uninterrupted_bit_for_bit(name, caps, steps, shift, seed):
    x = noise(len(caps), seed=seed)
    grid = table(sigmas(steps, shift), torch.tensor([caps]))
    saved = []
    whole = sample(mixed, x, grid, solver(name), noise=FrameNoise(seed), on_state=saved.append)
    for s in saved:
        memory = solver(name).restore(s.solver.state_dict())
        again = sample(
            mixed, s.x_BCTYX, grid, solver(name), noise=FrameNoise(seed), start=s.index, state=memory
        )
        assert torch.equal(again, whole)


def test_a_state_of_another_solver_is_refused():
    x = noise()
    saved = []
    sample(mixed, x, free(sigmas(3, 1.0), x), solver("unipc"), on_state=saved.append)
    with pytest.raises(ConfigError, match="m_past_BCTYX"):
        solver("dpm++2m").restore(saved[0].solver.state_dict())


def test_heun_asks_twice_but_not_for_the_last_step():
    calls = []

    def counting(x, step):
        calls.append((step.index, step.stage, step.sigma_BT[0, 0].item()))
        return mixed(x, step)

    x = noise()
    sample(counting, x, free(torch.tensor([1.0, 0.5, 0.25, 0.0]), x), solver("heun"))
    assert calls == [(0, 0, 1.0), (0, 1, 0.5), (1, 0, 0.5), (1, 1, 0.25), (2, 0, 0.25)]


def test_a_misspelt_solver_is_told_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'unipc'"):
        solver("unipcc")


def test_a_solver_is_a_value():
    assert DPM2M() == SOLVERS["dpm++2m"]
    assert all(made.name in SOLVERS for made in SOLVERS.values())


def test_step_noise_depends_on_the_frame_not_on_the_length():
    long, short = FrameNoise(5)(2, noise(6)), FrameNoise(5, first=2)(2, noise(3))
    assert torch.equal(long[:, :, 2:5], short)
    assert not torch.equal(FrameNoise(5)(3, noise(6)), long)
    assert not torch.equal(FrameNoise(6)(2, noise(6)), long)


@pytest.mark.parametrize("name", SOLVERS)
def test_levels_per_position_hold_the_masked_part(name):
    x, levels = noise(), sigmas(6, 3.0)
    open_BTYX = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    ended = run(name, x, levels[:, None, None, None, None] * open_BTYX)
    mask = open_BTYX[:, None].expand_as(x)
    assert torch.equal(ended[~mask], x[~mask])
    torch.testing.assert_close(ended[mask], run(name, x, free(levels, x))[mask], atol=2e-6, rtol=0)


def test_unipc_equals_diffusers_to_twelve_digits_in_double_precision():
    """Over 50 steps float32 rounding reaches 2e-5 on either side; the formulas themselves agree."""
    x, scheduler = noise(dtype=torch.float64), UniPCMultistepScheduler(**FLOW)
    scheduler.set_timesteps(50)
    levels = scheduler.sigmas.clone()
    scheduler.sigmas, y = levels.double(), x
    for i, t in enumerate(scheduler.timesteps):
        y = scheduler.step(mixed(y, at_scalar(scheduler.sigmas[i], y)), t, y).prev_sample
    torch.testing.assert_close(run("unipc", x, free(levels, x)), y, atol=1e-12, rtol=0)
