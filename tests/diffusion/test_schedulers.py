"""diffusers' schedulers as solvers: the same numbers as running them bare, and states that resume."""

import pytest
import safetensors.torch
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from flows import MEAN, STD, free, gaussian, mixed, noise

from kinema.core.errors import ConfigError
from kinema.diffusion.flow import sigmas
from kinema.diffusion.sampler import sample
from kinema.diffusion.schedulers import DiffusersScheduler
from kinema.diffusion.solvers import solver
from kinema.diffusion.state import pack, unpack

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
MADE = {
    "flow euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flow heun": lambda: FlowMatchHeunDiscreteScheduler(shift=3.0),
    "unipc": lambda: UniPCMultistepScheduler(**FLOW),
    "dpm++": lambda: DPMSolverMultistepScheduler(**FLOW),
    "dpm++ 3": lambda: DPMSolverMultistepScheduler(solver_order=3, **FLOW),
    "unipc epsilon": lambda: UniPCMultistepScheduler(),
    "dpm++ v": lambda: DPMSolverMultistepScheduler(prediction_type="v_prediction"),
    "ddim": lambda: DDIMScheduler(clip_sample=False),
    "ddim sample": lambda: DDIMScheduler(clip_sample=False, prediction_type="sample"),
    "euler": lambda: EulerDiscreteScheduler(),
    "ddpm": lambda: DDPMScheduler(clip_sample=False),
    "euler ancestral": lambda: EulerAncestralDiscreteScheduler(),
}


@pytest.mark.parametrize("name", MADE)
def test_every_family_reaches_the_data(name):
    x = torch.randn(1, 2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    adapted = DiffusersScheduler(MADE[name](), 100)
    first = adapted.sigmas[0].item()
    start = (1 - first) * MEAN + ((1 - first) ** 2 * STD**2 + first**2) ** 0.5 * x
    ended = sample(gaussian, start, free(adapted.sigmas, x), adapted)
    assert ended.mean().item() == pytest.approx(MEAN, abs=0.03)
    if name in ("ddpm", "euler ancestral"):
        assert ended.std().item() == pytest.approx(STD, rel=0.12)
    else:
        torch.testing.assert_close(ended, MEAN + STD * x, atol=0.07, rtol=0)


@pytest.mark.parametrize(
    ("name", "ours"), [("unipc", "unipc"), ("flow euler", "euler"), ("flow heun", "heun")]
)
def test_equal_to_our_own_solver_on_the_same_levels(name, ours):
    x = noise()
    adapted = DiffusersScheduler(MADE[name](), 9)
    theirs = sample(mixed, x, free(adapted.sigmas, x), adapted)
    levels = adapted.sigmas.unique().flip(0)
    torch.testing.assert_close(theirs, sample(mixed, x, free(levels, x), solver(ours)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MADE)
def test_resumed_from_a_packed_state_equals_uninterrupted(name):
    x, saved = noise(), []
    adapted = DiffusersScheduler(MADE[name](), 7, seed=5)
    start = x * adapted.sigmas[0].float()
    grid = free(adapted.sigmas, x)
    whole = sample(mixed, start, grid, adapted, on_state=saved.append)
    for state in saved:
        tensors, facts = pack(state, adapted)
        tensors = safetensors.torch.load(safetensors.torch.save({k: t.clone() for k, t in tensors.items()}))
        fresh = DiffusersScheduler(MADE[name](), 7, seed=5)
        s = unpack(tensors, facts, fresh)
        assert torch.equal(sample(mixed, s.x_BCTYX, grid, fresh, start=s.index, state=s.solver), whole)


def test_the_callers_scheduler_is_left_alone():
    scheduler = UniPCMultistepScheduler(**FLOW)
    before = scheduler.timesteps.clone()
    adapted = DiffusersScheduler(scheduler, 5)
    sample(mixed, noise(), free(adapted.sigmas, noise()), adapted)
    assert torch.equal(scheduler.timesteps, before)
    assert scheduler.step_index is None
    assert scheduler.model_outputs == [None, None]


def test_two_runs_of_one_adapter_are_equal():
    x, adapted = noise(), DiffusersScheduler(UniPCMultistepScheduler(**FLOW), 5)
    grid = free(adapted.sigmas, x)
    assert torch.equal(sample(mixed, x, grid, adapted), sample(mixed, x, grid, adapted))


def test_a_later_beginning_drops_the_first_levels():
    whole, later = (DiffusersScheduler(UniPCMultistepScheduler(**FLOW), 8, begin=b) for b in (0, 3))
    assert torch.equal(later.sigmas, whole.sigmas[3:])
    x = noise()
    ours = sample(mixed, x, free(later.sigmas.float(), x), solver("unipc"))
    torch.testing.assert_close(sample(mixed, x, free(later.sigmas, x), later), ours, atol=1e-5, rtol=0)


def test_keyframes_are_refused_with_a_way_out():
    x, adapted = noise(), DiffusersScheduler(UniPCMultistepScheduler(**FLOW), 5)
    grid = free(adapted.sigmas, x)
    grid[:, 0, 0] = 0
    with pytest.raises(ConfigError, match="use a solver of kinema for keyframes"):
        sample(mixed, x, grid, adapted)
    with pytest.raises(ConfigError, match="its `sigmas`"):
        sample(mixed, x, free(sigmas(5, 3.0, "wan"), x), adapted)


def test_schemes_without_levels_are_refused():
    with pytest.raises(ConfigError, match="PNDMScheduler"):
        DiffusersScheduler(PNDMScheduler(), 10)
