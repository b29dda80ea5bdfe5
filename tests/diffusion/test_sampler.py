"""The loop: order of events, faults in the velocity, precision, and states on disk."""

import pytest
import torch
from flows import free, mixed, noise

from kinema.core.errors import ConfigError, GeometryError, NumericError
from kinema.diffusion.flow import sigmas
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.state import load, save


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
def run(tmp_path):
    x = noise()
    grid = free(sigmas(6, 3.0), x)
    states = []
    ended = sample(mixed, x, grid, solver("unipc"), on_state=states.append)
    path = tmp_path / "state.safetensors"
    save(path, states[3], solver("unipc"), tag="plan 7")
    return path, grid, ended


def test_a_saved_run_goes_on_bit_for_bit(run):
    path, grid, ended = run
    state = load(path, solver("unipc"), tag="plan 7")
    assert state.index == 4
    again = sample(mixed, state.x_BCTYX, grid, solver("unipc"), start=state.index, state=state.solver)
    assert torch.equal(again, ended)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_state_before_the_first_step_can_be_saved(tmp_path):
    from kinema.diffusion.sampler import SamplerState

    path = tmp_path / "s.safetensors"
    save(path, SamplerState(0, noise(), solver("unipc").init()), solver("unipc"))
    assert load(path, solver("unipc")).solver == solver("unipc").init()


@pytest.mark.parametrize(
    ("name", "tag", "said"), [("dpm++2m", "plan 7", "solver"), ("unipc", "plan 8", "tag")]
)
def test_a_state_of_another_run_is_refused(run, name, tag, said):
    with pytest.raises(ConfigError, match=said):
        load(run[0], solver(name), tag=tag)


def test_a_damaged_state_is_refused_with_a_way_out(run):
    path = run[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="delete it to start anew"):
        load(path, solver("unipc"), tag="plan 7")
    with pytest.raises(ConfigError, match="cannot read"):
        load(path.with_name("missing"), solver("unipc"))


def test_a_failed_save_leaves_the_old_state_whole(run, monkeypatch):
    path, *_ = run
    before = path.read_bytes()
    monkeypatch.setattr(
        "os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        save(path, load(path, solver("unipc"), tag="plan 7"), solver("unipc"), tag="new")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
