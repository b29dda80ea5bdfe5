"""The variance-preserving path and its solvers, against diffusers' DDPM and DDIM."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from flows import MIXTURE, free, mixed, noise
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.diffusion import flow, vp
from kinema.diffusion.one_step import DDIM, DDPM
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.step import FrameNoise, Step

SCHEDULES = {
    "linear": {},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
TIMES = st.lists(st.integers(0, 999), min_size=2, max_size=4)


def path_of(name):
    ends = SCHEDULES[name]
    return vp.VariancePreserving.of(name, ends.get("beta_start", 1e-4), ends.get("beta_end", 0.02))


def network_of(path, predicts):
    """The best possible network of this path for the mixture, in each kind of prediction."""

    def network(x_t, times_BT):
        a_BT, b_BT = path.amplitudes(times_BT)
        a, b = flow.per_frame(a_BT, x_t), flow.per_frame(b_BT, x_t)
        sigma_BT, x = (b_BT / (a_BT + b_BT)), x_t / (a + b)
        v = MIXTURE.velocity(x, sigma_BT)
        clean, e = flow.clean(x, v, sigma_BT), flow.noise_from(x, v, sigma_BT)
        return {"epsilon": e, "sample": clean, "v": a * e - b * clean}[predicts]

    return network


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_diffusers(name):
    options = {"beta_schedule": name, **SCHEDULES[name]}
    torch.testing.assert_close(
        path_of(name).alphas_cumprod.float(), DDPMScheduler(**options).alphas_cumprod, atol=0, rtol=2e-6
    )


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [1, 7, 10, 50, 1000])
def test_timesteps_equal_diffusers(spacing, n):
    scheduler = DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(n)
    assert torch.equal(vp.timesteps(n, spacing), scheduler.timesteps)


@given(TIMES, st.sampled_from(["epsilon", "v", "sample"]), st.integers(0, 99))
def test_every_prediction_splits_into_the_same_data_and_noise(times, predicts, seed):
    path, times_BT = path_of("cosine"), torch.tensor([times])
    clean, e = noise(len(times), seed=seed), noise(len(times), seed=seed + 100)
    a, b = (flow.per_frame(value, clean) for value in path.amplitudes(times_BT))
    x_t = path.noisy(clean, e, times_BT)
    out = {"epsilon": e, "sample": clean, "v": a * e - b * clean}[predicts]
    found_clean, found_e = path.split(x_t, out, times_BT, predicts)
    torch.testing.assert_close(a * found_clean, a * clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(b * found_e, b * e, atol=1e-5, rtol=0)


@given(TIMES, st.sampled_from(sorted(SCHEDULES)))
def test_both_paths_are_one_up_to_scale(times, name):
    path, times_BT = path_of(name), torch.tensor([times])
    clean, e = noise(len(times)), noise(len(times), seed=1)
    sigma_BT = torch.stack([path.sigmas(t.reshape(1))[0] for t in times_BT[0]])[None]
    assert torch.equal(path.times(sigma_BT), times_BT)
    moved = path.to_flow(path.noisy(clean, e, times_BT), times_BT)
    torch.testing.assert_close(moved, flow.noisy(clean, e, sigma_BT), atol=1e-5, rtol=0)


def ours(path, made, x, times, predicts="epsilon", *, to_data=True):
    levels = path.sigmas(times, to_data=to_data)
    start = path.to_flow(x, times[0].expand(1, x.shape[2]))
    ended = sample(
        path.as_velocity(network_of(path, predicts), predicts), start, free(levels, x), made, noise=NOISE
    )
    last = levels[-1]
    return ended * ((1 - last) ** 2 + last**2).rsqrt().float()


NOISE = FrameNoise(4)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("predicts", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_equals_diffusers(name, predicts, eta):
    x, path, steps = noise(), path_of(name), 20
    scheduler = DDIMScheduler(
        clip_sample=False,
        prediction_type=predicts.replace("v", "v_prediction"),
        set_alpha_to_one=name != "scaled_linear",
        **{"beta_schedule": name, **SCHEDULES[name]},
    )
    scheduler.set_timesteps(steps)
    y = x
    for i, t in enumerate(scheduler.timesteps):
        out = network_of(path, predicts)(y, t.expand(1, 3))
        y = scheduler.step(out, t, y, eta=eta, variance_noise=NOISE(i, y) if eta else None).prev_sample
    mine = ours(path, DDIM(eta), x, vp.timesteps(steps), predicts, to_data=name != "scaled_linear")
    torch.testing.assert_close(mine, y, atol=4e-5, rtol=1e-5)


def test_ddim_with_clipping_equals_diffusers():
    x, path = noise(), path_of("linear")
    scheduler = DDIMScheduler(clip_sample=True, clip_sample_range=0.8)
    scheduler.set_timesteps(15)
    y = x
    for t in scheduler.timesteps:
        y = scheduler.step(network_of(path, "epsilon")(y, t.expand(1, 3)), t, y).prev_sample
    torch.testing.assert_close(ours(path, DDIM(clip=0.8), x, vp.timesteps(15)), y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("steps", [20, 200])
def test_ddpm_equals_diffusers(monkeypatch, variance, clip, steps):
    x, path = noise(), path_of("linear")
    scheduler = DDPMScheduler(
        variance_type=variance, clip_sample=clip is not None, clip_sample_range=clip or 1.0
    )
    scheduler.set_timesteps(steps)
    y = x
    for i, t in enumerate(scheduler.timesteps):
        drawn = NOISE(i, y)
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, d=drawn, **__: d)
        y = scheduler.step(network_of(path, "epsilon")(y, t.expand(1, 3)), t, y).prev_sample
    mine = ours(path, DDPM(variance, clip), x, vp.timesteps(steps))
    # diffusers computes its coefficients in float32, which adds up over 200 steps.
    torch.testing.assert_close(mine, y, atol=1e-5 if steps < 100 else 4e-5, rtol=1e-5)


def test_ddpm_is_ddim_with_full_noise():
    x, path = noise(), path_of("cosine")
    times = vp.timesteps(30)
    torch.testing.assert_close(
        ours(path, DDPM(), x, times), ours(path, DDIM(1.0), x, times), atol=1e-5, rtol=1e-5
    )


def test_flow_solvers_run_networks_of_this_path():
    x, path = noise(), path_of("linear")
    levels = path.sigmas(vp.timesteps(40))
    start = path.to_flow(x, torch.full((1, 3), 975))
    ended = sample(path.as_velocity(network_of(path, "epsilon")), start, free(levels, x), solver("unipc"))
    torch.testing.assert_close(
        ended, sample(mixed, start, free(levels, x), solver("unipc")), atol=1e-4, rtol=0
    )


def test_each_frame_gets_its_own_time():
    seen = []
    path = path_of("linear")
    level_BT = path.sigmas(torch.tensor([900, 300, 5]))[None, :3]
    path.as_velocity(lambda x, t: seen.append(t) or x)(noise(), Step(0, 1, 0, level_BT))
    assert seen[0].tolist() == [[900, 300, 5]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: vp.timesteps(0),
        lambda: vp.timesteps(10, "leding"),
        lambda: vp.VariancePreserving.of("liner"),
        lambda: path_of("linear").split(noise(), noise(), torch.zeros(1, 3, dtype=torch.int64), "eps"),
    ],
)
def test_wrong_names_and_counts_are_refused(call):
    with pytest.raises(ConfigError, match=r"Did you mean|out of range|Available"):
        call()
