"""Colours: the space is right, the match is exact, and 200 redraws do not drift."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from kinema.animation.colour import (
    blended,
    colour_distance,
    colours,
    keep_colours,
    recolour,
    transport,
)
from kinema.animation.oklab import from_oklab, to_linear, to_oklab, to_srgb
from kinema.core.errors import ConfigError


def scene(seed: int, side: int = 32, batch: int = 1) -> torch.Tensor:
    """Smooth random colours well inside 0..1."""
    coarse = torch.rand(batch, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return 0.25 + 0.5 * F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def test_oklab_has_the_published_values():
    rgb = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).double()[:, :, None, None]
    lab = to_oklab(rgb)[..., 0, 0]
    published = [[1, 0, 0], [0.627955, 0.224863, 0.125846], [0.866440, -0.233888, 0.179498],
                 [0.452014, -0.032457, -0.311528]]  # fmt: skip
    torch.testing.assert_close(lab, torch.tensor(published).double(), atol=2e-6, rtol=0)


def test_the_ways_there_and_back_are_exact():
    frame = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double() * 1.2 - 0.1
    torch.testing.assert_close(to_srgb(to_linear(frame)), frame, atol=1e-12, rtol=0)
    inside = frame.clamp(0, 1)
    torch.testing.assert_close(from_oklab(to_oklab(inside)), inside, atol=1e-6, rtol=0)
    grey = to_linear(torch.full((1, 3, 1, 1), 0.5))
    assert grey.flatten()[0].item() == pytest.approx(0.214041, abs=1e-6)


def test_a_gradient_reaches_black_and_white():
    frame = torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2).clone().requires_grad_()
    to_oklab(frame).sum().backward()
    assert torch.isfinite(frame.grad).all()


def test_a_frame_gets_the_targets_mean_and_covariance():
    frame, target = scene(1), colours(scene(2))
    assert colour_distance(colours(frame), target).item() > 0.03
    assert colour_distance(colours(recolour(frame, target)), target).item() < 1e-3


def test_a_frame_gets_the_targets_distributions():
    frame, target = scene(1), colours(0.25 + 0.5 * scene(2))  # pale, so that sRGB can show all of it
    assert (colours(frame).quantiles_BCQ - target.quantiles_BCQ).abs().max() > 0.05
    got = colours(recolour(frame, target, method="histogram"))
    torch.testing.assert_close(got.quantiles_BCQ, target.quantiles_BCQ, atol=1e-6, rtol=0)


def test_transport_is_the_optimal_symmetric_map():
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(2, 3, 3, generator=generator).double() * 0.2 for _ in range(2))
    source, target = a @ a.mT + 0.02 * torch.eye(3), b @ b.mT + 0.02 * torch.eye(3)
    found = transport(source, source * 1.7)
    torch.testing.assert_close(
        found, math.sqrt(1.7) * torch.eye(3).double().expand(2, 3, 3), atol=1e-4, rtol=0
    )
    found = transport(source, target)
    torch.testing.assert_close(found, found.mT)
    assert torch.linalg.eigvalsh(found).min() > 0


def test_the_same_colours_leave_a_frame_alone():
    frame = scene(4, batch=2)
    torch.testing.assert_close(recolour(frame, colours(frame)), frame, atol=1e-5, rtol=0)


def test_weights_choose_the_pixels_that_count():
    frame = scene(5)
    frame[..., :16] = 0.9
    right = torch.zeros(1, 1, 32, 32)
    right[..., 16:] = 1
    chosen, cut = colours(frame, right), colours(frame[..., 16:])
    torch.testing.assert_close(chosen.mean_BC, cut.mean_BC)
    torch.testing.assert_close(chosen.covariance_BCC, cut.covariance_BCC)
    torch.testing.assert_close(chosen.quantiles_BCQ, cut.quantiles_BCQ)
    torch.testing.assert_close(colours(frame, right * 0).mean_BC, colours(frame).mean_BC)


def test_noise_of_a_flat_frame_is_not_blown_up():
    flat = torch.full((1, 3, 16, 16), 0.5) + 0.001 * torch.randn(
        1, 3, 16, 16, generator=torch.Generator().manual_seed(6)
    )
    got = recolour(flat, colours(scene(7)))
    assert got.std(dim=(2, 3)).max() < 4 * flat.std(dim=(2, 3)).max()


def redraw(frame: torch.Tensor, step: int) -> torch.Tensor:
    """What image models do to their own output: more contrast, warmer, some of it new."""
    fresh = scene(100 + step) - 0.5
    tint = torch.tensor([1.004, 1.0, 0.996])[None, :, None, None]
    return ((frame - 0.5) * 1.01 * tint + 0.502 + 0.05 * fresh).clamp(0, 1)


def drifted(window: float | None, frames: int = 200) -> float:
    frame = scene(8)
    reference = colours(frame)
    for step in range(frames):
        redrawn = redraw(frame, step)
        frame = redrawn if window is None else keep_colours(redrawn, frame, reference, window=window)
    return colour_distance(colours(frame), reference).item()


def test_two_hundred_redraws_do_not_drift():
    without, kept = drifted(None), drifted(25)
    assert without > 0.1
    assert kept < 0.001


def test_what_the_camera_brings_into_view_stays():
    before, reference = scene(9), colours(scene(10))
    torch.testing.assert_close(
        keep_colours(before, before, reference, window=math.inf), before, atol=1e-5, rtol=0
    )
    gap = colour_distance(colours(before), reference).item()
    slowly = colours(keep_colours(before, before, reference, window=10))
    assert 0.8 * gap < colour_distance(slowly, reference).item() < 0.95 * gap
    at_once = colours(keep_colours(before, before, reference, window=1))
    assert colour_distance(at_once, reference).item() < 0.05 * gap


def test_values_out_of_range_are_refused():
    frame = scene(11)
    with pytest.raises(ConfigError, match=r"window=0\.5"):
        keep_colours(frame, frame, colours(frame), window=0.5)
    with pytest.raises(ConfigError, match="unknown colour method 'lab'"):
        recolour(frame, colours(frame), method="lab")
    with pytest.raises(ConfigError, match="share=2"):
        blended(colours(frame), colours(frame), 2)
