"""Tensors read from their files when they are asked for, and matrices in a byte a number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from kinema.core.errors import ModelError
from kinema.models.coded import CodedLinear, coded, decode, encode
from kinema.models.original import load_original, original_shelf
from kinema.models.shelf import Shelf
from kinema.models.weights import load_state

SMALL = 2.0**-9


@pytest.fixture
def files(tmp_path):
    g = torch.Generator().manual_seed(0)
    state = {
        "a.weight": torch.randn(5, 7, generator=g),
        "b.weight": torch.randn(3, 4, generator=g).bfloat16(),
        "b.bias": torch.randn(3, generator=g).half(),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3.0),
    }
    save_file(state, tmp_path / "m.safetensors", metadata={"a": "b"})
    return tmp_path / "m.safetensors", state


def test_what_is_read_is_what_is_stored(files):
    path, state = files
    shelf = Shelf.of([path])
    assert shelf.places.keys() == state.keys()
    for name, tensor in state.items():
        found = shelf.read(name)
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor)
    assert torch.equal(shelf.rows("a.weight", [4, 0, 4]), state["a.weight"][[4, 0, 4]])


def test_tensors_begin_where_a_mapped_file_has_them(files):
    """Of a product with one row, even the order of its sum is then the same."""
    path, state = files
    shelf, mapped = Shelf.of([path]), load_state(path.parent, "m")
    places = {name: mapped[name].data_ptr() % 64 for name in state if state[name].numel()}
    assert {name: shelf.read(name).data_ptr() % 64 for name in places} == places
    assert len(set(places.values())) > 1


def test_damage_is_told(files, tmp_path):
    path, state = files
    whole = path.read_bytes()
    shelf = Shelf.of([path])
    path.write_bytes(whole[: len(whole) - 30])  # after it was opened
    with pytest.raises(ModelError, match=r"ends inside of .*; fetch it again"):
        [shelf.read(name) for name in state]
    with pytest.raises(ModelError, match="damaged"):
        Shelf.of([path])
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        shelf.read("a.weight")
    save_file({"a": torch.tensor([1.0, torch.nan])}, path)
    with pytest.raises(ModelError, match="not finite"):
        Shelf.of([path]).read("a")
    save_file({"a": torch.ones(2)}, tmp_path / "twice.safetensors")
    with pytest.raises(ModelError, match="and so has another shard"):
        Shelf.of([path, tmp_path / "twice.safetensors"])


def test_original_fp8_is_what_its_scales_make_of_it(tmp_path):
    stem = "model.diffusion_model.blocks.0.self_attn.q"
    state = {
        f"{stem}.weight": torch.randn(8, 8).to(torch.float8_e4m3fn),
        f"{stem}.scale_weight": torch.tensor([0.3]),
        f"{stem}.bias": torch.randn(8),
    }
    save_file(state, tmp_path / "o.safetensors")
    shelf, loaded = original_shelf([tmp_path / "o.safetensors"]), load_original([tmp_path / "o.safetensors"])
    assert shelf.places.keys() == loaded.keys()
    for name, tensor in loaded.items():
        assert torch.equal(shelf.read(name), tensor)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["fp8", "int8"]), st.floats(1e-4, 1e4))
def test_codes_are_as_near_as_their_steps(seed, code, size):
    weight = size * torch.randn(6, 33, generator=torch.Generator().manual_seed(seed))
    weight[2] = 0
    found = decode(*encode(weight, code), torch.float32)
    peak = weight.abs().amax(dim=1, keepdim=True)
    # half a step: of 127 to the peak for int8; of a mantissa of 3 bits, down to e4m3's smallest, for fp8
    step = peak / 127 if code == "int8" else torch.maximum(weight.abs() / 8, peak / 448 * SMALL)
    assert ((found - weight).abs() <= 0.5001 * step).all()
    assert (found[2] == 0).all()


def test_a_coded_layer_computes_with_the_matrix_that_it_shows():
    layer = torch.nn.Linear(7, 5)
    small = coded(layer, "int8", torch.float32)
    codes, scale = encode(layer.weight.data, "int8")
    small.codes, small.scale = (torch.nn.Parameter(t, requires_grad=False) for t in (codes, scale))
    x = torch.randn(3, 7)
    assert isinstance(small, CodedLinear)
    assert torch.equal(small(x), torch.nn.functional.linear(x, small.weight, layer.bias))
    assert torch.allclose(small(x), layer(x), atol=0.05)
    assert small.codes.element_size() == 1


def test_a_shelf_reads_what_loading_reads(wan):
    folder = wan("t2v") / "transformer"
    state = load_state(folder)
    shelf = Shelf.of([folder / "diffusion_pytorch_model.safetensors"])
    assert all(torch.equal(shelf.read(name), tensor) for name, tensor in state.items())
