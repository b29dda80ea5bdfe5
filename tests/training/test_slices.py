"""The slices of a GPU machine, run with tiny sizes where there is none; and what they import."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import kinema
from kinema.pipelines.card import EMBEDDED_FOLDER, Student
from kinema.pipelines.cards import read_card
from kinema.training.pack import PackSettings, encode_strip, write_pack

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("diffusers", "transformers", "pydantic", "typer", "rich", "ftfy", "imageio", "tqdm", "decord", "av")


def tiny_pack(path):
    rng = np.random.default_rng(0)
    sprites, strips, offset = [], [], 0
    for number in range(40):
        frames = np.zeros((2, 32, 32, 4), dtype=np.uint8)
        frames[:, 6:26, 6:26] = (*rng.integers(0, 255, 3), 255)
        strips.append(encode_strip(frames, PackSettings(method=0)))
        sprites.append({"name": f"thing {number}", "tags": [], "offset": offset, "frames": 2})
        offset += 2
    write_pack(path, strips, {"size": 32, "fps": 12.0, "sprites": sprites})


@pytest.mark.slow
def test_every_slice_runs_and_hands_on_to_the_next(tmp_path):
    tiny_pack(tmp_path / "sprites.zip")
    call = [sys.executable, ROOT / "scripts/gpu/slice.py"]
    rest = ["--dry", "--pack", tmp_path / "sprites.zip", "--device", "cpu"]
    out = tmp_path / "out"
    environment = os.environ | {"OUT": str(out), "OMP_NUM_THREADS": "1"}

    def run(name, work, *more):
        line = [*call, name, *rest, "--work", work, *more]
        subprocess.run([str(part) for part in line], check=True, env=environment, cwd=tmp_path)

    run("codec", tmp_path / "one")
    (tmp_path / "one-back").mkdir()
    for path in out.iterdir():
        path.rename(tmp_path / "one-back" / path.name)
    assert (tmp_path / "one-back/codec--model.safetensors").exists()

    run("first", tmp_path / "two", "--back", tmp_path / "one-back")  # a fresh machine
    assert len(list(out.iterdir())) <= 8
    with safe_open(out / "video-1.safetensors", "pt") as file:
        assert json.loads(file.metadata()["facts"]) == {"shards": 1, "step": 6}
    run("second", tmp_path / "two")  # the schedule is over: nothing changes
    run("fast", tmp_path / "two")
    with safe_open(out / "fast-lora.safetensors", "pt") as file:
        assert all(".lora_A." in name or ".lora_B." in name for name in file.keys())  # noqa: SIM118
    sheet = Image.open(next(out.glob("fast-*.png")))
    assert sheet.size == (2 * 5 * 32, 12 * 32)

    model = tmp_path / "model"
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(EMBEDDED_FOLDER / part, model / part)
    pack = [
        sys.executable,
        ROOT / "scripts/pack_embedded.py",
        "--checkpoint",
        tmp_path / "two/video.safetensors",
    ]
    pack += ["--codec", tmp_path / "two/codec", "--config", ROOT / "configs/dry-run.yaml", "--out", model]
    subprocess.run([*map(str, pack), "--fast", str(out / "fast-lora.safetensors")], check=True, cwd=tmp_path)
    assert read_card(str(model)).student == Student(steps=2, solver="euler", grid="wan-euler", shift=3.0)
    exact, quick = (
        kinema.generate("a thing", model=str(model), seed=1, speed=speed).array()
        for speed in ("exact", "distilled")
    )
    assert exact.shape == quick.shape == (9, 32, 32, 3)


def test_what_others_keep_in_the_folder_that_goes_back_stays(tmp_path):
    """Its name comes from the environment, where OUT may mean something else."""
    spec = importlib.util.spec_from_file_location("gpu_slice", ROOT / "scripts/gpu/slice.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    work, out = tmp_path / "work", tmp_path / "out"
    for folder in (work / "shards", work / "codec", out / "folder"):
        folder.mkdir(parents=True)
    (out / "thesis.txt").write_text("years")
    (work / "codec/model.safetensors").write_bytes(b"codec")
    module.collect(work, out, "codec")
    assert sorted(p.name for p in out.iterdir()) == ["codec--model.safetensors", "folder", "thesis.txt"]
    (work / "shards/video-1.safetensors").write_bytes(b"shard")
    module.collect(work, out, "video")
    assert sorted(p.name for p in out.iterdir()) == ["folder", "thesis.txt", "video-1.safetensors"]


def test_training_imports_only_what_is_there():
    """The rest of kinema's dependencies may be missing where only training happens."""
    code = f"""
import importlib.abc, importlib.util, runpy, sys
sys.argv = ["train_embedded.py", "--help"]
class Gate(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        if top in {ABSENT!r}:
            raise ImportError(f"{{name}} is not on that machine")
sys.meta_path.insert(0, Gate())
try:
    runpy.run_path({str(ROOT / "scripts/train_embedded.py")!r}, run_name="__main__")
except SystemExit as end:
    assert end.code == 0
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert found.returncode == 0, found.stderr
    assert "--plan" in found.stdout
