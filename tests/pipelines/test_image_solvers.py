"""Which of diffusers' schedulers an image model's solvers are, and that they have its noise levels."""

from __future__ import annotations

import inspect
import json
import shutil
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.pipelines.cards import read_card
from kinema.pipelines.diffusers_solvers import IMAGE_SOLVERS
from kinema.pipelines.images.model import ImageModel
from kinema.pipelines.images.solvers import NO_ZERO_SNR, image_solver, solvers_of
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot


def scheduler_of(solver: str, own, *, flow: bool = False):
    """What a model with this scheduler draws with, at 25 steps."""
    scheduler = ImageModel.scheduler(SimpleNamespace(_own=own, kind=SimpleNamespace(flow=flow)), solver)
    scheduler.set_timesteps(25)
    return scheduler


def stable_diffusion(**more):
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return diffusers.PNDMScheduler(**betas, skip_prk_steps=True, steps_offset=1, **more)


@pytest.mark.parametrize("solver", ["dpm++2m", "dpm++2m-sde"])
def test_karras_levels_are_those_of_the_paper(solver):
    """Karras et al. 2022, equation 5, from the lowest to the highest level of the checkpoint, with rho 7."""
    plain, karras = (scheduler_of(name, stable_diffusion()) for name in (solver, f"{solver}-karras"))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    levels = np.sqrt(1 / np.cumprod(1 - betas) - 1)
    rise = np.linspace(0, 1, 25)
    expected = (levels[-1] ** (1 / 7) + rise * (levels[0] ** (1 / 7) - levels[-1] ** (1 / 7))) ** 7
    np.testing.assert_allclose(karras.sigmas[:25], expected, rtol=1e-3)
    assert karras.config.algorithm_type == plain.config.algorithm_type
    start = 25 - int(25 * 0.35)
    assert float(plain.sigmas[start]) > 2 * float(karras.sigmas[start])


def with_scheduler(folder, tmp_path, scheduler):
    """The card of a copy whose own scheduler is this one."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    scheduler.save_pretrained(copy / "scheduler")
    index = json.loads((copy / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (copy / "model_index.json").write_text(json.dumps(index))
    return read_card(str(copy))


@pytest.mark.parametrize("name", ["EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"])
def test_an_edm_checkpoint_is_drawn_with_its_own_levels(image_model, tmp_path, name):
    """As Playground 2.5 and CosXL are: their levels are no variance-preserving scheduler's."""
    own = getattr(diffusers, name)(sigma_max=120.0, sigma_data=1.0)
    card = with_scheduler(image_model("sdxl"), tmp_path, own)
    assert solvers_of(card) == ("checkpoint", "euler")
    with pytest.raises(
        ConfigError, match=rf"solver 'ddim' cannot have .* is {name}; write one of checkpoint, e"
    ):
        image_solver(card, "ddim")
    with pytest.raises(ConfigError, match="Did you mean 'euler'"):
        image_solver(card, "eular")
    ours, theirs = scheduler_of("euler", own), scheduler_of("checkpoint", own)
    assert type(ours).__name__ == "EDMEulerScheduler"
    assert ours.config.sigma_data == 1.0
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas, rtol=1e-6)
    assert float(ours.sigmas[0]) == pytest.approx(120.0)


def test_levels_without_signal_are_not_lost(image_model, tmp_path):
    """Zero terminal SNR: a solver that does not read it would start at level 37 and not at 4096."""
    own = diffusers.DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    card = with_scheduler(image_model("sd"), tmp_path, own)
    assert set(IMAGE_SOLVERS) - set(solvers_of(card)) == {"heun"}
    shot = Shot(prompt="a fox", frames=1, size="32x32", model=card.id, solver="heun")
    with pytest.raises(
        ConfigError, match="is DDIMScheduler with rescale_betas_zero_snr; write one of checkpoint"
    ):
        make_plan(shot, card)
    for solver in solvers_of(card):
        assert scheduler_of(solver, own).config.rescale_betas_zero_snr is True


@pytest.mark.parametrize("name", sorted({name for name, _ in IMAGE_SOLVERS.values()}))
def test_which_schedulers_read_a_level_without_signal(name):
    read = "rescale_betas_zero_snr" in inspect.signature(getattr(diffusers, name).__init__).parameters
    assert read == (name not in NO_ZERO_SNR)


@pytest.mark.parametrize(
    "own",
    [
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0),
        diffusers.UniPCMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
    ],
    ids=lambda own: type(own).__name__,
)
def test_flow_euler_is_euler_whatever_scheduler_a_checkpoint_brings(own):
    found = scheduler_of("euler", own, flow=True)
    expected = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    expected.set_timesteps(25)
    assert type(found) is diffusers.FlowMatchEulerDiscreteScheduler
    np.testing.assert_allclose(found.sigmas, expected.sigmas, rtol=1e-6)
    assert type(scheduler_of("checkpoint", own, flow=True)) is type(own)
