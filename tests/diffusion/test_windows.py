"""Windowed velocities: the whole clip's where frames do not see each other; continuation is a table."""

from __future__ import annotations

import pytest
import torch
from flows import free, mixed, noise

from kinema.diffusion.coverage import Continued, Fused
from kinema.diffusion.flow import sigmas, table
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.state import pack, unpack
from kinema.diffusion.step import FrameNoise, Step
from kinema.diffusion.windows import Windowed, staggered

FUSED = Fused(total=11, length=4, overlap=2, lead=1)
LOOP = Fused(total=11, length=5, overlap=2, lead=1, loop=True)
SHORT_LOOP = Fused(total=3, length=4, overlap=2, lead=1, loop=True)
CONTINUED = Continued(total=11, length=4, overlap=2)


def alone(frames):
    """A network to which every frame is a clip of its own; half-way levels, and not symmetric in space."""
    return mixed


def neighbours(frames):
    """A network whose frames pull at each other, so that it matters who is seen together."""

    def velocity(x, step):
        return mixed(x, step) + 0.1 * (x - x.mean(dim=2, keepdim=True))

    return velocity


def run(cover, view, name="unipc", steps=6, **options):
    x = noise(cover.total)
    levels = staggered(free(sigmas(steps, 2.0), x), cover)
    return sample(Windowed(view, cover), x, levels, solver(name), noise=FrameNoise(3), **options)


@pytest.mark.parametrize("name", ["euler", "heun", "unipc", "dpm++2m"])
@pytest.mark.parametrize("cover", [FUSED, LOOP, SHORT_LOOP, CONTINUED])
def test_windows_change_no_bit_where_frames_do_not_see_each_other(cover, name):
    x = noise(cover.total)
    whole = sample(mixed, x, free(sigmas(6, 2.0), x), solver(name))
    assert torch.equal(run(cover, alone, name), whole)


def test_one_window_over_the_whole_clip_is_the_network_itself():
    x = noise(4)
    cover = Fused(total=4, length=4, overlap=2, lead=1)
    whole = sample(neighbours(None), x, free(sigmas(6, 2.0), x), solver("unipc"))
    assert torch.equal(run(cover, neighbours), whole)


def test_every_window_gets_its_own_levels_and_frames():
    seen = []

    def view(frames):
        def velocity(x, step):
            seen.append((frames, step.sigma_BT, x[0, 0, :, 0, 0]))
            return torch.zeros_like(x)

        return velocity

    levels = torch.linspace(0, 1, 11)[None]
    x = torch.arange(11.0).view(1, 1, 11, 1, 1)
    Windowed(view, LOOP)(x, Step(0, 6, 0, levels))
    assert len(seen) == len(LOOP.windows(0, 0))
    for frames, sigma_BT, x_T in seen:
        assert torch.equal(sigma_BT, levels[:, list(frames)])
        assert x_T.tolist() == list(frames)


def test_fusing_is_the_mean_weighted_by_the_shares():
    def view(frames):
        return lambda x, step: torch.full_like(x, float(frames[0]))

    v = Windowed(view, FUSED)(torch.zeros(1, 1, 11, 1, 1), Step(0, 6, 0, torch.ones(1, 11)))
    expected = [0.0] * 11
    for window in FUSED.windows(0, 0):
        for frame, share in zip(window.frames, window.shares, strict=True):
            expected[frame] += share * window.frames[0]
    assert v.flatten().tolist() == pytest.approx(expected)


def test_a_loop_does_not_know_where_it_begins():
    """Moved by one stride's worth of frames, noise and result move together."""
    cover = Fused(total=12, length=5, overlap=2, lead=1, places="static", loop=True)
    x = noise(12)
    levels = free(sigmas(5, 1.0), x)
    velocity = Windowed(neighbours, cover)
    result = sample(velocity, x, levels, solver("unipc"))
    moved = sample(velocity, x.roll(3, dims=2), levels, solver("unipc"))
    torch.testing.assert_close(moved, result.roll(3, dims=2))
    along = Fused(total=12, length=5, overlap=2, lead=1, places="static")
    other = sample(Windowed(neighbours, along), x.roll(3, dims=2), levels, solver("unipc"))
    assert not torch.allclose(other, result.roll(3, dims=2), atol=1e-3)


def test_a_staggered_table_gives_each_frame_its_own_column_once():
    caps = torch.ones(1, 11)
    caps[0, 0], caps[0, 7] = 0.0, 0.4
    once = table(sigmas(5, 1.0), caps)
    levels = staggered(once, CONTINUED)
    steps, turns = len(once) - 1, CONTINUED.turns
    assert len(levels) == len(turns) * steps + 1
    for number, frames in enumerate(turns):
        for f in frames:
            column = levels[:, 0, f]
            assert torch.equal(column[number * steps : (number + 1) * steps + 1], once[:, 0, f])
            assert (column[: number * steps] == once[0, 0, f]).all()
            assert (column[(number + 1) * steps :] == 0).all()


def test_continuation_is_one_run_after_the_other_each_held_to_the_last():
    x, levels = noise(11), sigmas(6, 2.0)
    done = x.clone()
    for number, turn in enumerate(CONTINUED.turns):
        (window,) = CONTINUED.windows(number, 0)
        frames = list(window.frames)
        caps = torch.tensor([[float(f in turn) for f in frames]])
        done[:, :, frames] = sample(
            neighbours(frames), done[:, :, frames], table(levels, caps), solver("unipc")
        )
    assert torch.equal(run(CONTINUED, neighbours), done)


@pytest.mark.parametrize("cover", [FUSED, LOOP, CONTINUED])
@pytest.mark.parametrize("name", ["unipc", "dpm++2m-sde"])
def test_a_run_goes_on_from_any_step_with_the_same_bits(tmp_path, cover, name):
    states = []
    whole = run(cover, neighbours, name, on_state=states.append)
    for kept in (states[1], states[len(states) // 2], states[-2]):
        tensors, facts = pack(kept, solver(name))
        state = unpack(tensors, facts, solver(name))
        x = noise(cover.total)
        levels = staggered(free(sigmas(6, 2.0), x), cover)
        again = sample(
            Windowed(neighbours, cover),
            state.x_BCTYX,
            levels,
            solver(name),
            noise=FrameNoise(3),
            start=state.index,
            state=state.solver,
        )
        assert torch.equal(again, whole)


def test_longer_continuations_begin_like_shorter_ones():
    x, levels = noise(11)[:, :, :8], sigmas(6, 2.0)
    cover = Continued(total=8, length=4, overlap=2)
    short = sample(Windowed(neighbours, cover), x, staggered(free(levels, x), cover), solver("unipc"))
    assert torch.equal(run(CONTINUED, neighbours)[:, :, :8], short)
