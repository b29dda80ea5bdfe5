"""Winograd's convolutions equal the direct ones, whatever the sizes, threads and chunks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kinema.models import vae_layers, winograd
from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig

pytestmark = pytest.mark.skipif(winograd.native().loaded is None, reason=winograd.native().note)
AGREES = 5e-5


@pytest.fixture(scope="module")
def kernels():
    found = winograd.kernels(torch.zeros(1))
    assert found is not None
    return found


def direct(x, past, weight, bias, plus=None, *, doubled=False):
    """In float64, as the definition says."""
    if past is None:
        past = torch.zeros_like(x[:, :, :1]).repeat(1, 1, weight.shape[2] - 1, 1, 1)
    frames = torch.cat((past, x), dim=2).double()
    if doubled:
        frames = frames.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    out = F.conv3d(frames, weight.double(), bias.double(), padding=(0, 1, 1))
    return out if plus is None else out + plus


@given(
    channels=st.integers(1, 40),
    outputs=st.integers(1, 40),
    frames=st.integers(1, 5),
    rows=st.integers(1, 11),
    columns=st.integers(1, 11),
    batch=st.integers(1, 2),
    started=st.booleans(),
    doubled=st.booleans(),
    added=st.booleans(),
    threads=st.sampled_from([1, 3]),
)
@settings(max_examples=60)
def test_any_convolution_equals_the_direct_one(
    kernels, channels, outputs, frames, rows, columns, batch, started, doubled, added, threads
):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    x = draw(batch, channels, frames, rows, columns)
    past = draw(batch, channels, 2, rows, columns) if started else None
    weight, bias = draw(outputs, channels, 3, 3, 3) / (27 * channels) ** 0.5, draw(outputs)
    scale = 2 if doubled else 1
    plus = draw(batch, outputs, frames, rows * scale, columns * scale) if added else None
    wanted = direct(x, past, weight, bias, plus, doubled=doubled)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for paired in {False, frames % 2 == 0 or (frames == 1 and not started)}:
            packed = kernels.pack(weight, paired=paired)
            found = kernels.convolve(x, past, packed, bias, plus=plus, doubled=doubled)
            assert (found - wanted).abs().max() < AGREES
    finally:
        torch.set_num_threads(before)


def test_a_kernel_over_space_alone(kernels):
    x, weight, bias = torch.randn(2, 20, 3, 7, 6), torch.randn(24, 20, 3, 3) / 14, torch.randn(24)
    found = kernels.convolve(x, None, kernels.pack(weight, paired=False), bias)
    wanted = F.conv3d(x.double(), weight[:, :, None].double(), bias.double(), padding=(0, 1, 1))
    assert (found - wanted).abs().max() < AGREES


@pytest.mark.parametrize("paired", [False, True])
def test_bits_depend_neither_on_threads_nor_on_chunks(kernels, paired):
    x, past = torch.randn(1, 48, 4, 37, 30), torch.randn(1, 48, 2, 37, 30)
    packed, bias = kernels.pack(torch.randn(32, 48, 3, 3, 3), paired=paired), torch.zeros(32)
    whole = kernels.convolve(x, past, packed, bias)
    first = kernels.convolve(x[:, :, :2], past, packed, bias)
    second = kernels.convolve(x[:, :, 2:], x[:, :, :2], packed, bias)
    assert torch.equal(torch.cat((first, second), dim=2), whole)
    torch.set_num_threads(4)
    try:
        assert torch.equal(kernels.convolve(x, past, packed, bias), whole)
    finally:
        torch.set_num_threads(1)


@given(channels=st.integers(1, 70), scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e3, 1e10]))
def test_the_fused_activation_equals_its_parts(kernels, channels, scale):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(1, channels, 2, 3, 5, generator=generator) * scale
    gain = 30 * torch.randn(channels, generator=generator)
    norm = torch.linalg.vector_norm(x.double(), dim=1, keepdim=True).clamp(min=1e-12)
    wanted = F.silu(gain.view(-1, 1, 1, 1) * x.double() / norm)
    found = kernels.activate(x, gain, 1e-12)
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=1e-6)


def test_what_is_not_a_number_stays_so(kernels):
    x = torch.ones(1, 20, 1, 4, 9)
    x[0, 3, 0, 1, 2] = float("nan")
    active = kernels.activate(x, torch.ones(20), 1e-12)
    assert active.isnan().any(dim=1).sum() == 1
    packed = kernels.pack(torch.ones(20, 20, 3, 3, 3), paired=False)
    assert kernels.convolve(x, None, packed, None).isnan().any()


@pytest.mark.parametrize("residual", [False, True])
def test_a_vae_agrees_with_and_without(residual):
    """In the layouts of Wan 2.1 and 2.2, wide enough for every layer to gain."""
    patches = {"in_channels": 12, "out_channels": 12, "patch_size": 2} if residual else {}
    torch.manual_seed(0)
    config = CausalVideoVAEConfig(base_dim=16, num_res_blocks=1, is_residual=residual, **patches)
    vae = CausalVideoVAE(config).eval().requires_grad_(False)
    z_BCTYX = torch.randn(1, 16, 4, 3, 2)
    frames = torch.rand(1, 3, 9, 3 * vae.stride.space, 2 * vae.stride.space) * 2 - 1
    fast = vae.decode(z_BCTYX), vae.encode(frames)
    with winograd.without():
        plain = vae.decode(z_BCTYX), vae.encode(frames)
    for quick, slow in zip(fast, plain, strict=True):
        assert not torch.equal(quick, slow)  # otherwise this compares a path with itself
        assert (quick - slow).abs().max() < AGREES * slow.abs().max().clamp(min=1)


def test_changed_weights_are_packed_anew_and_moved_ones_forgotten():
    torch.manual_seed(0)
    vae = CausalVideoVAE(CausalVideoVAEConfig(base_dim=16, num_res_blocks=1)).eval().requires_grad_(False)
    z_BCTYX = torch.randn(1, 16, 2, 2, 2)
    before = vae.decode(z_BCTYX)
    kept = dict(vae.packed)
    vae.decode(z_BCTYX)
    assert kept
    assert all(vae.packed[layer] is packed for layer, packed in kept.items())
    vae.decoder.mid_block.resnets[0].conv1.weight.mul_(2)
    after = vae.decode(z_BCTYX)
    with winograd.without():
        assert (after - vae.decode(z_BCTYX)).abs().max() < AGREES
    assert (after - before).abs().max() > 100 * AGREES
    vae.double()
    assert not vae.packed


def test_gradients_other_precisions_and_narrow_layers_go_elsewhere():
    wide, narrow = nn.Parameter(torch.zeros(16, 16, 3, 3, 3)), torch.zeros(16, 3, 3, 3, 3)
    x = torch.zeros(1, 16, 1, 4, 4)
    assert vae_layers.compiled_for(x, wide) is None
    with torch.no_grad():
        assert vae_layers.compiled_for(x, wide) is not None
        assert vae_layers.compiled_for(x[:, :3], narrow) is None
        assert vae_layers.compiled_for(x.bfloat16(), wide.bfloat16()) is None
        with winograd.without():
            assert vae_layers.compiled_for(x, wide) is None
