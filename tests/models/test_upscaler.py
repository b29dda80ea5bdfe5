"""Upscaling networks: their maths written out once more, files under every name, tiles and the whole."""

import functools
import json
import re
import struct
import subprocess
import sys
import tracemalloc

import pytest
import torch
import torch.nn.functional as F

import upscalers
from kinema.core.errors import ModelError
from kinema.models.upscaler import Stage, load_upscaler
from kinema.models.upscaler_file import read_upscaler


def opened(path, state, dtype=torch.float64):
    return load_upscaler(read_upscaler(upscalers.saved(path, state)), torch.device("cpu"), dtype)


def picture(height=21, width=30):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def conv(state, name, x):
    return F.conv2d(x, state[f"{name}.weight"].double(), state[f"{name}.bias"].double(), padding=1)


def esrgan(state, x, doublings):
    """As the papers draw it: dense blocks, residuals scaled by 0.2, nearest neighbours and convolutions."""
    leaky = torch.nn.LeakyReLU(0.2)
    first = f = conv(state, "conv_first", x)
    for i in range(2):
        block = f
        for j in (1, 2, 3):
            dense = [f]
            for k in range(1, 5):
                dense.append(leaky(conv(state, f"body.{i}.rdb{j}.conv{k}", torch.cat(dense, 1))))
            f = f + 0.2 * conv(state, f"body.{i}.rdb{j}.conv5", torch.cat(dense, 1))
        f = block + 0.2 * f
    f = first + conv(state, "conv_body", f)
    for n in range(doublings):
        f = leaky(conv(state, f"conv_up{n + 1}", f.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    return conv(state, "conv_last", leaky(conv(state, "conv_hr", f)))


@pytest.mark.parametrize("doublings", [0, 1, 2])
def test_rrdbnet_is_the_papers(tmp_path, doublings):
    state, x = upscalers.rrdb(doublings), picture()
    net = opened(tmp_path / "a.safetensors", state)
    made = net(x)
    assert made.shape[-2:] == (21 * 2**doublings, 30 * 2**doublings)
    assert torch.allclose(made, esrgan(state, x, doublings), atol=1e-12)


def test_a_network_of_folded_pixels_sees_squares_of_them_and_mirrors_what_is_missing(tmp_path):
    state, x = upscalers.rrdb(2, fold=2), picture(21, 29)
    net = opened(tmp_path / "a.safetensors", state)
    whole = F.pad(x, (0, 1, 0, 1), mode="reflect")
    squares = torch.cat(
        [whole[:, c : c + 1, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)], 1
    )
    wanted = esrgan(state, squares, 2)[..., :42, :58]
    assert net.scale == 2
    assert torch.allclose(net(x), wanted, atol=1e-12)
    assert net(picture(1, 1)).shape[-2:] == (2, 2)  # nothing to mirror


def test_srvggnetcompact_adds_to_repeated_pixels(tmp_path):
    state, x = upscalers.compact(scale=3), picture()
    f = conv(state, "body.0", x)
    for i in range(1, 12):
        f = torch.where(f > 0, f, f * state[f"body.{2 * i - 1}.weight"].double()[:, None, None])
        f = conv(state, f"body.{2 * i}", f)
    more = f.view(1, 3, 3, 3, 21, 30).permute(0, 1, 4, 2, 5, 3).reshape(1, 3, 63, 90)
    wanted = x.repeat_interleave(3, 2).repeat_interleave(3, 3) + more
    assert torch.allclose(opened(tmp_path / "a.safetensors", state)(x), wanted, atol=1e-12)


@pytest.mark.parametrize("layout", [upscalers.bsrgan, upscalers.first_esrgan])
def test_every_layout_of_names_is_the_same_network(tmp_path, layout):
    state, x = upscalers.rrdb(), picture()
    wrapped = {f"params_ema.{name}": tensor for name, tensor in state.items()}
    plain = opened(tmp_path / "a.safetensors", state)(x)
    assert torch.equal(opened(tmp_path / "b.safetensors", layout(state))(x), plain)
    both = wrapped | {f"params.{name}": -tensor for name, tensor in state.items()}
    assert torch.equal(opened(tmp_path / "c.safetensors", both)(x), plain)  # the averaged ones


@pytest.mark.parametrize("state", [upscalers.rrdb(2), upscalers.rrdb(2, fold=2), upscalers.compact()])
@pytest.mark.parametrize("tile", [1, 5, 16])
def test_tiles_give_what_the_whole_gives(tmp_path, state, tile):
    net, x = opened(tmp_path / "a.safetensors", state), picture()
    assert torch.allclose(net(x, tile=tile), net(x), rtol=0, atol=1e-12)


def test_a_margin_that_is_a_pixel_short_would_be_seen(tmp_path):
    net = opened(tmp_path / "a.safetensors", upscalers.rrdb())
    x = torch.rand(1, upscalers.WIDTH, 70, 8, dtype=torch.float64)
    block = net.body[0]
    assert torch.allclose(Stage(block, 15).tiled(x, 32), block(x), rtol=0, atol=1e-14)
    assert not torch.allclose(Stage(block, 14).tiled(x, 32), block(x), rtol=0, atol=1e-14)


def test_the_operations_are_those_of_the_layers(tmp_path):
    file = read_upscaler(upscalers.saved(tmp_path / "a.safetensors", upscalers.compact(scale=2, blocks=1)))
    assert file.operations(10, 20) == 2 * 9 * (3 * 8 + 8 * 8 + 8 * 12) * 200
    large = read_upscaler(upscalers.saved(tmp_path / "b.safetensors", upscalers.rrdb(1, blocks=1)))
    dense = 3 * (4 * (8 + 12 + 16 + 20) + 24 * 8)
    assert large.operations(1, 1) == 2 * 9 * (24 + dense + 64 + 4 * (64 + 64 + 24))


def test_what_is_no_such_network_is_refused_with_the_way_out(tmp_path):
    whole = upscalers.rrdb()
    less = {name: tensor for name, tensor in whole.items() if name != "body.1.rdb2.conv3.bias"}
    cases = {
        "body.1.rdb2.conv3.bias is missing": less,
        r"conv_hr\.weight is \[8, 8, 1, 1\]": whole | {"conv_hr.weight": torch.zeros(8, 8, 1, 1)},
        "'attention.weight' beside a RRDBNet": whole | {"attention.weight": torch.zeros(1)},
        "takes 4 channels": whole | {"conv_first.weight": torch.zeros(8, 4, 3, 3)},
        r"no upscaling network that is read here \(it has layers.0\)": {"layers.0": whole["conv_last.bias"]},
        "conv_last.bias as I32": whole | {"conv_last.bias": torch.zeros(3, dtype=torch.int32)},
    }  # fmt: skip
    for said, state in cases.items():
        with pytest.raises(ModelError, match=said):
            read_upscaler(upscalers.saved(tmp_path / "a.safetensors", state))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    state = upscalers.compact()
    state["body.2.weight"][0, 0, 0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"body\.2\.weight"):
        opened(tmp_path / "a.safetensors", state)


def test_pickles_are_refused_and_the_way_to_convert_them_is_told(tmp_path):
    torch.save({"params_ema": upscalers.compact()}, tmp_path / "a.pth")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.pth").read_bytes())
    for name in ("a.pth", "b.safetensors"):
        with pytest.raises(ModelError, match=r"pickle.*w = torch\.load\(.*safetensors\.torch\.save_file"):
            read_upscaler(tmp_path / name)
    with pytest.raises(ModelError, match="is not a file"):
        read_upscaler(tmp_path / "none.safetensors")


@pytest.mark.parametrize("wrapped", [("params_ema",), ("params",), ()])
def test_the_line_that_an_error_gives_converts_a_pickle(tmp_path, monkeypatch, wrapped):
    monkeypatch.chdir(tmp_path)
    state = upscalers.compact()
    torch.save(functools.reduce(lambda inner, name: {name: inner}, wrapped, state), "a.pth")
    with pytest.raises(ModelError) as refused:
        read_upscaler("a.pth")
    line = re.search(r"w = torch\.load.*'FILE\.safetensors'\)", str(refused.value))[0]
    steps = line.replace("(FILE,", "('a.pth',").replace("FILE.safetensors", "a.safetensors")
    subprocess.run([sys.executable, "-c", f"import torch, safetensors.torch; {steps}"], check=True)
    assert read_upscaler("a.safetensors").scale == read_upscaler(upscalers.saved(tmp_path / "b", state)).scale


def entries(*names, shape=(8, 8, 3, 3), **more):
    return {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]} | more for name in names}


RRDB = entries("conv_first.weight", shape=(8, 3, 3, 3)) | entries("body.0.rdb1.conv1.weight")
COMPACT = entries("body.0.weight", shape=(8, 3, 3, 3)) | entries("body.1.weight", shape=(8,))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"conv_first.weight": 7}, "has no shape"),
        ([1, 2], "header is no table of tensors"),
        ("text", "header is no table of tensors"),
        ({"a": {"shape": [1]}}, "'a' has no dtype"),
        ({"a": {"shape": [1], "dtype": 5}}, "'a' has no dtype"),
        (entries("a", shape=(2**40,)), "'a' has no shape"),
        (entries("a", shape=(True,)), "'a' has no shape"),
        (RRDB | entries("body.0.rdb1.conv1.weight", shape=()), "no whole RRDBNet"),
        (COMPACT | entries("body.2.weight", shape=()), "goes from 3 channels to 0"),
        (RRDB | entries(f"body.{'9' * 5000}.x"), "beside|no whole"),
        (COMPACT | entries(f"body.{'9' * 5000}.weight"), "goes from 3 channels"),
        (RRDB | entries(*(f"conv_up{n}.weight" for n in range(15_000))), "claims 15000 doublings"),
        (entries("model.0.weight", "model.9999999.weight"), "is no upscaling network"),
        (entries("model.0.weight", f"model.{'9' * 5000}.weight"), "is no upscaling network"),
        (RRDB | entries("body.999.x"), "claims 1000 blocks"),
    ],
)
def test_odd_headers_are_refused_in_one_short_line(tmp_path, monkeypatch, header, said):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    with pytest.raises(ModelError, match=said) as refused:
        read_upscaler("a.safetensors")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 64 << 20
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)
