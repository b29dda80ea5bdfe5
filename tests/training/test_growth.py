"""Larger transformers that begin as smaller ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinema.core.errors import ConfigError
from kinema.models.dit import Conditioning, VideoDiT, VideoDiTConfig
from kinema.models.layers import foretold
from kinema.training.dit import Task, objective
from kinema.training.growth import LastLayer, before_last, deepened, sources

CONFIG = VideoDiTConfig(
    patch_size=(1, 2, 2),
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=3,
    out_channels=3,
    text_dim=8,
    freq_dim=16,
    ffn_dim=32,
    num_layers=3,
)


def made(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    return VideoDiT(config).eval()


def task(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, 4, 3, 5, 4, 4, generator=rng).unbind(0)
    s_BT = torch.rand(4, 5, generator=rng)
    s = s_BT[:, None, :, None, None]
    told = Conditioning(states_BKLD=torch.randn(4, 1, 6, 8, generator=rng))
    counted = torch.ones(4, 5).index_fill_(1, torch.tensor([0]), 0)
    return Task((1 - s) * latents + s * noise, s_BT, model.prepare(told), noise - latents, counted)


def said(model, given):
    with torch.no_grad():
        return model(given.x_BCTYX, 1000 * given.sigma_BT, given.context)


@pytest.mark.parametrize(
    ("old", "new", "copied"),
    [
        (3, 3, [0, 1, 2]),
        (3, 4, [0, 1, 2, 2]),
        (8, 12, [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7]),
        (2, 4, [0, 0, 1, 1]),
        (5, 7, [0, 1, 2, 2, 3, 4, 4]),
    ],
)
def test_blocks_are_repeated_evenly(old, new, copied):
    assert sources(old, new) == copied


@pytest.mark.parametrize("new", [2, 7])
def test_a_model_grows_to_twice_its_depth_at_most(new):
    with pytest.raises(ConfigError, match=f"num_layers={new}: 3 blocks can become 3 to 6"):
        sources(3, new)


def test_a_deeper_model_begins_with_the_same_velocities():
    small, large = made(), made(replace(CONFIG, num_layers=5), seed=1)
    given = task(small)
    large.load_state_dict(deepened(small.state_dict(), sources(3, 5)))
    again = replace(given, context=task(large).context)
    torch.testing.assert_close(said(large, again), said(small, given), rtol=1e-5, atol=1e-5)


def test_new_blocks_learn_from_the_first_step():
    small, large = made(), made(replace(CONFIG, num_layers=4), seed=1)
    large.load_state_dict(deepened(small.state_dict(), sources(3, 4)))
    objective(large, task(large)).backward()
    for name in ("attn1.to_out.0", "attn2.to_out.0", "ffn.net.2"):
        assert large.get_parameter(f"blocks.3.{name}.weight").grad.abs().max() > 1e-6


def test_what_is_foretold_is_the_best_linear_guess():
    """Over latents and noise of unit variance no other multiple of x is nearer to the velocity."""
    rng = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 1, 1, 400, 400, generator=rng).unbind(0)
    for s in (0.0, 0.2, 0.5, 0.9, 1.0):
        x, v = (1 - s) * latents + s * noise, noise - latents
        best = float((x * v).mean() / x.square().mean())
        guess = foretold(x, torch.full((1, 1), 1000 * s))
        assert float((guess * x).mean() / x.square().mean()) == pytest.approx(best, abs=0.02)
    assert torch.equal(foretold(noise, torch.full((1, 1), 1000.0)), noise)


def test_a_skip_adds_what_is_foretold_and_nothing_else():
    plain, skipping = made(), made(replace(CONFIG, noise_skip=True), seed=1)
    skipping.load_state_dict(plain.state_dict())
    given = task(plain)
    known = foretold(given.x_BCTYX, 1000 * given.sigma_BT)
    torch.testing.assert_close(said(skipping, given), said(plain, given) + known)


def test_a_fitted_last_layer_is_that_of_least_error():
    """Any change of its weights makes the error over what it saw larger; before, it was far larger."""
    model = made(replace(CONFIG, noise_skip=True))
    given = task(model)
    before = float(objective(model, given).detach())
    last = LastLayer(model)
    last.see(given)
    last.fit(ridge=0.0)
    found = float(objective(model, given).detach())
    assert found < 0.8 * before
    for parameter in (model.proj_out.weight, model.proj_out.bias):
        gradient = torch.autograd.grad(objective(model, given), parameter)[0]
        assert gradient.abs().max() < 1e-4


def test_the_last_layer_is_fitted_on_what_it_reads():
    model = made()
    given = task(model)
    read_BND = before_last(model, given.x_BCTYX, 1000 * given.sigma_BT, given.context)
    out = model.proj_out(read_BND).unflatten(1, (5, 2, 2)).unflatten(-1, (1, 2, 2, 3))
    shown = out.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(2, 3).flatten(3, 4).flatten(4, 5)
    torch.testing.assert_close(shown, said(model, given))
