"""Your own drawings: the folder, the refusals, and a LoRA of the packaged model that learns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import kinema.cli
from kinema.models.lora_facts import facts_of
from kinema.models.weights import load_state
from kinema.pipelines.card import EMBEDDED_FOLDER as ASSETS
from kinema.training.data import SpriteBank

ROOT = Path(__file__).resolve().parents[2]


def script(name, *words):
    line = [sys.executable, ROOT / "scripts" / name, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(word) for word in line], capture_output=True, text=True, env=environment, cwd=ROOT
    )


def prepare(folder, out):
    return script("prepare_drawings.py", folder, "--licence", "CC0-1.0", "--out", out)


@pytest.fixture
def drawings(tmp_path):
    folder = tmp_path / "drawings"
    folder.mkdir()
    image = Image.new("RGBA", (32, 32))
    image.paste((250, 120, 0, 255), (8, 4, 24, 28))
    image.save(folder / "Paper_Lamp.png")
    (folder / "words.yaml").write_text("paper lamp: [lantern]\n")
    return folder


def test_files_are_named_by_what_they_show(drawings, tmp_path):
    result = prepare(drawings, tmp_path / "bank")
    assert result.returncode == 0, result.stderr
    (identity,) = SpriteBank.open(tmp_path / "bank").identities
    assert (identity.name, identity.synonyms, identity.animated) == ("paper lamp", ("lantern",), False)
    assert '"licence": "CC0-1.0"' in (tmp_path / "bank/sprites.json").read_text()


def test_names_are_the_same_however_a_disk_keeps_accents_and_other_files_are_told(drawings, tmp_path):
    decomposed, composed = "e\u0301clair", "\u00e9clair"
    (drawings / "Paper_Lamp.png").rename(drawings / f"{decomposed}.png")
    (drawings / "words.yaml").write_text(f"{composed}: [Long  Cake]\n", encoding="utf-8")
    (drawings / "cat.jpg").write_bytes(b"a photograph")
    result = prepare(drawings, tmp_path / "bank")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("note: cat.jpg is left out")
    (identity,) = SpriteBank.open(tmp_path / "bank").identities
    assert (identity.name, identity.synonyms) == (composed, ("long cake",))


@pytest.mark.parametrize("option", [("--size", 0), ("--fps", "nan")])
def test_sizes_and_rates_that_cannot_be_are_refused(drawings, tmp_path, option):
    words = [drawings, "--licence", "CC0-1.0", "--out", tmp_path / "bank", *option]
    result = script("prepare_drawings.py", *words)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"{option[0]} {option[1]}" in result.stderr
    assert not (tmp_path / "bank").exists()


def photograph(folder):
    Image.new("RGB", (8, 8), "red").save(folder / "photograph.png")


def twice(folder):
    (folder / "paper lamp.webp").write_bytes((folder / "Paper_Lamp.png").read_bytes())


def nobody(folder):
    (folder / "words.yaml").write_text("paper lump: [lantern]\n")


def plain_word(folder):
    (folder / "words.yaml").write_text("paper lamp: lantern\n")


def shared_word(folder):
    (folder / "hat.webp").write_bytes((folder / "Paper_Lamp.png").read_bytes())
    (folder / "words.yaml").write_text("paper lamp: [thing]\nhat: [thing]\n")


def no_word(folder):
    (folder / "_-.png").write_bytes((folder / "Paper_Lamp.png").read_bytes())


def nothing(folder):
    (folder / "Paper_Lamp.png").unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (photograph, "no clear ground"),
        (twice, "two drawings are named 'paper lamp'"),
        (nobody, "no drawing is named 'paper lump'"),
        (plain_word, "no list of words"),
        (shared_word, "'thing' already means 'paper lamp'"),
        (no_word, "is named by no word"),
        (nothing, "holds no .png"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(drawings, tmp_path, harm, words):
    harm(drawings)
    result = prepare(drawings, tmp_path / "bank")
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "bank").exists()


def test_a_lora_learns_says_whose_it_is_and_the_model_stays(drawings, tmp_path, capsys):
    assert prepare(drawings, tmp_path / "bank").returncode == 0
    recipe = yaml.safe_load((ROOT / "configs/own-drawings.yaml").read_text())
    recipe["stages"]["own"] |= {"steps": 3, "additions": {"rank": 2}}
    for part in recipe["stages"]["own"]["parts"]:
        part |= {"batch": 1, "frames": min(9, part["frames"])}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["--config", tmp_path / "recipe.yaml", "--data", tmp_path / "bank", "--codec", ASSETS / "vae"]
    words += ["--stage", "own", "--start", ASSETS, "--out", tmp_path / "run", "--sheets", "0"]
    result = script("train_embedded.py", *words)
    assert result.returncode == 0, result.stderr
    told = facts_of(tmp_path / "run/own-lora.safetensors")
    assert (told["licence"], told["shows"], told["steps"]) == ("CC0-1.0", "paper lamp", "3")
    converted = tmp_path / "kohya.safetensors"
    line = ["lora", "convert", str(tmp_path / "run/own-lora.safetensors"), str(converted), "--to", "kohya"]
    assert kinema.cli.run(line) == 0
    assert kinema.cli.run(["lora", "inspect", str(converted), "--model", "embedded"]) == 0
    said = capsys.readouterr().out
    assert "licence: CC0-1.0" in said
    assert "fits embedded" in said
    tensors = load_file(tmp_path / "run/own-lora.safetensors")
    assert all(name.startswith("transformer.blocks.") for name in tensors)
    ups = [value for name, value in tensors.items() if ".lora_B." in name]
    assert all(value.shape[1] == 2 for value in ups)
    assert sum(bool(value.any()) for value in ups) > len(ups) // 2  # they were zero, and have moved
    kept, state = (
        load_state(ASSETS / "transformer", dtype=torch.float32),
        load_file(tmp_path / "run/own.safetensors"),
    )
    moved = [
        name
        for name in kept
        if f"model/{name}" in state and not torch.equal(kept[name], state[f"model/{name}"])
    ]
    assert not moved
