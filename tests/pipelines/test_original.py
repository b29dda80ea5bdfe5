"""Wan transformers in single files and original names give what the same weights give in diffusers layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import kinema
from checkpoints import PICTURE, TRANSFORMER, WAN, save_wan
from kinema.core.errors import ModelError
from kinema.models.original import config_of, read_shapes
from kinema.models.wan_names import to_original
from kinema.pipelines.cards import read_card
from kinema.pipelines.durable.key import identity
from kinema.pipelines.job import make_job
from kinema.story.shot import Shot

WIDE = {"num_attention_heads": 1, "attention_head_dim": 128}
KINDS = {
    "t2v": TRANSFORMER | WIDE,
    "i2v": TRANSFORMER | WIDE | PICTURE | {"added_kv_proj_dim": 128},
    "two-experts": TRANSFORMER | WIDE,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints whose heads are as wide as Wan's, which single files take for granted."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind, config in KINDS.items():
            patch.setitem(WAN, kind, WAN[kind] | {"transformer": config})
            made[kind] = save_wan(kind, tmp_path_factory.mktemp(kind))
    return made


def original(folder: Path, part: str = "transformer", prefix: str = "") -> dict[str, torch.Tensor]:
    """A transformer's tensors under the names of Wan's own repository."""
    found = {}
    for name, tensor in load_file(folder / part / "diffusion_pytorch_model.safetensors").items():
        stem, dot, leaf = name.rpartition(".")
        if leaf in ("weight", "bias"):
            found[f"{prefix}{to_original(stem)}{dot}{leaf}"] = tensor
        else:
            found[f"{prefix}{to_original(name)}"] = tensor
    assert not any("None" in name for name in found)
    return found


def clip(model: str, **fields) -> np.ndarray:
    shot = {"size": "32x32", "frames": 5, "steps": 4, "seed": 1, **fields}
    return kinema.generate("a red fox", model=model, **shot).array()


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "model.diffusion_model."])
def test_a_single_file_is_the_same_model(folders, tmp_path, prefix):
    save_file(original(folders["t2v"], prefix=prefix), tmp_path / "wan.safetensors")
    model = f"{tmp_path / 'wan.safetensors'}@{folders['t2v']}"
    assert np.array_equal(clip(model), clip(str(folders["t2v"])))


@pytest.mark.parametrize("kind", ["t2v", "i2v"])
def test_the_configuration_is_read_off_the_shapes(folders, tmp_path, kind):
    save_file(original(folders[kind]), tmp_path / "wan.safetensors")
    config = config_of(read_shapes([tmp_path / "wan.safetensors"]), "it")
    written = json.loads((folders[kind] / "transformer" / "config.json").read_text())
    for name, value in config.items():
        assert value == (tuple(written[name]) if name == "patch_size" else written[name]), name
    model = f"{tmp_path / 'wan.safetensors'}@{folders[kind]}"
    theirs, ours = read_card(str(folders[kind])), read_card(model)
    assert (ours.modes, ours.mechanism, ours.defaults) == (theirs.modes, theirs.mechanism, theirs.defaults)


def test_shards_in_a_folder(folders, tmp_path):
    tensors = original(folders["t2v"])
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, tmp_path / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert np.array_equal(clip(f"{tmp_path}@{folders['t2v']}"), clip(str(folders["t2v"])))
    index.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(ModelError, match="lists no files beside it"):
        read_card(f"{tmp_path}@{folders['t2v']}")


def test_one_file_in_a_folder(folders, tmp_path):
    """As the makers' repository of the 1.3B has it, beside what is not for kinema."""
    (tmp_path / "config.json").write_text('{"_class_name": "WanModel"}')
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")  # of an older download
    save_file(original(folders["t2v"]), tmp_path / "diffusion_pytorch_model.safetensors")
    model = f"{tmp_path}@{folders['t2v']}"
    assert read_card(model).files == ((tmp_path / "diffusion_pytorch_model.safetensors",),)
    assert np.array_equal(clip(model), clip(str(folders["t2v"])))


def test_two_transformers(folders, tmp_path):
    folder = folders["two-experts"]
    for part in ("transformer", "transformer_2"):
        save_file(original(folder, part), tmp_path / f"{part}.safetensors")
    high, low = (tmp_path / f"{part}.safetensors" for part in ("transformer", "transformer_2"))
    assert np.array_equal(clip(f"{high},{low}@{folder}"), clip(str(folder)))
    assert not np.array_equal(clip(f"{low},{high}@{folder}"), clip(str(folder)))
    with pytest.raises(ModelError, match=r"names 1 transformers and .* has 2"):
        read_card(f"{high}@{folder}")


def test_fp8_with_scales_stands_for_its_product(folders, tmp_path):
    plain, packed = original(folders["t2v"]), {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in plain.items():
        packed[name] = tensor
        if name.startswith("blocks.") and name.endswith(".weight") and tensor.ndim == 2:
            scale = tensor.abs().max() / 448
            packed[name] = (tensor / scale).to(torch.float8_e4m3fn)
            packed[name.removesuffix("weight") + "scale_weight"] = scale
            plain[name] = packed[name].float() * scale
    save_file(packed, tmp_path / "fp8.safetensors")
    save_file(plain, tmp_path / "plain.safetensors")
    parts = folders["t2v"]
    found = clip(f"{tmp_path / 'fp8.safetensors'}@{parts}")
    assert np.array_equal(found, clip(f"{tmp_path / 'plain.safetensors'}@{parts}"))
    assert not np.array_equal(found, clip(str(parts)))


def test_the_record_has_the_hash_of_the_file(folders, tmp_path):
    path = tmp_path / "wan.safetensors"
    save_file(original(folders["t2v"]), path)
    job = make_job(Shot(model=f"{path}@{folders['t2v']}", size="32x32", frames=5))
    before = identity(job, {})["files"]["wan.safetensors"]
    save_file({k: v * 1.5 for k, v in original(folders["t2v"]).items()}, path)
    assert identity(job, {})["files"]["wan.safetensors"] != before


def test_what_does_not_belong_together_is_refused_before_weights_are_read(folders, tmp_path, wan):
    tensors = original(folders["t2v"])
    path = tmp_path / "wan.safetensors"
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"is a transformer alone; name .*wan.safetensors@FOLDER_OR_HUB_ID"):
        read_card(str(path))
    with pytest.raises(ModelError, match=r"picture width is None and that of .* 16"):
        read_card(f"{path}@{folders['i2v']}")
    with pytest.raises(ModelError, match="is no Wan checkpoint in diffusers layout"):
        read_card(f"{path}@embedded")
    save_file({**tensors, "vace_blocks.0.weight": torch.ones(1)}, path)
    with pytest.raises(ModelError, match=r"1 tensors such as vace_blocks.0.weight"):
        read_card(f"{path}@{folders['t2v']}")
    del tensors["head.head.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"no head.head.weight"):
        read_card(f"{path}@{folders['t2v']}")
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ModelError, match="damaged or not safetensors"):
        read_card(f"{path}@{folders['t2v']}")
    with pytest.raises(ModelError, match=r"does not exist"):
        read_card(f"{tmp_path / 'none.safetensors'}@{folders['t2v']}")
    with pytest.raises(ModelError, match=r"neither a .safetensors file nor a folder"):
        read_card(f"{tmp_path / 'none'}@{folders['t2v']}")


def test_the_parts_own_transformer_is_not_needed(folders, tmp_path):
    save_file(original(folders["t2v"]), tmp_path / "wan.safetensors")
    parts = shutil.copytree(folders["t2v"], tmp_path / "parts")
    (parts / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert np.array_equal(clip(f"{tmp_path / 'wan.safetensors'}@{parts}"), clip(str(folders["t2v"])))
