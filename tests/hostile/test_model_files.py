"""Checkpoints that are damaged, wrong, or meant to harm: refused with the reason, and nothing is ever run."""

import json
import os
import pickle
import resource
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinema.core.errors import KinemaError
from kinema.models.config_values import check_values
from kinema.models.lora_file import read_lora
from kinema.models.pretrained import load_encoder
from kinema.models.text import load_tokenizer
from kinema.models.weights import require_finite
from kinema.pipelines import sums
from kinema.pipelines.cards import read_card
from kinema.pipelines.job import make_job
from kinema.pipelines.model import load
from kinema.story.shot import Shot

INDEX_FILE = "model.safetensors.index.json"
DIT = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(small, tmp_path):
    """A whole checkpoint; its files are links to the shared ones until they are written anew."""
    shutil.copytree(small, tmp_path / "model", copy_function=os.link)
    return tmp_path / "model"


def put(path, content):
    """Another content under a name, leaving the shared file alone."""
    path.unlink(missing_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def refused(call, *parts):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(KinemaError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900
    for part in parts:
        assert part in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def raw(header, data=b""):
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


class Touch:
    """A pickle that makes a file when it is opened."""

    def __reduce__(self):
        return (Path.touch, (Path("canary"),))


FILES = {
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"1234567", "7 bytes"),
    "giant header": (struct.pack("<Q", 2**63) + b"{}" * 50, "header claims 9223372036854775808 bytes"),
    "no header": (bytes(100), "damaged or not safetensors"),
    "header is a list": (raw(b"[]"), "damaged"),
    "deep header": (raw(b"[" * 200_000), "damaged"),
    "overlap": (raw({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)), "damaged"),
    "hole": (raw({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)), "damaged"),
    "past the end": (raw({"a": entry(0, 400, [100])}, bytes(12)), "damaged"),
    "more than it says": (raw({"a": entry(0, 4, [1])}, bytes(12)), "damaged"),
    "wrong shape": (raw({"a": entry(0, 4, [2**40, 2**40])}, bytes(4)), "damaged"),
    "negative shape": (raw({"a": entry(0, 4, [-1])}, bytes(4)), "damaged"),
    "unknown type": (raw({"a": entry(0, 4, [1], "F7")}, bytes(4)), "damaged"),
    "a name twice": (
        raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],'
            b'"data_offsets":[4,8]}}', bytes(8)),
        "'a' is named twice",
    ),
    "another model": (raw({"a": entry(0, 4, [1])}, bytes(4)), "missing"),
    "pickle": (pickle.dumps(Touch()), "a pickle, which can run code"),
    "zip": (b"PK\x03\x04" + bytes(99), "a zip of pickles"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html><title>404</title>", "a web page"),
    "gguf": (b"GGUF" + bytes(99), "a GGUF file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_weights_that_are_none(folder, monkeypatch, kind):
    monkeypatch.chdir(folder)
    content, reason = FILES[kind]
    put(folder / DIT, content)
    refused(lambda: load(str(folder)), reason, "diffusion_pytorch_model" if "missing" not in reason else "")
    assert not (folder / "canary").exists()


def test_a_truncated_file(folder):
    data = (folder / DIT).read_bytes()
    for length in (len(data) // 2, len(data) - 1):
        put(folder / DIT, data[:length])
        refused(lambda: load(str(folder)), "damaged")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none(folder, part, value):
    path = folder / (DIT if part == "transformer" else f"{part}/model.safetensors")
    state = load_file(path)
    name = next(n for n, t in state.items() if t.is_floating_point() and t.ndim == 1)
    state[name][-1] = value
    path.unlink()
    save_file(state, path)
    refused(lambda: load(str(folder)), name, "not finite")


def test_whole_numbers_for_weights_and_another_shape(folder):
    state = load_file(folder / DIT)
    name = next(n for n, t in state.items() if t.ndim == 2)
    for wrong, reason in (
        (state[name].to(torch.int64), "1 of another type"),
        (state[name][:-1], "another shape"),
    ):
        (folder / DIT).unlink()
        save_file(state | {name: wrong.contiguous()}, folder / DIT)
        refused(lambda: load(str(folder)), reason, name)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_a_pickle_under_any_name_is_not_opened(folder, monkeypatch, suffix):
    monkeypatch.chdir(folder)
    (folder / DIT).unlink()
    (folder / DIT).with_suffix(suffix).write_bytes(pickle.dumps(Touch()))
    refused(lambda: load(str(folder)), "pickled weights", "convert them to safetensors")
    assert not (folder / "canary").exists()


def shards(folder, **where):
    state = load_file(folder / DIT)
    names = sorted(state)
    (folder / DIT).unlink()
    stem = folder / "transformer" / "diffusion_pytorch_model"
    save_file({n: state[n] for n in names[:2]}, f"{stem}-1.safetensors")
    save_file({n: state[n] for n in names[2:]}, f"{stem}-2.safetensors")
    index = {n: f"diffusion_pytorch_model-{1 if n in names[:2] else 2}.safetensors" for n in names} | where
    put(Path(f"{stem}.safetensors.index.json"), {"weight_map": index})
    return Path(f"{stem}-1.safetensors"), state


@pytest.mark.parametrize("name", ["../vae/model.safetensors", "/etc/passwd", "a.bin", 3, "..\\x.safetensors"])
def test_an_index_stays_in_its_folder(folder, name):
    shards(folder, **{"x": name})
    refused(lambda: load(str(folder)), "weight_map")


def test_a_shard_that_is_a_link_stays_in_its_folder(folder, tmp_path):
    first, _ = shards(folder)
    shutil.move(first, tmp_path / "elsewhere.safetensors")
    first.symlink_to(tmp_path / "elsewhere.safetensors")
    refused(lambda: load(str(folder)), "a link out of its folder", "elsewhere.safetensors")
    (tmp_path / "blobs").mkdir()
    shutil.move(tmp_path / "elsewhere.safetensors", tmp_path / "blobs" / "0")
    first.unlink()
    first.symlink_to(tmp_path / "blobs" / "0")  # as the hub's cache has it
    assert load(str(folder)).card.family == "embedded"


def test_two_shards_with_one_tensor(folder):
    first, state = shards(folder)
    name = sorted(state)[-1]
    save_file(load_file(first) | {name: state[name]}, first)
    refused(lambda: load(str(folder)), name, "another shard")


CONFIGS = {
    "layers": ({"num_layers": 10**9}, "num_layers=1000000000 is above 512"),
    "width": ({"attention_head_dim": 10**30}, "attention_head_dim"),
    "feed-forward": ({"ffn_dim": 2**20}, "instead of"),
    "zero": ({"num_attention_heads": 0}, "num_attention_heads"),
    "negative": ({"ffn_dim": -1}, "ffn_dim"),
    "text": ({"num_layers": "4"}, "num_layers"),
    "fraction": ({"num_layers": 1.5}, "num_layers"),
    "flag": ({"num_layers": True}, "num_layers"),
    "nothing": ({"num_layers": None}, "num_layers"),
    "patch": ({"patch_size": [1, 2, 0]}, "patch_size"),
    "patch of two": ({"patch_size": [1, 2]}, "patch_size"),
    "nan": ({"eps": float("nan")}, "eps"),
    "unknown": ({"down_block_types": ["DownBlock2D"]}, "unknown entries: down_block_types"),
    "auto_map": ({"auto_map": {"AutoModel": "evil.Evil"}}, "asks for code to be run (auto_map)"),
    "target": ({"x": {"_target_": "os.system", "command": "touch canary"}}, "code to be run (x._target_)"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_transformer_config(folder, monkeypatch, kind):
    monkeypatch.chdir(folder)
    changes, reason = CONFIGS[kind]
    path = folder / "transformer" / "config.json"
    put(path, json.loads(path.read_text()) | changes)

    def use():
        make_job(Shot(prompt="a", model=str(folder)))
        load(str(folder))

    refused(use, reason)
    assert not (folder / "canary").exists()


@pytest.mark.parametrize(
    "name", ["model_index.json", "vae/config.json", "transformer/config.json", "text_encoder/config.json"]
)
@pytest.mark.parametrize("text", ["", "[1]", '{"a": ', "[" * 100_000, "\x00", "{}"])
def test_configs_that_are_none(folder, name, text):
    put(folder / name, text)
    if text == "{}" and name.startswith("text"):
        return  # BERT's own sizes then, which the weights have
    refused(lambda: load(str(folder)))


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("vae", {"width": 10**9}),
        ("vae", {"width": 2**19}),
        ("vae", {"blocks": 10**9}),
        ("vae", {"time": "4"}),
        ("vae", {"patch": 0}),
        ("vae", {"_class_name": "AutoencoderKL"}),
        ("text_encoder", {"vocab_size": 8_000_000}),
        ("text_encoder", {"num_hidden_layers": 10**9}),
        ("text_encoder", {"hidden_size": [384]}),
    ],
)
def test_absurd_parts_take_no_memory(folder, part, changes):
    path = folder / part / "config.json"
    put(path, json.loads(path.read_text()) | changes)
    refused(lambda: load(str(folder)))


INDEX = {
    "another library": ({"transformer": ["os", "system"]}, "'os'.system for its transformer"),
    "own file": ({"vae": ["my_vae", "MyVae"]}, "'my_vae'.MyVae for its vae"),
    "own pipeline": ({"_class_name": ["pipeline", "Evil"]}, "'pipeline'.Evil"),
    "another pipeline": ({"_class_name": "SoundPipeline"}, "SoundPipeline"),
    "custom pipelines": ({"custom_pipelines": {"a": "b"}}, "code to be run"),
    "no defaults": ({"defaults": None}, "configuration of"),
    "odd defaults": ({"defaults": {"width": 64}}, "configuration of"),
}


@pytest.mark.parametrize("kind", INDEX)
def test_a_model_index(folder, kind):
    changes, reason = INDEX[kind]
    path = folder / "model_index.json"
    put(path, json.loads(path.read_text()) | changes)
    refused(lambda: read_card(str(folder)), reason)


@pytest.mark.parametrize(
    "change",
    [
        {"width": "64"},
        {"fps": "0"},
        {"fps": "x"},
        {"fps": 1e400},
        {"steps": 0},
        {"shift": -1.0},
        {"frames": 2.5},
    ],
)
def test_defaults_of_a_model(folder, change):
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    put(path, index | {"defaults": index["defaults"] | change})
    refused(lambda: make_job(Shot(prompt="a", model=str(folder))))


def test_a_tokenizer_that_is_none(folder):
    put(folder / "tokenizer" / "tokenizer.json", '{"version": "1.0"}')
    refused(lambda: load(str(folder)), "is no tokenizer")


def test_a_flipped_bit_is_found_where_the_sums_are_known(folder):
    sums.write(folder)
    load(str(folder))
    data = bytearray((folder / DIT).read_bytes())
    data[len(data) // 2] ^= 1
    put(folder / DIT, bytes(data))
    refused(lambda: load(str(folder)), DIT, "SHA256SUMS", "get it again")
    sums.write(folder)
    load(str(folder))
    put(folder / "SHA256SUMS", "no sum\n")
    refused(lambda: load(str(folder)), "a line that is no sum")
    put(folder / "SHA256SUMS", f"{'0' * 64}  vae/other.safetensors\n")
    refused(lambda: load(str(folder)), "lacks vae/other.safetensors")


def test_the_embedded_model_is_the_one_that_was_packed():
    from kinema.pipelines.card import EMBEDDED_FOLDER

    assert (EMBEDDED_FOLDER / sums.NAME).is_file()
    sums.verify(EMBEDDED_FOLDER)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": '{"auto_map": {"AutoModel": "evil.Evil"}}'}, "code to be run"),
        ({"config.json": '{"_attn_implementation_internal": "someone/kernel"}'}, "code to be run"),
        ({"config.json": '{"num_layers": 1000000000}'}, "num_layers"),
        ({"config.json": '{"d_model": 1e400}'}, "not finite"),
        ({"config.json": "{}", "model.bin": b"\x80\x04"}, "pickled weights"),
        ({"config.json": "{}", "model.safetensors": b"\x80\x04" + bytes(9)}, "a pickle"),
        ({"config.json": "{}", INDEX_FILE: '{"weight_map": {"a": "../a"}}'}, "weight_map"),
    ],
)  # fmt: skip
def test_encoders_are_checked_before_transformers_sees_them(tmp_path, monkeypatch, files, reason):
    for name, content in files.items():
        put(tmp_path / name, content)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)  # importing it fails now
    if INDEX_FILE in files:
        put(tmp_path / "b.safetensors", raw({}))
    refused(lambda: load_encoder(tmp_path, "UMT5EncoderModel", torch.float32, "cpu"), reason)


def test_a_tokenizer_with_code(tmp_path):
    put(tmp_path / "tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
    refused(lambda: load_tokenizer(tmp_path), "code to be run")


def test_real_configs_pass():
    umt5 = {"vocab_size": 256384, "num_layers": 24, "eos_token_id": 1, "d_ff": 10240, "pad_token_id": -1}
    check_values(umt5 | {"auto_map": None, "architectures": ["A"], "a": [{"b": 1.0}]}, "here")


@pytest.mark.parametrize("kind", FILES)
def test_loras_and_single_transformers(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    content, reason = FILES[kind]
    put(tmp_path / "a.safetensors", content)
    reason = "" if reason == "missing" else reason
    refused(lambda: read_lora(tmp_path / "a.safetensors"), "a.safetensors", reason)
    refused(lambda: read_card("a.safetensors@b"), "a.safetensors", reason)
    assert not (tmp_path / "canary").exists()


def test_a_lora_with_numbers_that_are_none(tmp_path):
    state = {f"blocks.0.attn1.to_q.lora_{side}.weight": torch.full((4, 4), float("nan")) for side in "AB"}
    save_file(state, tmp_path / "a.safetensors")
    refused(lambda: read_lora(tmp_path / "a.safetensors"), "not finite")


def test_fp8_is_checked_too():
    require_finite("a", torch.ones(3).to(torch.float8_e4m3fn), "here")
    refused(
        lambda: require_finite("a", torch.full((3,), float("nan")).to(torch.float8_e5m2), "here"),
        "not finite",
    )


@pytest.mark.parametrize(
    "name", ["~nobody-here/x", "a" * 300, "a" * 300 + "/b", "a\0b", "", "x@y", "@", ".safetensors@"]
)
def test_names_of_models_that_cannot_be(monkeypatch, name):
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("no"))
    )
    refused(lambda: read_card(name))
