"""Weights arrive in the precision that they work in: read on the host, converted one by one, then moved."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kinema.core.errors import ModelError
from kinema.models import umt5
from kinema.models.original import load_original, original_shelf
from kinema.models.supply import Supply
from kinema.models.umt5 import UMT5Encoder
from kinema.models.wan_names import to_original
from kinema.models.weights import STEM, load_state
from kinema.pipelines.model import load_dit, precision
from kinema.pipelines.residency import loading

AT_WORK = 3  # what is read, what is made of it, and a factor between them


class Watched(TorchDispatchMode):
    """How many float32 matrices live at once, and what types are moved to the device without memory."""

    def __init__(self):
        super().__init__()
        self.living, self.most, self.moved = [], 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("device") == torch.device("meta") and args and isinstance(args[0], torch.Tensor):
            self.moved.add(args[0].dtype)
        out = function(*args, **kwargs)
        found = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.ndim == 2 and not t.is_meta]
        self.living += [weakref.ref(t) for t in found if t.dtype == torch.float32]
        self.living = [ref for ref in self.living if ref() is not None]
        self.most = max(self.most, len(self.living))
        return out


def matrices(state) -> int:
    return sum(t.ndim == 2 for t in state.values())


def same(found, wanted) -> bool:
    return found.keys() == wanted.keys() and all(
        found[n].dtype == t.dtype and torch.equal(found[n], t) for n, t in wanted.items()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_text_encoder_stored_in_float32_never_is_in_memory_as_that(wan, dtype):
    folder = wan("t2v") / "text_encoder"
    stored = load_state(folder, "model")
    assert {t.dtype for t in stored.values()} == {torch.float32}
    kept = sum(name.endswith(".wo.weight") for name in stored) if dtype == torch.float16 else 0
    with Watched() as watched:
        model = UMT5Encoder.from_folder(folder, dtype)
    assert watched.most <= AT_WORK + kept < matrices(stored) - 3
    assert same(model.state_dict(), {n: t.to(umt5.precision(n, dtype)) for n, t in stored.items()})


def test_nor_is_a_transformer(wan):
    folder = wan("t2v") / "transformer"
    stored = load_state(folder)
    with Watched() as watched:
        dit = load_dit(folder, torch.device("cpu"), torch.bfloat16)
    fine = sum(t.ndim == 2 and precision(n, torch.bfloat16) == torch.float32 for n, t in stored.items())
    assert watched.most <= AT_WORK + fine < matrices(stored) - 3
    assert same(dit.state_dict(), {n: t.to(precision(n, torch.bfloat16)) for n, t in stored.items()})


def scaled(folder, path) -> dict[str, torch.Tensor]:
    """A transformer in one file of original names, matrices in fp8 with scales; and what that stands for."""
    packed, meant = {}, {}
    for name, tensor in load_file(folder / f"{STEM}.safetensors").items():
        stem, _, leaf = name.rpartition(".")
        theirs = f"{to_original(stem)}.{leaf}" if leaf in ("weight", "bias") else to_original(name)
        packed[theirs], meant[name] = tensor, tensor
        if tensor.ndim == 2 and name.startswith("blocks."):
            scale = tensor.abs().max() / 448
            packed[theirs] = (tensor / scale).to(torch.float8_e4m3fn)
            packed[theirs.removesuffix("weight") + "scale_weight"] = scale
            meant[name] = packed[theirs].float() * scale
    save_file(packed, path)
    return meant


def test_fp8_with_scales_is_one_product_at_a_time(wan, tmp_path):
    path = tmp_path / "fp8.safetensors"
    meant = scaled(wan("t2v") / "transformer", path)
    assert same(load_original([path]), meant)
    at = partial(precision, dtype=torch.bfloat16)
    with Watched() as watched:
        found = load_original([path], dtype=at)
    fine = sum(t.ndim == 2 and at(n) == torch.float32 for n, t in meant.items())
    assert watched.most <= AT_WORK + fine < matrices(meant) - 3
    assert same(found, {n: t.to(at(n)) for n, t in meant.items()})


def test_what_goes_to_a_device_goes_in_its_last_precision(wan, tmp_path):
    path = tmp_path / "fp8.safetensors"
    scaled(wan("t2v") / "transformer", path)
    half = {"dtype": torch.bfloat16, "device": "meta"}
    for read in (
        partial(load_state, wan("t2v") / "transformer"),
        partial(load_state, wan("t2v") / "text_encoder", "model"),
        partial(load_original, [path]),
    ):
        with Watched() as watched:
            state = read(**half)
        assert watched.moved == {torch.bfloat16}
        assert {(t.dtype, t.device.type) for t in state.values()} == {(torch.bfloat16, "meta")}


def test_a_scale_without_its_weight_is_refused(tmp_path):
    path = tmp_path / "fp8.safetensors"
    save_file({"blocks.0.self_attn.q.scale_weight": torch.ones(1)}, path)
    with pytest.raises(ModelError, match=r"scale for blocks\.0\.self_attn\.q and no weight"):
        load_original([path])


@pytest.fixture
def supply(wan, tmp_path):
    """Of a transformer in scaled fp8, used in bfloat16; and the bytes of its file."""
    path = tmp_path / "fp8.safetensors"
    meant = scaled(wan("t2v") / "transformer", path)

    def made(device="cpu", **options):
        at = partial(precision, dtype=torch.bfloat16)
        return Supply(original_shelf([path]), at, torch.device(device), **options)

    return made, meant, sum(place.size for place in made().shelf.places.values())


@pytest.mark.parametrize("lift", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_a_block_in_scaled_fp8_waits_in_the_precision_of_its_use(supply, keep, lift):
    made, meant, stored = supply
    ready = made(keep=keep, lift=lift)
    with Watched() as watched:
        found = {name: ready.fetch(name)["weight"] for name in meant if name in ready.shelf.scales}
    assert len(found) > 10
    wanted = {n: meant[n].to(torch.bfloat16) for n in found}  # as a transformer held whole has them
    assert same(found, {n: t.float() for n, t in wanted.items()} if lift else wanted)
    assert lift or watched.most <= AT_WORK
    waiting = sum(t.nbytes for kept in ready._kept.values() for t in kept.values())
    assert waiting == keep * sum(t.nbytes for t in wanted.values())
    assert not keep or waiting > stored / 2


def test_the_host_keeps_blocks_where_it_has_room_for_what_they_unpack_to(supply, monkeypatch):
    made, meant, stored = supply
    ready = made("cuda", keep=True)
    unpacked = sum(t.to(precision(n, torch.bfloat16)).nbytes for n, t in meant.items())
    assert ready.held() == unpacked > stored
    assert made("cuda", code="int8").held() == sum(t.numel() for t in meant.values())
    for room, count, keeps in ((unpacked + 1, 1, True), (unpacked - 1, 1, False), (unpacked + 1, 2, False)):
        monkeypatch.setattr(loading, "free_host", lambda room=room: room / loading.HOST_SHARE)
        assert loading._keeps(ready, "block", count) == keeps
    assert not loading._keeps(ready, "component", 1)
    assert not loading._keeps(made("cpu"), "block", 1)
