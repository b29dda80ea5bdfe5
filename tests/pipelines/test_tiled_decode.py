"""A decode that does not fit the free memory is done in tiles, with the same frames."""

from __future__ import annotations

import pytest
import torch

from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig
from kinema.pipelines.residency import turns
from kinema.pipelines.residency.turns import SHARE, SMALLEST, Turns, VAEInTurn


@pytest.fixture
def vae():
    torch.manual_seed(0)
    config = CausalVideoVAEConfig(
        **{"base_dim": 16, "z_dim": 4, "dim_mult": (1, 1, 1), "temperal_downsample": (False, True)},
        **{"latents_mean": (0.0,) * 4, "latents_std": (1.0,) * 4, "num_res_blocks": 1},
    )
    return CausalVideoVAE(config).eval().requires_grad_(False)


@pytest.mark.parametrize("share", [2.0, 0.7, 0.0])
def test_free_memory_says_how_a_picture_is_cut(vae, monkeypatch, share):
    z_BCTYX, asked = torch.randn(1, 4, 3, 6, 24), []
    whole = vae.decode(z_BCTYX)
    assert vae.packed or not vae.unprepared
    free = int(share * vae.needs(z_BCTYX.shape) / SHARE)
    monkeypatch.setattr(turns, "free_on", lambda device: free)
    stream = vae.stream
    monkeypatch.setattr(vae, "stream", lambda z, *, tiles: asked.append(tiles) or stream(z, tiles=tiles))
    frames = list(VAEInTurn(vae.stride, Turns(), lambda: vae).stream(z_BCTYX))
    assert (asked[0] is None) == (share > 1)
    assert (asked[0] == SMALLEST) == (share == 0)
    torch.testing.assert_close(torch.cat(frames, dim=2), whole, rtol=0, atol=1e-5)


def test_weights_that_are_not_prepared_yet_count(vae):
    before = vae.unprepared
    vae.decode(torch.randn(1, 4, 2, 1, 1))
    held = sum(packed.values.nbytes for packed in vae.packed.values())
    assert held <= before <= 1.5 * held
    assert vae.unprepared == 0
