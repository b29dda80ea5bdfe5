"""The patch codec: causality, exact streaming, continuation, and one encoder for images and clips."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kinema.core.errors import ConfigError, GeometryError, ModelError
from kinema.models.codec import CONFIG, WEIGHTS, PatchCodec, PatchCodecConfig

SMALL = PatchCodecConfig(mean_channels=10, deviation_channels=7, width=16, blocks=2, fine=3)


def random_axes(rows, columns, rng):
    return torch.linalg.qr(torch.randn(rows, columns, generator=rng, dtype=torch.float64))[0]


def codec(config=SMALL, seed=0):
    """A codec with orthonormal axes and with a decoder that does something."""
    rng = torch.Generator().manual_seed(seed)
    made = PatchCodec(config, seed=seed).requires_grad_(False).eval()
    made.projection.set_axes(
        torch.randn(config.pixels, generator=rng) / 10,
        random_axes(config.pixels, config.mean_channels, rng),
        torch.linspace(3, 0.3, config.mean_channels),
        random_axes(config.time * config.pixels, config.deviation_channels, rng),
        torch.linspace(1, 0.2, config.deviation_channels),
    )
    for layer in (made.decoder.lapped, made.decoder.patches, made.decoder.leave):
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=rng) / 4)
    return made


@pytest.fixture(scope="module")
def small():
    return codec()


def clip(frames, size=(16, 24), seed=1, batch=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, frames, *size, generator=rng) * 2 - 1


def latents(made, length, seed=2, batch=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, made.latent_channels, length, 2, 3, generator=rng)


def test_states_its_grid():
    made = PatchCodec()
    assert (made.stride.time, made.stride.space, made.latent_channels) == (4, 8, 96)


@pytest.mark.parametrize(
    ("frames", "first", "length"), [(1, True, 1), (9, True, 3), (4, False, 1), (8, False, 2)]
)
def test_shapes_go_there_and_back(small, frames, first, length):
    x = clip(frames, batch=2)
    z = small.encode(x, first=first)
    assert z.shape == (2, 17, length, 2, 3)
    assert small.decode(z, first=first).shape == x.shape


def test_a_clip_that_comes_in_parts_is_encoded_to_the_same_bits(small):
    x = clip(13)
    parts = (part.clone() for part in torch.split(x, [1, 4, 4, 4], dim=2))
    assert torch.equal(small.encode_parts(parts), small.encode(x))


def test_an_image_is_the_first_latent_of_every_clip_that_begins_with_it(small):
    x = clip(9)
    assert torch.equal(small.encode(x[:, :, :1]), small.encode(x)[:, :, :1])


def test_a_still_has_no_deviation_and_a_frozen_clip_repeats_its_latent(small):
    x = clip(1).expand(-1, -1, 5, -1, -1)
    z = small.encode(x)
    assert torch.count_nonzero(z[:, 10:, 0]) == 0
    torch.testing.assert_close(z[:, :, 1], z[:, :, 0], atol=2e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(changed=st.integers(1, 8))
def test_future_frames_never_reach_past_latents(changed):
    small, x = codec(), clip(9)
    altered = x.clone()
    altered[:, :, changed:] = -altered[:, :, changed:]
    before, after = small.encode(x), small.encode(altered)
    group = small.stride.group_of(changed)
    assert torch.equal(before[:, :, :group], after[:, :, :group])
    assert not torch.allclose(before[:, :, group], after[:, :, group])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("changed", [1, 2, 3])
def test_future_latents_never_reach_past_frames_but_past_ones_reach_the_future(small, first, changed):
    z = latents(small, 5)
    altered = z.clone()
    altered[:, :, changed] += 1
    before, after = small.decode(z, first=first), small.decode(altered, first=first)
    begin = (1 if first else 4) + 4 * (changed - 1)
    assert torch.equal(before[:, :, :begin], after[:, :, :begin])
    later = slice(begin + 4, begin + 8)
    assert not torch.equal(before[:, :, later], after[:, :, later])


@pytest.mark.parametrize("first", [True, False])
def test_stream_equals_decode_to_the_last_bit(small, first):
    z = latents(small, 4, batch=2)
    parts = list(small.stream(z, first=first))
    assert [part.shape[2] for part in parts] == [1 if first else 4, 4, 4, 4]
    assert torch.equal(torch.cat(parts, dim=2), small.decode(z, first=first))


def test_carried_state_joins_pieces_of_a_long_video_exactly(small):
    z = latents(small, 4)
    whole, state, parts = small.decode(z), None, []
    for t in range(2):
        frames, state = small.decode_step(z[:, :, t], state, lone=t == 0)
        parts.append(frames.clamp(-1, 1))
    parts.append(small.decode(z[:, :, 2:], first=False, state=state))
    assert torch.equal(torch.cat(parts, dim=2), whole)
    forgotten = small.decode(z[:, :, 2:], first=False)
    assert not torch.equal(forgotten, parts[-1])


def test_decoding_leaves_the_callers_state_alone(small):
    z = latents(small, 2)
    _, state = small.decode_step(z[:, :, 0], lone=True)
    kept = [tap.clone() for tap in state.past]
    small.decode_step(z[:, :, 1], state)
    assert all(torch.equal(a, b) for a, b in zip(kept, state.past, strict=True))


def test_continuation_encodes_groups_as_a_whole_clip_does(small):
    x = clip(9)
    assert torch.equal(small.encode(x[:, :, 1:], first=False), small.encode(x)[:, :, 1:])


def test_complete_axes_lose_nothing():
    full = PatchCodecConfig(patch=2, mean_channels=12, deviation_channels=36, width=8, blocks=1, fine=2)
    rng = torch.Generator().manual_seed(5)
    made = PatchCodec(full).requires_grad_(False)
    time = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    spatial = random_axes(12, 12, rng)
    # Axes of the deviations: the three patterns in time that have no mean, for each number of a patch.
    axes = torch.einsum("kf,dc->fdkc", time[1:].double(), spatial).reshape(48, 36)
    made.projection.set_axes(torch.zeros(12), spatial, torch.ones(12), axes, torch.ones(36))
    x = clip(9, size=(8, 8))
    torch.testing.assert_close(made.linear_decode(made.encode(x)), x, atol=4e-3, rtol=0)  # float16 axes


def test_before_training_the_decoder_is_the_plain_inverse():
    made = PatchCodec(SMALL).requires_grad_(False)
    z = latents(made, 3)
    assert torch.equal(made.decode(z), made.linear_decode(z))


def test_scales_keep_the_natural_spectrum(small):
    std = torch.cat([torch.linspace(3, 0.3, 10), torch.linspace(1, 0.2, 7)])
    scale = torch.cat([small.projection.mean_scale, small.projection.deviation_scale])
    latent_std = std * scale  # what data with these deviations along the axes comes out with
    assert latent_std.square().mean().item() == pytest.approx(1, rel=2e-3)
    ratio = latent_std / std**0.6
    torch.testing.assert_close(ratio, ratio.mean().expand(17), rtol=2e-3, atol=0)


def test_decoded_frames_stay_in_range(small):
    frames = small.decode(30 * latents(small, 2))
    assert frames.min() == -1
    assert frames.max() == 1


def test_save_and_load_keep_the_encoder_exactly(small, tmp_path):
    small.save(tmp_path)
    loaded = PatchCodec.from_folder(tmp_path)
    x = clip(5)
    assert torch.equal(loaded.encode(x), small.encode(x))
    assert loaded.encoder_sha256() == small.encoder_sha256()
    assert json.loads((tmp_path / CONFIG).read_text())["encoder_sha256"] == small.encoder_sha256()
    z = latents(small, 3)
    torch.testing.assert_close(loaded.decode(z), small.decode(z), atol=5e-3, rtol=0)
    assert all(t.dtype == torch.float16 for t in load_file(tmp_path / WEIGHTS).values())
    assert not list(tmp_path.glob("*.part"))


def test_encoder_hash_sees_the_encoder_and_not_the_decoder():
    one, other = codec(), codec()
    other.decoder.enter.weight.add_(1)
    assert one.encoder_sha256() == other.encoder_sha256()
    other.projection.centre[0] += 0.5
    assert one.encoder_sha256() != other.encoder_sha256()


@pytest.mark.parametrize(
    ("frames", "first", "message"),
    [
        (4, True, "1 and 5"),
        (7, True, "5 and 9"),
        (6, False, "4 and 8"),
        (2, False, "4 and 8"),
        (0, True, "1 and 5"),
    ],
)
def test_lengths_that_do_not_fit_are_refused_with_the_two_nearest(small, frames, first, message):
    with pytest.raises(GeometryError, match=f"frames={frames} .*{message}"):
        small.encode(clip(frames), first=first)


def test_sizes_that_do_not_fit_are_refused_with_the_nearest(small):
    with pytest.raises(GeometryError, match=r"27x3 is not a multiple of 8.*24x8"):
        small.encode(clip(1, size=(3, 27)))


@pytest.mark.parametrize("wrong", [{"width": 0}, {"patch": 2.5}, {"mean_channels": 193}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PatchCodecConfig(**wrong)


def test_a_damaged_folder_is_a_model_error(small, tmp_path):
    with pytest.raises(ModelError, match=r"lacks config\.json"):
        PatchCodec.from_folder(tmp_path)
    small.save(tmp_path)
    (tmp_path / CONFIG).write_text('{"_class_name": "VideoDiT"}')
    with pytest.raises(ModelError, match="'VideoDiT', not a PatchCodec"):
        PatchCodec.from_folder(tmp_path)
    small.save(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({k: v for k, v in tensors.items() if "enter" not in k}, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match="not this codec's weights"):
        PatchCodec.from_folder(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"\x00" * 20)
    with pytest.raises(ModelError, match="damaged or not safetensors"):
        PatchCodec.from_folder(tmp_path)
