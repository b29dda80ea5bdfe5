"""The loop: order of events, faults in the velocity, precision, and states on disk."""

import json

import pytest
import safetensors.torch
import torch
from flows import free, mixed, noise

from kinema.core.errors import ConfigError, GeometryError, NumericError
from kinema.diffusion.flow import sigmas
from kinema.diffusion.sampler import SamplerState, sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.state import pack, unpack


def test_reports_every_step_in_order_with_the_clean_estimate():
    x = noise()
    levels = torch.tensor([1.0, 0.75, 0.5, 0.0])
    seen = []
    ended = sample(mixed, x, free(levels, x), solver("euler"), on_step=seen.append)
    assert [(p.phase, p.step, p.steps, p.sigma) for p in seen] == [
        ("denoise", 1, 3, 0.75),
        ("denoise", 2, 3, 0.5),
        ("denoise", 3, 3, 0.0),
    ]
    # Euler's last step lands on the last clean estimate; the first one is E[x_0], the mixture's mean.
    torch.testing.assert_close(seen[-1].clean, ended)
    mean = torch.tensor([0.5 * 1 - 0.3 * 1 + 0.2 * 0.1, 0.5 * 0.5 + 0.3 * 0.2 - 0.2 * 1.2])
    torch.testing.assert_close(seen[0].clean[0, :, 0, 0, 0], mean, atol=1e-5, rtol=0)


def test_an_exception_from_the_listener_stops_the_run_after_its_state_was_kept():
    x, states = noise(), []

    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(mixed, x, free(sigmas(5, 1.0), x), solver("unipc"), on_step=stop, on_state=states.append)
    assert [s.index for s in states] == [1, 2]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_velocity_that_is_not_finite_names_step_and_sigma(bad):
    def broken(x, step):
        v = mixed(x, step)
        if step.index == 2:
            v[0, 0, 1, 2, 3] = bad
        return v

    x = noise()
    with pytest.raises(NumericError, match=r"step 3 of 4 \(sigma 0\.5000\)"):
        sample(broken, x, free(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), x), solver("euler"))


def test_a_table_for_other_latents_is_refused():
    with pytest.raises(GeometryError, match=r"\(1, 4\).*\(1, 3\)"):
        sample(mixed, noise(3), free(sigmas(3, 1.0), noise(4)), solver("euler"))


def test_half_precision_latents_are_carried_in_float32():
    x = noise().to(torch.bfloat16)
    types = set()

    def half(x, step):
        types.add(x.dtype)
        return mixed(x, step).to(torch.bfloat16)

    ended = sample(half, x, free(sigmas(40, 3.0), x), solver("unipc"))
    assert types == {torch.float32}
    assert ended.dtype == torch.float32
    torch.testing.assert_close(
        ended, sample(mixed, x.float(), free(sigmas(40, 3.0), x), solver("unipc")), atol=0.03, rtol=0
    )


def test_the_callers_latents_and_table_are_left_alone():
    x = noise()
    grid = free(sigmas(4, 3.0), x)
    kept_x, kept_grid = x.clone(), grid.clone()
    sample(mixed, x, grid, solver("unipc"))
    assert torch.equal(x, kept_x)
    assert torch.equal(grid, kept_grid)


@pytest.fixture
def run():
    x = noise()
    grid = free(sigmas(6, 3.0), x)
    states = []
    ended = sample(mixed, x, grid, solver("unipc"), on_state=states.append)
    tensors, facts = pack(states[3], solver("unipc"))
    copies = safetensors.torch.load(safetensors.torch.save({k: t.clone() for k, t in tensors.items()}))
    return copies, json.loads(json.dumps(facts)), grid, ended


def test_a_packed_run_goes_on_bit_for_bit(run):
    tensors, facts, grid, ended = run
    state = unpack(tensors, facts, solver("unipc"))
    assert state.index == 4
    again = sample(mixed, state.x_BCTYX, grid, solver("unipc"), start=state.index, state=state.solver)
    assert torch.equal(again, ended)


def test_a_state_before_the_first_step_can_be_packed():
    tensors, facts = pack(SamplerState(0, noise(), solver("unipc").init()), solver("unipc"))
    assert unpack(tensors, facts, solver("unipc")).solver == solver("unipc").init()


def test_a_state_of_another_solver_is_refused(run):
    with pytest.raises(ConfigError, match="solver"):
        unpack(run[0], run[1], solver("dpm++2m"))


def test_a_state_tells_the_clean_guess_that_led_to_it():
    x, seen, states = noise(), [], []
    sample(mixed, x, free(sigmas(3, 1.0), x), solver("euler"), on_step=seen.append, on_state=states.append)
    assert all(torch.equal(event.clean, state.clean_BCTYX) for event, state in zip(seen, states, strict=True))
