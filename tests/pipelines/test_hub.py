"""Downloads against a hub on this machine: only what is needed, resumed, checked, and errors of one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import kinema
from fake_hub import Hub, serve
from kinema.cli import run
from kinema.core.errors import ModelError, ResourceError
from kinema.pipelines.cards import local_folder, read_card
from kinema.pipelines.hub import Address, watched, weights_of

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
NAME = "maker/fox"


@pytest.fixture
def checkpoint(wan, tmp_path):
    """A checkpoint with everything beside it that nobody needs."""
    folder = shutil.copytree(wan("t2v"), tmp_path / "repo")
    for name in ("fox.bin", "transformer/fp16.pt", "transformer/code.py", "text_encoder/pytorch_model.bin"):
        (folder / name).write_bytes(b"never")
    for name in ("fox.safetensors", "transformer/diffusion_pytorch_model.fp16.safetensors"):
        shutil.copy(folder / WEIGHTS, folder / name)
    (folder / "assets").mkdir()
    shutil.copy(folder / WEIGHTS, folder / "assets" / "model.safetensors")
    return folder


@pytest.fixture
def hub(checkpoint, tmp_path, monkeypatch):
    from huggingface_hub import constants, file_download

    hub = Hub({NAME: checkpoint})
    server = serve(hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    end = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", end)
    template = end + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what is on disk is a multiple of it
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    hub.end = end
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_card_takes_configurations_and_a_load_what_is_needed(hub, checkpoint):
    card = read_card(NAME)
    assert not any(name.endswith(".safetensors") for name in names(card.folder))
    folder = local_folder(card)
    wanted = {n for n in names(checkpoint) if n.endswith((".json", ".model"))}
    parts = {f"{part}/diffusion_pytorch_model.safetensors" for part in ("transformer", "vae")}
    assert names(folder) == wanted | parts | {"text_encoder/model.safetensors"}
    assert (folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    before = list(hub.served)
    assert local_folder(read_card(NAME)) == folder
    assert hub.served == before  # nothing is fetched twice
    fields = {"size": "32x32", "frames": 5, "steps": 1, "seed": 1}
    there = kinema.generate("a fox", model=NAME, **fields).array()
    assert (there == kinema.generate("a fox", model=str(checkpoint), **fields).array()).all()


def test_of_a_file_and_its_shards_the_file_is_taken():
    shards = ["t/model-00001-of-00002.safetensors", "t/model-00002-of-00002.safetensors"]
    index = ["t/model.safetensors.index.json"]
    assert weights_of(["t"])([*shards, *index]) == [*index, *shards]
    assert weights_of(["t"])([*shards, *index, "t/model.safetensors"]) == [*index, "t/model.safetensors"]
    assert weights_of(["t"])(["other/model.safetensors", "t/model.bf16.safetensors"]) == []


def test_weights_in_one_precision_alone_are_taken_where_they_can_be_read():
    wanted = weights_of(["t"], variants=True)
    half = ["t/model.fp16-00001-of-00002.safetensors", "t/model.fp16-00002-of-00002.safetensors"]
    older = ["t/model-00001-of-00002.fp16.safetensors", "t/model-00002-of-00002.fp16.safetensors"]
    for names in (half, older, ["t/model.fp16.safetensors"]):
        assert wanted([*names, "t/model.bf16.safetensors", "other/model.fp16.safetensors"]) == names
        assert wanted([*names, "t/model.safetensors"]) == ["t/model.safetensors"]
        assert weights_of(["t"])(names) == []
    assert wanted([*half, "t/model.fp16.safetensors"]) == ["t/model.fp16.safetensors"]
    assert wanted(["t/model.non_ema.safetensors"]) == []


def test_an_image_model_in_half_precision_alone_is_fetched(hub, image_model, tmp_path):
    folder = shutil.copytree(image_model("sd"), tmp_path / "half")
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = unet.rename(unet.with_suffix(".fp16.safetensors"))
    shutil.copy(folder / "vae" / unet.name, folder / "vae" / half.name)
    hub.repos["maker/half"] = folder
    fetched = names(local_folder(read_card("maker/half")))
    assert names(folder) - fetched == {f"vae/{half.name}"}


def test_a_connection_that_is_cut_is_resumed_where_it_was(hub, checkpoint):
    hub.cut = {WEIGHTS: [100_000]}  # the client asks again by itself
    folder = local_folder(read_card(NAME))
    assert [first for first, _ in hub.sent(WEIGHTS)] == [0, 100_000]
    assert (folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()


def test_a_download_that_gives_up_goes_on_with_the_same_command(hub, checkpoint):
    size = (checkpoint / WEIGHTS).stat().st_size
    hub.cut = {WEIGHTS: [150_000, *[0] * 30]}
    stopped = rf"stopped in {WEIGHTS} after .* the same command goes on there"
    with pytest.raises(ModelError, match=stopped) as e:
        local_folder(read_card(NAME))
    assert "\n" not in str(e.value)
    hub.cut, hub.served[:] = {}, []
    folder = local_folder(read_card(NAME))
    assert hub.sent(WEIGHTS) == [(150_000, size - 150_000)]
    assert (folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()


def test_bytes_that_differ_are_found_and_fetched_anew(hub, checkpoint):
    hub.corrupt = {WEIGHTS}
    with pytest.raises(ModelError, match=f"{WEIGHTS} of {NAME} arrived damaged"):
        local_folder(read_card(NAME))
    hub.corrupt = set()
    assert (local_folder(read_card(NAME)) / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()


def test_progress_counts_bytes_up_to_all_of_them(hub):
    events = []
    with watched(events.append):
        local_folder(read_card(NAME))
    assert {e.phase for e in events} == {"fetch"}
    for begun in [i for i, e in enumerate(events) if e.step == 0]:
        run_of = [e for e in events[begun:] if e.steps == events[begun].steps]
        steps = [e.step for e in run_of]
        assert steps == sorted(steps)
        assert run_of[-1].step == run_of[-1].steps


def test_a_revision_is_pinned(hub):
    assert read_card(f"{NAME}@v1").folder.name == "b" * 40
    assert read_card(f"{NAME}@{'b' * 40}").folder.name == "b" * 40
    assert read_card(NAME).folder.name == "a" * 40
    with pytest.raises(ModelError, match=f"'{NAME}@v9' has no revision 'v9'"):
        read_card(f"{NAME}@v9")


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("a/b", "a/b", None),
        ("a/b@main", "a/b", "main"),
        ("a/b@refs/pr/3", "a/b", "refs/pr/3"),
        ("a/b@c/d", None, None),  # two checkpoints
        ("./a@main", None, None),
        ("a.safetensors@b/c", None, None),
        ("x/a.safetensors@b", None, None),
        ("embedded", None, None),
    ],
)
def test_addresses(name, repo, revision):
    assert Address.parse(name) == (None if repo is None else Address(repo, revision))


def test_errors_are_one_line_with_a_way_out(hub):
    hub.gated, hub.repos["maker/closed"] = {"maker/closed"}, hub.repos[NAME]
    for name, text in (
        ("maker/closed", r"is gated: accept its terms at https://huggingface.co/maker/closed, then log in"),
        ("maker/nothing", r"neither a folder nor on the hub; check the spelling, or log in"),
    ):
        with pytest.raises(ModelError, match=text) as caught:
            read_card(name)
        assert "\n" not in str(caught.value)


def test_offline_takes_what_is_there(hub, monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(ModelError, match=f"not on this machine.*fetch {NAME} once while online"):
        read_card(NAME, local_files_only=True)
    assert hub.served == []
    folder = local_folder(read_card(NAME))
    served = list(hub.served)
    assert local_folder(read_card(NAME, local_files_only=True), local_files_only=True) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert local_folder(read_card(NAME)) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    assert local_folder(read_card(NAME)) == folder
    assert hub.served == served


def test_the_disk_is_asked_first(hub, monkeypatch):
    card = read_card(NAME)
    hub.served.clear()
    usage = shutil.disk_usage("/")._replace(free=(64 << 20) + 1000)
    monkeypatch.setattr("kinema.pipelines.hub.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"needs .* GB more and .* free; make room, or set HF_HOME"):
        local_folder(card)
    assert hub.served == []


def test_models_are_fetched_listed_and_removed(hub, capsys):
    assert run(["models", "fetch", NAME, "--format", "json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["event"] == "done"
    assert {e["phase"] for e in events[:-1]} == {"fetch"}
    assert run(["models", "list"]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}@{'a' * 12}  ")
    assert run(["models", "remove", NAME]) == 0
    assert "freed" in capsys.readouterr().out
    assert run(["models", "list"]) == 0
    assert "no model of the hub" in capsys.readouterr().out
    assert run(["models", "remove", NAME]) == 2
    assert run(["models", "fetch"]) == 2
    assert run(["models", "somewhere", "else"]) == 2


def test_the_environment_says_where_the_hub_is(hub, tmp_path):
    env = {**os.environ, "HF_ENDPOINT": hub.end, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "kinema", "models", "fetch", f"{NAME}@v1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert str(tmp_path / "home") in done.stdout
    assert "b" * 40 in done.stdout
