"""Loading weights: complete or refused, from one file or shards, and never from a pickle."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kinema.core.errors import ModelError
from kinema.models.weights import STEM, bare, file_hashes, load_into, load_state, read_config


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


@pytest.fixture
def state():
    return {name: torch.randn_like(t) for name, t in small().state_dict().items()}


def write_shards(folder, state):
    names = sorted(state)
    files = {f"{STEM}-00001-of-00002.safetensors": names[:3], f"{STEM}-00002-of-00002.safetensors": names[3:]}
    for file, part in files.items():
        save_file({n: state[n] for n in part}, folder / file)
    index = {"weight_map": {n: file for file, part in files.items() for n in part}}
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("sharded", [False, True])
def test_a_module_built_bare_gets_every_tensor_of_the_folder(tmp_path, state, sharded):
    if sharded:
        write_shards(tmp_path, state)
    else:
        save_file(state, tmp_path / f"{STEM}.safetensors")
    with bare():
        module = small()
    assert all(p.is_meta for p in module.parameters())
    load_into(module, load_state(tmp_path), tmp_path)
    assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in module.parameters())


def test_tensors_are_taken_over_not_copied(state):
    module = small()
    load_into(module, state, "here")
    assert all(t.data_ptr() == state[n].data_ptr() for n, t in module.state_dict().items())


def test_only_floating_tensors_are_converted(tmp_path):
    save_file({"w": torch.tensor([1.5]), "n": torch.tensor([70000])}, tmp_path / "other.safetensors")
    state = load_state(tmp_path, "other", dtype=torch.bfloat16)
    assert state["w"].dtype == torch.bfloat16
    assert state["n"].dtype == torch.int64
    assert state["n"].item() == 70000


def test_every_kind_of_misfit_is_counted_and_named(state):
    wrong = {**{n: t for n, t in state.items() if not n.startswith("1.")}, "extra": torch.zeros(1)}
    wrong["0.bias"] = torch.zeros(5)
    with pytest.raises(ModelError) as error:
        load_into(small(), wrong, "a/folder")
    message = str(error.value)
    assert "a/folder" in message
    assert "2 missing (1.bias, 1.weight)" in message
    assert "1 unexpected (extra)" in message
    assert "1 of another shape (0.bias (5,) instead of (4,))" in message


def test_only_three_names_are_given(state):
    with pytest.raises(ModelError, match=r"6 missing \(0\.bias, 0\.weight, 1\.bias, \.\.\.\)"):
        load_into(small(), {}, "here")


def test_a_missing_shard_is_named(tmp_path, state):
    write_shards(tmp_path, state)
    (tmp_path / f"{STEM}-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks .*00002-of-00002"):
        load_state(tmp_path)


@pytest.mark.parametrize("target", ["../other.safetensors", "/etc/w.safetensors", "weights.bin", 3])
def test_an_index_may_only_name_safetensors_beside_it(tmp_path, state, target):
    save_file(state, tmp_path / "unrelated.safetensors")
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": {"0.bias": target}}))
    with pytest.raises(ModelError, match="weight_map"):
        load_state(tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_pickles_are_refused_unopened(tmp_path, suffix):
    (tmp_path / f"{STEM}{suffix}").write_bytes(b"never read")
    with pytest.raises(ModelError, match="pickled"):
        load_state(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00not a header...", b"x" * 100])
def test_a_damaged_file_is_an_error_of_ours(tmp_path, content):
    (tmp_path / f"{STEM}.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        load_state(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ModelError, match="not a folder"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"lacks config\.json"):
        read_config(tmp_path)
    with pytest.raises(ModelError, match="safetensors"):
        load_state(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=f"lacks {STEM}.safetensors"):
        load_state(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_config_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ModelError, match=r"config\.json"):
        read_config(tmp_path)


def test_hashes_name_every_weight_and_config_file(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "w.safetensors").write_bytes(b"abc")
    (tmp_path / "model_index.json").write_bytes(b"{}")
    (tmp_path / "README.md").write_bytes(b"not counted")
    assert file_hashes(tmp_path) == {
        "model_index.json": hashlib.sha256(b"{}").hexdigest(),
        "vae/w.safetensors": hashlib.sha256(b"abc").hexdigest(),
    }


def test_the_hub_caches_name_of_a_large_file_is_its_hash(tmp_path):
    digest = "ab" * 32
    blob, snapshot = tmp_path / "blobs" / digest, tmp_path / "snapshots" / "rev"
    blob.parent.mkdir()
    snapshot.mkdir(parents=True)
    blob.write_bytes(b"another content")
    (snapshot / "w.safetensors").symlink_to(blob)
    assert file_hashes(snapshot) == {"w.safetensors": digest}
