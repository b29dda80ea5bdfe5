"""The causal video VAE equals diffusers' in both layouts, streams to the last bit, and never looks ahead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch.autograd.profiler import profile

from kinema.core.errors import GeometryError, ModelError
from kinema.models import vae_layers
from kinema.models.vae import (
    CausalVideoVAE,
    CausalVideoVAEConfig,
    StreamState,
    latent_frames_at_once,
)
from kinema.models.weights import STEM, bare

WAN_21 = {
    "base_dim": 8,
    "z_dim": 4,
    "num_res_blocks": 1,
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [1.0, 2.0, 0.5, 1.5],
}
WAN_22 = {
    "base_dim": 8,
    "decoder_base_dim": 12,
    "z_dim": 6,
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.1, -0.2, 0.3, 0.0, 0.5, -0.5],
    "latents_std": [1.0, 2.0, 0.5, 1.5, 0.8, 1.2],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
# As `vae/config.json` of Wan-AI/Wan2.2-TI2V-5B-Diffusers has it.
REAL_22 = json.loads(Path(__file__).with_name("wan_2_2_ti2v_5b_vae.json").read_text())


def reference(settings):
    """diffusers' class with weights that exercise everything: norms away from their start values."""
    torch.manual_seed(0)
    model = AutoencoderKLWan(**settings).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.add_(0.3 * torch.randn_like(parameter))
        else:
            parameter.mul_(1.5)
    return model


def ours(theirs):
    model = CausalVideoVAE(CausalVideoVAEConfig.from_mapping(dict(theirs.config)))
    model.load_state_dict(theirs.state_dict())
    return model.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _same_numbers_each_time():
    torch.manual_seed(0)


@pytest.fixture(scope="module", params=[WAN_21, WAN_22], ids=["2.1", "2.2"])
def pair(request):
    theirs = reference(request.param)
    return theirs, ours(theirs)


@pytest.fixture(scope="module")
def vae(pair):
    return pair[1]


def clip(vae, frames=9, rows=2, columns=3, batch=1):
    space = vae.stride.space
    return torch.rand(batch, 3, frames, rows * space, columns * space) * 2 - 1


def latents(vae, length=3, rows=2, columns=3, batch=1):
    return torch.randn(batch, vae.latent_channels, length, rows, columns)


def raw(vae, z_BCTYX):
    """Latents as diffusers' decoder takes them."""
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    return z_BCTYX * std + torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)


# -- equality with diffusers -----------------------------------------------------------------------------


def test_the_stride_follows_from_the_layers(pair):
    theirs, vae = pair
    assert vae.stride.time == theirs.config.scale_factor_temporal
    assert vae.stride.space == theirs.config.scale_factor_spatial


def test_moments_equal_diffusers(pair):
    theirs, vae = pair
    frames = clip(vae, batch=2)
    wanted = theirs.encode(frames).latent_dist
    mean, log_variance = vae.moments(frames)
    assert wanted.mean.std() > 0.1
    torch.testing.assert_close(mean, wanted.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_variance, wanted.logvar, rtol=0, atol=1e-5)


def test_latents_are_the_normalised_mode(pair):
    theirs, vae = pair
    frames = clip(vae)
    wanted = theirs.encode(frames).latent_dist.mode()
    torch.testing.assert_close(raw(vae, vae.encode(frames)), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["whole", "stream"])
def test_frames_equal_diffusers(pair, layout):
    theirs, vae = pair
    z_BCTYX = latents(vae, batch=2)
    wanted = theirs.decode(raw(vae, z_BCTYX)).sample
    frames = vae.decode(z_BCTYX) if layout == "whole" else torch.cat(list(vae.stream(z_BCTYX)), dim=2)
    assert wanted.std() > 0.1
    torch.testing.assert_close(frames, wanted, rtol=0, atol=1e-5)


def test_gradients_equal_diffusers(pair):
    theirs, vae = pair
    frames = clip(vae, frames=5)
    for model in (theirs, vae):
        model.requires_grad_(True)
        model.zero_grad()
    z = theirs.encode(frames).latent_dist.mode()
    # Both decoders clamp their frames, but ours not in `forward`: compare where nothing is clamped.
    inside = theirs.decode(z).sample.detach().abs() < 0.999
    (theirs.decode(z).sample * inside).square().mean().backward()
    (vae(frames) * inside).square().mean().backward()
    wanted = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in vae.named_parameters():
        scale = wanted[name].abs().max().clamp(min=1e-3)
        torch.testing.assert_close(parameter.grad / scale, wanted[name] / scale, rtol=0, atol=1e-3)
        parameter.requires_grad_(False)
    theirs.requires_grad_(False)


@pytest.mark.parametrize("settings", [{}, REAL_22, {"attn_scales": [0.5]}], ids=["2.1", "2.2", "attention"])
def test_full_size_models_have_diffusers_names_and_shapes(settings):
    with bare():
        theirs = AutoencoderKLWan.from_config(settings)
        vae = CausalVideoVAE(CausalVideoVAEConfig.from_mapping(settings))
    shapes = [{name: t.shape for name, t in model.state_dict().items()} for model in (theirs, vae)]
    assert shapes[0] == shapes[1]
    assert list(vae.config.latents_mean) == list(theirs.config.latents_mean)
    assert vae.stride.space == theirs.config.scale_factor_spatial


@pytest.mark.parametrize("extra", [{"clip_output": False}, {"notes": "x", "force_upcast": [1, None]}])
def test_plain_entries_that_diffusers_leaves_out_change_nothing(extra):
    assert CausalVideoVAEConfig.from_mapping(WAN_22 | extra) == CausalVideoVAEConfig.from_mapping(WAN_22)


# -- streaming and causality -----------------------------------------------------------------------------


def test_a_stream_is_the_clip_to_the_last_bit_one_latent_frame_at_a_time(vae):
    z_BCTYX = latents(vae)
    chunks = list(vae.stream(z_BCTYX))
    assert [c.shape[2] for c in chunks] == [1, 4, 4]
    assert torch.equal(torch.cat(chunks, dim=2), vae.decode(z_BCTYX))


def test_a_clip_that_comes_in_parts_is_encoded_to_the_same_bits_part_by_part(vae, monkeypatch):
    frames_BCFHW, order, chunk = clip(vae, frames=13), [], vae.encode_chunk

    def parts():
        for part in torch.split(frames_BCFHW, [1, 4, 4, 4], dim=2):
            order.append("asked")
            yield part.clone()

    def encode_chunk(part, state):
        order.append("coded")
        return chunk(part, state)

    whole = vae.encode(frames_BCFHW)
    monkeypatch.setattr(vae, "encode_chunk", encode_chunk)
    assert torch.equal(vae.encode_parts(parts()), whole)
    assert order == ["asked", "coded"] * 4
    with pytest.raises(GeometryError, match="is not a multiple of"):
        vae.encode_parts([torch.zeros(1, 3, 1, 20, 20)])


@pytest.mark.parametrize("at_once", [2, 3, 8])
def test_frames_do_not_depend_on_how_many_latents_are_decoded_together(vae, at_once, monkeypatch):
    z_BCTYX = latents(vae, length=6)
    one = list(vae.stream(z_BCTYX))
    monkeypatch.setattr(vae, "at_once", at_once)
    several = list(vae.stream(z_BCTYX))
    assert [c.shape[2] for c in several] == [c.shape[2] for c in one] == [1, 4, 4, 4, 4, 4]
    torch.testing.assert_close(torch.cat(several, dim=2), torch.cat(one, dim=2), rtol=0, atol=1e-5)


def test_a_longer_clip_begins_like_a_shorter_one_to_the_last_bit(vae):
    z_BCTYX = latents(vae, length=5)
    assert torch.equal(vae.decode(z_BCTYX)[:, :, :13], vae.decode(z_BCTYX[:, :, :4]))


@pytest.mark.parametrize(("free", "wanted"), [(0, 1), (8 * 10**9, 2), (10**12, 4)])
def test_a_gpu_decodes_as_many_together_as_its_memory_holds(monkeypatch, free, wanted):
    for name, value in {"mem_get_info": (free, 10**12), "memory_reserved": 9, "memory_allocated": 9}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    assert latent_frames_at_once(10**9, torch.device("cuda")) == wanted
    assert latent_frames_at_once(10**9, torch.device("cpu")) == 1


def test_later_latents_never_reach_earlier_frames(vae):
    z_BCTYX = latents(vae)
    altered = z_BCTYX.clone()
    altered[:, :, 2] += 1.0
    before, after = vae.decode(z_BCTYX), vae.decode(altered)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert (before[:, :, 5:] - after[:, :, 5:]).abs().amax(dim=(0, 1, 3, 4)).min() > 0


def test_later_frames_never_reach_earlier_latents(vae):
    frames = clip(vae)
    altered = frames.clone()
    altered[:, :, 5] += 0.5
    before, after = vae.encode(frames), vae.encode(altered)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.allclose(before[:, :, 2], after[:, :, 2])


def test_earlier_latents_do_reach_later_frames(vae):
    z_BCTYX = latents(vae)
    altered = z_BCTYX.clone()
    altered[:, :, 0] += 1.0
    assert not torch.allclose(vae.decode(z_BCTYX)[:, :, 5:], vae.decode(altered)[:, :, 5:])


def test_an_image_is_the_first_latent_of_a_clip(vae):
    frames, z_BCTYX = clip(vae), latents(vae)
    assert torch.equal(vae.encode(frames[:, :, :1]), vae.encode(frames)[:, :, :1])
    assert torch.equal(vae.decode(z_BCTYX[:, :, :1]), vae.decode(z_BCTYX)[:, :, :1])


def test_two_streams_at_once_do_not_disturb_each_other(vae):
    first, second = latents(vae), latents(vae)
    pairs = list(zip(vae.stream(first), vae.stream(second), strict=True))
    assert torch.equal(torch.cat([a for a, _ in pairs], dim=2), vae.decode(first))
    assert torch.equal(torch.cat([b for _, b in pairs], dim=2), vae.decode(second))


def test_a_decode_goes_on_from_its_state(vae):
    z_BCTYX, state = latents(vae), StreamState()
    chunks = [vae.decode_chunk(z, state) for z in torch.split(raw(vae, z_BCTYX), 1, dim=2)]
    assert torch.equal(torch.cat(chunks, dim=2).clamp(-1, 1), vae.decode(z_BCTYX))


def peak_bytes(work):
    """Most bytes of tensors alive at once while `work` runs, counted by allocations, not by the clock."""
    with profile(profile_memory=True) as record:
        work()
    alive = peak = 0
    for event in record.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def test_the_memory_of_a_stream_does_not_grow_with_the_clip(vae):
    def consume(length):
        return lambda: [None for _ in vae.stream(z_BCTYX[:, :, :length])]

    z_BCTYX = latents(vae, length=9)
    short, long = peak_bytes(consume(3)), peak_bytes(consume(9))
    assert short > 10_000
    assert long == short


def test_a_state_keeps_no_more_alive_than_it_remembers(vae):
    z_BCTYX, state = latents(vae), StreamState()
    for z in torch.split(z_BCTYX, 1, dim=2):
        vae.decode_chunk(z, state)
    assert len(state.past) > 10
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in state.past.values())


# -- short cuts ------------------------------------------------------------------------------------------


def test_short_cuts_change_nothing_but_rounding(vae, monkeypatch):
    frames, z_BCTYX = clip(vae), latents(vae)
    fast = vae.encode(frames), vae.decode(z_BCTYX)
    monkeypatch.setattr(vae_layers, "_inference_on_cpu", lambda x, weight: False)
    plain = vae.encode(frames), vae.decode(z_BCTYX)
    for quick, slow in zip(fast, plain, strict=True):
        assert not torch.equal(quick, slow)  # otherwise this compares a path with itself
        torch.testing.assert_close(quick, slow, rtol=0, atol=1e-5)


def test_bfloat16_is_near_float32(pair):
    half = ours(pair[0]).to(torch.bfloat16)
    z_BCTYX = latents(half)
    frames = half.decode(z_BCTYX)
    assert frames.dtype == torch.bfloat16
    assert (frames.float() - pair[1].decode(z_BCTYX)).square().mean().sqrt() < 0.03


def test_what_encode_returns_may_enter_a_training_graph(vae):
    weight = torch.ones((), requires_grad=True)
    (vae.encode(clip(vae, frames=1)) * weight).sum().backward()
    assert weight.grad is not None


def test_a_black_latent_gives_finite_frames(vae):
    """The norm of nothing is nothing, not a division by zero."""
    with torch.no_grad():
        silent = CausalVideoVAE(vae.config).eval()
        for parameter in silent.parameters():
            parameter.zero_()
    assert torch.equal(
        silent.decode(latents(vae)), torch.zeros(1, 3, 9, 2 * vae.stride.space, 3 * vae.stride.space)
    )


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "near"), [(2, "1 and 5"), (8, "5 and 9"), (0, "1 and 5")])
def test_lengths_that_do_not_fit_are_refused_with_the_nearest(vae, frames, near):
    with pytest.raises(GeometryError, match=f"frames={frames}.*{near}"):
        vae.encode(clip(vae, frames=frames))


def test_sizes_that_do_not_fit_are_refused_with_the_nearest(vae):
    space = vae.stride.space
    with pytest.raises(GeometryError, match=f"{2 * space + 1}x{space} is not .*{2 * space}x{space}"):
        vae.encode(torch.zeros(1, 3, 1, space, 2 * space + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents_mean": [0.0]}, "z_dim=4"),
        ({"latents_std": [1.0, 1.0, 1.0, 0.0]}, "latents_std"),
        ({"dim_mult": [1, 2]}, "temperal_downsample"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config"),
        ({"base_dim": "8"}, "base_dim"),
        ({"_class_name": "AutoencoderKL"}, "AutoencoderKL,"),
    ],
)
def test_configs_of_other_models_are_refused(change, message):
    with pytest.raises(ModelError, match=message):
        CausalVideoVAEConfig.from_mapping({**WAN_21, **change})


@pytest.mark.parametrize("shard", ["10GB", "100KB"])
def test_a_diffusers_folder_loads(tmp_path, shard):
    theirs = reference(WAN_21)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    vae = CausalVideoVAE.from_folder(tmp_path)
    assert not vae.training
    assert not any(p.requires_grad for p in vae.parameters())
    z_BCTYX = latents(vae)
    torch.testing.assert_close(
        vae.decode(z_BCTYX), theirs.decode(raw(vae, z_BCTYX)).sample, rtol=0, atol=1e-5
    )
    assert CausalVideoVAE.from_folder(tmp_path, torch.bfloat16).quant_conv.weight.dtype == torch.bfloat16


def test_weights_of_another_size_are_refused(tmp_path):
    reference(WAN_21).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_res_blocks": 2}))
    with pytest.raises(ModelError, match=r"missing .*decoder\.up_blocks.*\.\.\."):
        CausalVideoVAE.from_folder(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(WAN_21))
    (tmp_path / f"{STEM}.bin").write_bytes(b"never read")
    with pytest.raises(ModelError, match="pickled"):
        CausalVideoVAE.from_folder(tmp_path)
