"""Training of the patch codec: planted axes are found, the decoder learns, runs resume to the last bit."""

import json
from dataclasses import replace

import pytest
import torch

from kinema.core.runtime import generator
from kinema.models.codec import PatchCodec, PatchCodecConfig
from kinema.training.codec import (
    CHECKPOINT,
    DecoderSettings,
    decode_open,
    fidelity,
    fit_linear,
    fit_patches,
    matrices,
    noisy_latents,
    reconstruction_loss,
    train_decoder,
    vary,
)
from kinema.training.loop import OptimiserSettings
from kinema.training.pace import Pace

CONFIG = PatchCodecConfig(patch=4, mean_channels=6, deviation_channels=4, width=16, blocks=1, fine=2)
SETTINGS = DecoderSettings(
    steps=6,
    solve=4,
    batch=2,
    frames=5,
    every=2,
    optimiser=OptimiserSettings(rate=3e-3, matrix_rate=1e-2, warmup=1, decay=0.5),
)


def draw(index, batch=2, frames=5):
    """Smooth drifting waves: pixels depend on each other across patches, so there is something to learn."""
    rng = generator(7, f"clip {index}")
    phase, tilt, speed = (torch.rand(batch, 3, 1, 1, 1, generator=rng) * 6 for _ in range(3))
    f, y, x = torch.meshgrid(torch.arange(frames), torch.arange(12), torch.arange(12), indexing="ij")
    return torch.sign(torch.sin(phase + 0.8 * x + tilt / 6 * y + 0.2 * speed * f)) * 0.8


def fitted():
    codec = PatchCodec(CONFIG, seed=3).requires_grad_(False)
    fit_linear(codec, map(draw, range(20)))
    return codec


def test_axes_find_the_planted_subspace():
    rng = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(48, 6, generator=rng))[0]
    centre = torch.linspace(-0.2, 0.2, 48)
    codes = torch.randn(4000, 6, generator=rng) * torch.tensor([6, 5, 4, 3, 2, 1.0]) / 10
    patches = (centre + codes @ axes.T).view(40, 10, 10, 3, 4, 4)
    frames = patches.permute(0, 3, 1, 4, 2, 5).reshape(40, 3, 1, 40, 40)
    codec = PatchCodec(CONFIG).requires_grad_(False)
    assert fit_linear(codec, [frames.repeat(1, 1, 5, 1, 1)]) == 8000
    found = codec.projection.mean_basis
    overlap = torch.linalg.svdvals(found.T @ axes)
    torch.testing.assert_close(overlap, torch.ones(6), atol=2e-3, rtol=0)
    torch.testing.assert_close(codec.projection.centre, centre, atol=0.03, rtol=0)
    assert codec.linear_decode(codec.encode(frames)).sub(frames.clamp(-1, 1)).abs().mean() < 2e-3


def test_fitted_latents_have_unit_mean_variance_and_fewer_axes_lose_more():
    codec = fitted()
    clips = torch.cat([draw(i) for i in range(20)])
    z = codec.encode(clips)
    second = z[:, 6:].square().mean(dim=(0, 2, 3, 4)) * 2  # a still's zeros are half of the two latent frames
    first = z[:, :6].var(dim=(0, 2, 3, 4), correction=0)
    assert torch.cat([first, second]).mean().item() == pytest.approx(1, rel=0.02)
    fewer = PatchCodec(replace(CONFIG, mean_channels=2, deviation_channels=2)).requires_grad_(False)
    fit_linear(fewer, map(draw, range(20)))
    assert fidelity(fewer, [clips], linear=True)[1] < fidelity(codec, [clips], linear=True)[1] - 1


def test_fidelity_is_the_psnr_of_first_and_later_frames():
    codec = fitted()
    x = draw(50)
    error = ((codec.linear_decode(codec.encode(x)) - x) / 2).square()
    expected = [-10 * error[:, :, part].mean().log10().item() for part in (slice(0, 1), slice(1, None))]
    assert fidelity(codec, [x], linear=True) == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def planted(codec):
    """A codec whose frames come from another solution of the patch layers, and clips that only it decodes."""
    rng = torch.Generator().manual_seed(11)
    for value in (codec.decoder.lapped.weight, codec.decoder.patches.weight, codec.decoder.patches.bias):
        value.copy_(0.2 * torch.randn(value.shape, generator=rng))
    return codec


@pytest.mark.parametrize("length", [1, 3])
def test_solved_patch_layers_are_the_ones_that_were_planted(monkeypatch, length):
    codec = planted(fitted())
    codes = [torch.randn(4, 10, length, 6, 6, generator=generator(1, f"{i}")) for i in range(12)]
    targets = {i: decode_open(codec, z) for i, z in enumerate(codes)}
    solved = fitted()
    order = iter(codes)
    monkeypatch.setattr("kinema.training.codec.noisy_latents", lambda *_: next(order))
    fit_patches(solved, targets.values(), ridge=1e-9)
    for z, target in zip(codes, targets.values(), strict=True):
        torch.testing.assert_close(decode_open(solved, z), target, atol=1e-3, rtol=0)


def test_solved_patch_layers_beat_the_linear_codec_on_what_they_saw():
    codec = fitted()
    clips = [draw(i) for i in range(20)]
    linear = fidelity(codec, clips)
    fit_patches(codec, clips)
    solved = fidelity(codec, clips)
    assert solved[0] > linear[0] + 0.5
    assert solved[1] > linear[1] + 0.2


def test_loss_counts_each_kind_of_error():
    s = DecoderSettings(square=3, edges=5, change=7)
    target = torch.zeros(1, 1, 2, 2, 2)
    assert reconstruction_loss(target + 0.5, target, s).item() == pytest.approx(0.5 + 3 * 0.25)
    rows = target.clone()
    rows[:, :, :, 1] = 0.5
    assert reconstruction_loss(rows, target, s).item() == pytest.approx(0.25 + 3 * 0.125 + 5 * 0.5)
    frames = target.clone()
    frames[:, :, 1] = 0.5
    assert reconstruction_loss(frames, target, s).item() == pytest.approx(0.25 + 3 * 0.125 + 7 * 0.5)


def test_noise_on_latents_stays_below_its_limit_and_follows_the_generator():
    codec, x = fitted(), draw(0)
    z = codec.encode(x)
    noisy = noisy_latents(codec, x, 0.5, generator(0, "a"))
    assert 0 < (noisy - z).std() < 0.5
    assert torch.equal(noisy, noisy_latents(codec, x, 0.5, generator(0, "a")))
    assert torch.equal(noisy_latents(codec, x, 0.0, generator(0, "a")), z)


def test_open_decode_is_decode_before_the_clamp():
    codec = fitted()
    z = 3 * codec.encode(draw(0))
    assert decode_open(codec, z).abs().max() > 1
    assert torch.equal(decode_open(codec, z).clamp(-1, 1), codec.decode(z))


def test_varied_clips_hold_the_same_pixels_in_other_places():
    x = draw(0, batch=16)
    varied = vary(x, generator(0, "vary"))
    assert varied.shape == x.shape
    assert sum(torch.equal(a, b) for a, b in zip(x, varied, strict=True)) < 8
    for a, b in zip(x, varied, strict=True):
        assert torch.equal(a.flatten().sort()[0], b.flatten().sort()[0])
    assert torch.equal(varied, vary(x, generator(0, "vary")))


def test_training_improves_the_decoder_and_leaves_the_encoder(tmp_path):
    codec = fitted()
    before, clips = codec.encoder_sha256(), [draw(0), draw(1)]
    linear = fidelity(codec, clips)
    settings = replace(SETTINGS, steps=60, noise=0.02, optimiser=replace(SETTINGS.optimiser, rate=2e-2))
    assert train_decoder(codec, lambda i: draw(i % 2), settings, tmp_path)
    trained = fidelity(codec, clips)
    assert trained[0] > linear[0] + 0.5
    assert trained[1] > linear[1] + 0.5
    assert codec.encoder_sha256() == before
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    whole, halves = fitted(), fitted()
    assert train_decoder(whole, draw, SETTINGS, tmp_path / "whole")

    seen = []

    def stops_at_five(index):
        seen.append(index)
        if seen.count(5) == 2:  # once for the latents' spread, once for the step
            raise KeyboardInterrupt
        return draw(index)

    with pytest.raises(KeyboardInterrupt):
        train_decoder(halves, stops_at_five, SETTINGS, tmp_path / "halves")
    resumed = fitted()
    assert (tmp_path / "halves" / CHECKPOINT).exists()
    assert train_decoder(resumed, draw, SETTINGS, tmp_path / "halves")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_out_of_time_is_not_done_but_resumable(tmp_path):
    assert not train_decoder(fitted(), draw, SETTINGS, tmp_path, pace=Pace(0))
    assert train_decoder(fitted(), draw, SETTINGS, tmp_path)


def test_muon_gets_the_blocks_matrices_only():
    names = matrices(PatchCodec(CONFIG).decoder)
    assert sorted(names) == [f"blocks.0.{layer}.weight" for layer in ("inner", "mix", "outer")]
