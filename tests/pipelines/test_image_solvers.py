"""Which of diffusers' schedulers an image model's solvers are, and that they have its noise levels."""

from __future__ import annotations

from types import SimpleNamespace

import diffusers
import numpy as np
import pytest

from kinema.pipelines.images.model import ImageModel


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
