"""Touches keep what they are not about: noise keeps brightness and contrast, contrast keeps the mean."""

from __future__ import annotations

import pytest
import torch

from kinema.animation import retouch
from kinema.core.errors import ConfigError
from kinema.core.runtime import generator


def picture(height: int = 48, width: int = 64) -> torch.Tensor:
    rows, columns = torch.linspace(0.2, 0.8, height)[:, None], torch.linspace(0, 0.2, width)[None]
    return (rows + columns).expand(1, 3, height, width).clone()


@pytest.mark.parametrize("kind", retouch.NOISES)
def test_noise_is_centred_and_repeats_with_its_seed(kind):
    shape = torch.Size((1, 3, 48, 64))
    z, again = (retouch.noise(shape, kind, generator(7, "a")) for _ in range(2))
    assert torch.equal(z, again)
    assert not torch.equal(z, retouch.noise(shape, kind, generator(8, "a")))
    assert abs(float(z.mean())) < 0.02
    assert 0.1 < float(z.std()) < 0.3


def test_perlin_noise_is_smooth_and_grey():
    z = retouch.noise(torch.Size((1, 3, 64, 96)), "perlin", generator(1, "a"))
    assert torch.equal(z[:, 0], z[:, 2])
    assert float(z.abs().max()) == pytest.approx(0.5)
    assert float(z.diff(dim=3).abs().mean()) < 0.25 * float(z.std())  # neighbours are alike


def test_noise_fed_back_does_not_turn_a_picture_grey():
    """Blending towards noise would leave 0.9 ** 20 = 12 % of the contrast."""
    x = picture()
    for f in range(20):
        x = retouch.blur(retouch.add_noise(x, 0.1, "uniform", generator(f, "a")), 1.0)
    inner = x[..., 8:-8, 8:-8], picture()[..., 8:-8, 8:-8]
    assert float(inner[0].std() / inner[1].std()) > 0.9


def test_unknown_noise_is_refused_by_name():
    with pytest.raises(ConfigError, match="Did you mean 'perlin'"):
        retouch.noise(torch.Size((1, 3, 8, 8)), "perlim", generator(0, "a"))


def test_contrast_keeps_the_mean_and_scales_the_spread():
    x = picture()
    y = retouch.contrast(x, 1.5)
    assert torch.allclose(y.mean(dim=(2, 3)), x.mean(dim=(2, 3)), atol=1e-6)
    assert torch.allclose(y.std(dim=(2, 3)), 1.5 * x.std(dim=(2, 3)), atol=1e-6)


def test_sharpening_undoes_a_slight_blur_and_leaves_ramps_alone():
    edge = torch.zeros(1, 3, 16, 32)
    edge[..., 16:] = 1
    soft = retouch.blur(edge, 1.0)
    assert float((retouch.sharpen(soft, 0.8, 1.0) - edge).square().mean()) < float(
        (soft - edge).square().mean()
    )
    ramp = picture()
    changed = retouch.sharpen(ramp, 1.0, 1.0)[..., 4:-4, 4:-4] - ramp[..., 4:-4, 4:-4]
    assert float(changed.abs().max()) < 1e-5
    assert torch.equal(retouch.sharpen(soft, 1.0, 1.0, threshold=1.0), soft)


def test_a_blur_keeps_flat_pictures_and_spreads_a_point_as_a_gaussian():
    flat = torch.full((1, 3, 9, 9), 0.3)
    assert torch.allclose(retouch.blur(flat, 2.0), flat)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = retouch.blur(point, 2.5)[0, 0]
    at = torch.arange(41) - 20.0
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    assert float((spread.sum(dim=0) * at**2).sum()) == pytest.approx(2.5**2, rel=0.05)
