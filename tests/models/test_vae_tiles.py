"""Tiles of the video VAE equal the whole, need less memory, and see exactly what their result depends on."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.profiler import profile

from kinema.core.errors import ConfigError, ResourceError
from kinema.models import vae_tiles, winograd
from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig, StreamState, Tiles
from kinema.models.vae_tiles import Span, downwards, upwards
from kinema.models.vae_waiting import OnDisk, OnHost
from kinema.models.weights import bare
from kinema.models.winograd import without


def random_vae(*, seed=0, residual=False, width=4, mult=(1, 2, 2), times=(False, True), blocks=1, patch=None):
    """A VAE whose norms are away from their start values, and whose frames are seldom clamped."""
    torch.manual_seed(seed)
    colours = 3 * (patch or 1) ** 2
    vae = CausalVideoVAE(
        CausalVideoVAEConfig(
            **{"base_dim": width, "z_dim": 4, "dim_mult": mult, "temperal_downsample": times},
            **{"num_res_blocks": blocks, "is_residual": residual, "patch_size": patch},
            **{"in_channels": colours, "out_channels": colours},
            **{"latents_mean": (0.1,) * 4, "latents_std": (1.5,) * 4},
        )
    )
    for name, parameter in vae.requires_grad_(False).named_parameters():
        if name.endswith("gamma"):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return vae.eval()


def noise(vae, rows, columns, length=2, batch=1):
    return torch.randn(batch, vae.latent_channels, length, rows, columns)


def pixels(vae, rows, columns, frames=5):
    space = vae.stride.space
    return torch.rand(1, 3, frames, rows * space, columns * space) * 2 - 1


layouts = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "residual": st.booleans(),
        "patch": st.sampled_from([None, 2]),
        "blocks": st.integers(1, 2),
        "levels": st.sampled_from(
            [
                ((1, 1), (True,)),
                ((2, 2), (False,)),
                ((1, 2, 2), (False, True)),
                ((2, 2, 2), (True, True)),
            ]
        ),
    }
)
sizes = st.none() | st.sampled_from([1, 3, 4, 5, 7, 8, 11])


def made(layout):
    (mult, times), rest = layout["levels"], {k: v for k, v in layout.items() if k != "levels"}
    return random_vae(mult=mult, times=times, **rest)


# -- equality --------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    layout=layouts,
    shape=st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 3)),
    turned=st.booleans(),
    tiles=st.builds(Tiles, rows=sizes, columns=sizes, frames=st.none() | st.integers(1, 4)),
)
def test_noise_decoded_in_tiles_is_noise_decoded_whole(layout, shape, turned, tiles):
    vae, (length, rows, columns) = made(layout), shape
    z_BCTYX = noise(vae, *((columns, rows) if turned else (rows, columns)), length)
    whole = vae.decode(z_BCTYX)
    assert whole.std() > 0.02
    torch.testing.assert_close(vae.decode(z_BCTYX, tiles=tiles), whole, rtol=0, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(
    layout=layouts,
    shape=st.tuples(st.integers(0, 2), st.integers(1, 20), st.integers(1, 3)),
    turned=st.booleans(),
    tiles=st.builds(Tiles, rows=sizes, columns=sizes),
)
def test_noise_encoded_in_tiles_is_noise_encoded_whole(layout, shape, turned, tiles):
    vae, (groups, rows, columns) = made(layout), shape
    sides = (columns, rows) if turned else (rows, columns)
    frames = pixels(vae, *sides, frames=vae.stride.pixel_frames(groups + 1))
    whole = vae.encode(frames)
    assert whole.std() > 0.02
    torch.testing.assert_close(vae.encode(frames, tiles=tiles), whole, rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=[False, True], ids=["2.1", "2.2"])
def vae(request):
    """Wide enough for the compiled kernels."""
    wan = {"mult": (1, 1, 1), "times": (True, True)}
    return random_vae(width=16, residual=request.param, patch=2 if request.param else None, **wan)


@pytest.mark.parametrize("tiles", [Tiles(rows=9), Tiles(columns=5, frames=2)])
def test_compiled_and_plain_paths_agree_with_themselves(vae, tiles):
    z_BCTYX, batch = noise(vae, 5, 20, length=2), noise(vae, 18, 3, batch=2)
    for z in (z_BCTYX, batch):
        torch.testing.assert_close(vae.decode(z, tiles=tiles), vae.decode(z), rtol=0, atol=1e-5)
        with without():
            torch.testing.assert_close(vae.decode(z, tiles=tiles), vae.decode(z), rtol=0, atol=1e-5)


def test_compiled_tiles_are_the_whole_to_the_last_bit(vae):
    if not winograd.native().loaded:
        pytest.skip("no compiled code here")
    z_BCTYX = noise(vae, 19, 7, length=2)
    assert torch.equal(vae.decode(z_BCTYX, tiles=Tiles(rows=5, columns=6)), vae.decode(z_BCTYX))


def test_bfloat16_tiles_are_as_near_as_bfloat16_is():
    whole = random_vae(width=8)
    half = random_vae(width=8).to(torch.bfloat16)
    z_BCTYX = noise(whole, 16, 4)
    tiled = half.decode(z_BCTYX, tiles=Tiles(rows=4))
    assert tiled.dtype == torch.bfloat16
    assert (tiled.float() - whole.decode(z_BCTYX)).square().mean().sqrt() < 0.03


@pytest.mark.parametrize("frames", [1, 2, 3, None])
def test_a_tiled_stream_gives_one_latent_frame_after_the_other(vae, frames):
    z_BCTYX, tiles = noise(vae, 4, 12, length=4), Tiles(columns=5, frames=frames)
    chunks = list(vae.stream(z_BCTYX, tiles=tiles))
    assert [c.shape[2] for c in chunks] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(chunks, dim=2), vae.decode(z_BCTYX, tiles=tiles))


def test_chunks_of_several_latents_pass_in_tiles_too(vae, monkeypatch):
    z_BCTYX = noise(vae, 12, 3, length=5)
    whole = vae.decode(z_BCTYX)
    monkeypatch.setattr(vae, "at_once", 2)
    chunks = list(vae.stream(z_BCTYX, tiles=Tiles(rows=6, frames=3)))
    assert [c.shape[2] for c in chunks] == [1, 4, 4, 4, 4]
    torch.testing.assert_close(torch.cat(chunks, dim=2), whole, rtol=0, atol=1e-5)


def test_attention_inside_the_encoder_ends_what_is_tiled():
    torch.manual_seed(0)
    config = CausalVideoVAEConfig(
        **{"base_dim": 8, "z_dim": 4, "dim_mult": (1, 2, 2), "temperal_downsample": (False, True)},
        **{"latents_mean": (0.0,) * 4, "latents_std": (1.0,) * 4, "attn_scales": (0.5,)},
    )
    vae = CausalVideoVAE(config).eval().requires_grad_(False)
    frames = pixels(vae, 12, 3)
    torch.testing.assert_close(vae.encode(frames, tiles=Tiles(rows=4)), vae.encode(frames), rtol=0, atol=1e-5)


# -- the margin is what the layers see, no more and no less ----------------------------------------------


def seen(function, channels, length, own):
    """The rows of `length` that the rows `own` of a function's result depend on."""
    x_BCFYX = torch.randn(1, channels, 1, length, 4, requires_grad=True)
    function(x_BCFYX, StreamState())[..., own.slice, :].square().sum().backward()
    rows = x_BCFYX.grad.abs().amax(dim=(0, 1, 2, 4)).nonzero().flatten()
    return Span(int(rows[0]), int(rows[-1]) + 1)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_tile_is_given_exactly_what_its_result_depends_on(residual, blocks, monkeypatch):
    monkeypatch.setattr(vae_tiles, "BLOCK", 1)
    vae = random_vae(residual=residual, blocks=blocks, width=8)
    own = Span(4 * 17, 4 * 19)
    wanted = upwards(vae.decoder).spans(own, 40)[0]
    assert seen(vae.decoder.rise, vae.decoder.conv_in.out_channels, 40, own) == wanted
    own = Span(15, 17)
    assert seen(vae.encoder.descend, 3, 128, own) == downwards(vae.encoder).spans(own, 128)[0]


# -- memory ----------------------------------------------------------------------------------------------


def test_only_one_tile_is_remembered_at_a_time():
    """What a state holds while tiles pass is that of a small picture."""
    vae = random_vae(width=16, mult=(1, 1, 1), times=(False, True))
    z_BCTYX, held = noise(vae, 4, 48, length=4), []

    def look(module, args, out):
        held.append(sum(t.nbytes for t in args[1].past.values()))

    hook = vae.decoder.up_blocks[-1].register_forward_hook(look)
    vae.decode(z_BCTYX)
    whole = max(held)
    held.clear()
    vae.decode(z_BCTYX, tiles=Tiles(columns=6, frames=2))
    hook.remove()
    assert max(held) < 0.6 * whole


@pytest.mark.parametrize("place", ["disk", "host"])
def test_what_waits_comes_back_to_the_last_bit(place):
    with ExitStack() as stack:
        shelf = OnDisk(stack) if place == "disk" else OnHost(torch.device("cpu"))
        layers = [nn.Identity(), nn.Identity()]
        for rows in (3, 5):  # what was put before is gone
            kept = torch.randn(1, 4, 2, rows, 2).contiguous(memory_format=torch.channels_last_3d)
            half = torch.randn(2, 3, 1, rows, 1).to(torch.bfloat16)
            shelf.put(dict(zip(layers, (kept, half), strict=True)))
            back = shelf.get()
            assert torch.equal(back[layers[0]], kept)
            assert torch.equal(back[layers[1]], half)
            assert back[layers[0]].stride() == kept.stride()


def test_a_full_disk_is_told_in_one_line(monkeypatch, tmp_path):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ExitStack() as stack:
        shelf = OnDisk(stack)
        monkeypatch.setattr(shelf, "_file", type("Full", (), {"seek": lambda *_: 0, "write": full})())
        with pytest.raises(ResourceError, match=r"0 MB do not fit \(No space left.*TMPDIR"):
            shelf.put({nn.Identity(): torch.zeros(1, 1, 1, 2, 2)})


def test_nothing_is_written_where_a_clip_passes_each_tile_at_once(vae, monkeypatch):
    monkeypatch.setattr(OnDisk, "put", lambda *_: pytest.fail("written"))
    vae.decode(noise(vae, 4, 12, length=3), tiles=Tiles(columns=5))


# -- what it will need -----------------------------------------------------------------------------------


def peak_bytes(work):
    """Most bytes of tensors alive at once while `work` runs, by what torch's allocator was asked for."""
    with profile(profile_memory=True) as record:
        work()
    alive = peak = 0
    for event in record.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


@pytest.mark.parametrize(
    ("tiles", "path"),
    [
        (None, nullcontext),
        (None, without),
        (Tiles(columns=4), nullcontext),
        (Tiles(columns=4, frames=1), nullcontext),
        (Tiles(rows=3, columns=7, frames=2), without),
    ],
)
def test_a_decode_takes_what_was_expected(vae, tiles, path):
    z_BCTYX = noise(vae, 6, 14, length=3)
    with path():
        vae.decode(z_BCTYX[..., :2, :2])  # the weights are prepared
        measured = peak_bytes(lambda: [None for _ in vae.stream(z_BCTYX, tiles=tiles)])
        expected = vae.needs(z_BCTYX.shape, tiles)
    assert 0.95 * expected / 1.25 < measured < 1.02 * expected


def test_tiles_that_are_chosen_keep_inside_their_room(vae):
    z_BCTYX = noise(vae, 8, 24, length=3)
    whole, before = vae.needs(z_BCTYX.shape), 0
    assert vae.tiles(z_BCTYX.shape, whole) is None
    for share in (0.55, 0.75):
        tiles = vae.tiles(z_BCTYX.shape, int(share * whole))
        assert before < vae.needs(z_BCTYX.shape, tiles) <= share * whole
        assert (
            peak_bytes(lambda tiles=tiles: [None for _ in vae.stream(z_BCTYX, tiles=tiles)]) < share * whole
        )
        before = vae.needs(z_BCTYX.shape, tiles)


def test_wide_pictures_are_cut_across_and_tall_ones_along(vae):
    """The shorter the cuts, the less is computed twice."""
    for rows, columns in ((8, 64), (64, 8)):
        shape = (1, vae.latent_channels, 2, rows, columns)
        tiles = vae.tiles(shape, int(0.6 * vae.needs(shape)))
        assert (tiles.rows, tiles.columns)[columns < rows] == min(rows, columns)
        assert (tiles.rows, tiles.columns)[columns > rows] < max(rows, columns)


def test_the_real_vae_is_cut_without_being_run():
    """Wan 2.1 at 480p: cut across, and no more latent frames at once than fit."""
    with bare():
        vae = CausalVideoVAE(CausalVideoVAEConfig())
    shape = (1, 16, 401, 60, 104)
    assert 5e9 < vae.needs(shape) < 9e9
    tiles = vae.tiles(shape, 4 * 10**9)
    assert tiles.rows == 60 > tiles.columns
    more = Tiles(60, tiles.columns, tiles.frames + 1)
    assert vae.needs(shape, tiles) <= 4 * 10**9 < vae.needs(shape, more)


# -- refusals --------------------------------------------------------------------------------------------


def test_a_room_too_small_for_any_tile_is_refused_in_one_line(vae):
    shape = (1, vae.latent_channels, 3, 20, 30)
    wide, tall = 30 * vae.stride.space, 20 * vae.stride.space
    with pytest.raises(
        ResourceError, match=rf"^decoding {wide}x{tall} takes at least \d+ MB.*1 MB; use a sm.*$"
    ):
        vae.tiles(shape, 10**6)


@pytest.mark.parametrize("side", ["rows", "columns", "frames"])
@pytest.mark.parametrize("size", [0, -3])
def test_tiles_of_nothing_are_refused(side, size):
    with pytest.raises(ConfigError, match=rf"tiles: {side}={size} must be at least 1"):
        Tiles(**{side: size})
