"""The scripts that make the embedded model, run end to end on a few small sprites: stills, clips, packing."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import kinema
from kinema.core.errors import ConfigError, ModelError
from kinema.models.codec import PatchCodec, PatchCodecConfig
from kinema.models.weights import load_state
from kinema.pipelines.card import STUDENT
from kinema.training.codec import fit_linear
from kinema.training.files import read_facts, read_tensors
from kinema.training.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(kinema.__file__).parent / "assets" / "embedded"
SIZE = 16
CODEC = PatchCodecConfig(patch=4, mean_channels=6, deviation_channels=4, width=16, blocks=1, fine=2)
STAGE = {"steps": 2, "optimiser": {"warmup": 1}}
STILLS = {"batch": 2, "fps": 8, "frames": 1, "objective": {"shift": 1.0}}
CLIPS = STILLS | {"frames": 5, "objective": {"odds": {"continue": 1.0}}, "grammar": {"moving": 0.4}}
RECIPE = {
    "seed": 0,
    "model": {
        "patch_size": [1, 1, 1],
        "num_attention_heads": 2,
        "attention_head_dim": 24,
        "in_channels": 10,
        "out_channels": 10,
        "text_dim": 384,
        "pooled_dim": 384,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 1,
    },
    "stages": {
        "image": STAGE | {"parts": [STILLS]},
        "video": STAGE | {"parts": [STILLS, CLIPS]},
    },
    "defaults": {
        "width": SIZE,
        "height": SIZE,
        "frames": 5,
        "fps": "8",
        "steps": 2,
        "solver": "euler",
        "grid": "wan-euler",
        "shift": 1.0,
        "guidance": 2.0,
    },
}


def script(name):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def workshop(tmp_path):
    """Sprites, a fitted codec and a recipe."""
    frames = np.random.default_rng(0).integers(0, 255, (4, SIZE, SIZE, 4), dtype=np.uint8)
    frames[..., 3] = 255
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "frames.npy", frames)
    sprites = [
        {"name": name, "tags": [name], "offset": 2 * i, "frames": 2} for i, name in enumerate(["fox", "hen"])
    ]
    (data / "sprites.json").write_text(json.dumps({"fps": 8, "sha256": "ab", "sprites": sprites}))
    codec = PatchCodec(CODEC).requires_grad_(False)
    rng = torch.Generator().manual_seed(0)
    fit_linear(codec, [torch.rand(4, 3, 5, SIZE, SIZE, generator=rng) * 2 - 1 for _ in range(4)])
    codec.save(tmp_path / "codec")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def run(module, monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, argv)])
    return module.arguments()


def train(workshop, monkeypatch, stage, *more):
    module = script("train_embedded")
    argv = ("--config", workshop / "recipe.yaml", "--data", workshop / "data", "--codec", workshop / "codec")
    argv += ("--grammar", ROOT / "configs" / "embedded-v0-data.yaml", "--out", workshop / "run")
    args = run(module, monkeypatch, *argv, "--stage", stage, *more)
    args.out.mkdir(exist_ok=True)
    module.train(args)
    return workshop / "run" / f"{stage}.safetensors"


def test_two_stages_and_packing_give_a_folder_that_opens(workshop, monkeypatch):
    image = train(workshop, monkeypatch, "image", "--every", "1", "--sheets", "2")
    assert (workshop / "run" / "image-2.png").stat().st_size > 0
    video = train(workshop, monkeypatch, "video", "--start", image)
    made = video.read_bytes()
    train(workshop, monkeypatch, "video")  # finished already: resumes at its end and changes nothing
    assert video.read_bytes() == made

    packing, out = script("pack_embedded"), workshop / "model"
    argv = ("--checkpoint", video, "--codec", workshop / "codec", "--config", workshop / "recipe.yaml")
    for name in ("training.json", STUDENT):  # of a model that was packed here before
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    packing.pack(run(packing, monkeypatch, *argv, "--out", out))
    assert not (out / "training.json").exists()
    assert not (out / STUDENT).exists()
    model = kinema.load(str(out))
    clip = kinema.generate("a fox on a blue background", model=model, seed=1)
    assert clip.array().shape == (5, SIZE, SIZE, 3)
    assert clip.record.model["id"] == str(out)
    stored = model.dit.state_dict()["blocks.0.attn1.to_q.weight"]
    from safetensors import safe_open

    with safe_open(video, "pt") as file:
        average = file.get_tensor("average/blocks.0.attn1.to_q.weight")
    torch.testing.assert_close(stored, average.half().float(), atol=0, rtol=0)

    packing.pack(run(packing, monkeypatch, *argv, "--out", workshop / "rows", "--int8"))
    rows = load_state(workshop / "rows" / "transformer", dtype=torch.float32)
    assert rows.keys() == model.dit.state_dict().keys()
    coarse = rows["blocks.0.attn1.to_q.weight"]
    step = average.abs().amax(dim=1, keepdim=True) / 127
    assert ((coarse - average).abs() <= 0.51 * step).all()
    assert (coarse != stored).any()

    packing.pack(run(packing, monkeypatch, *argv, "--out", workshop / "some", "--int8", "condition_embedder"))
    some = load_state(workshop / "some" / "transformer", dtype=torch.float32)
    assert some.keys() == rows.keys()
    for name, weight in some.items():
        like = rows if name.startswith("condition_embedder") else model.dit.state_dict()
        torch.testing.assert_close(weight, like[name], atol=0, rtol=0)
    with pytest.raises(ConfigError, match="begins no weight's name"):
        packing.pack(run(packing, monkeypatch, *argv, "--out", workshop / "none", "--int8", "blocks.7"))
    assert not (workshop / "none").exists()

    again = workshop / "run" / "image.safetensors"
    again.unlink()
    train(workshop, monkeypatch, "image", "--start", out)  # a packed model can be trained on
    assert again.stat().st_size > 0


def test_nothing_is_packed_that_does_not_fit(workshop, monkeypatch):
    image, out = train(workshop, monkeypatch, "image", "--sheets", "0"), workshop / "model"
    packing = script("pack_embedded")
    deeper = RECIPE | {"model": RECIPE["model"] | {"num_layers": 2}}
    (workshop / "deeper.yaml").write_text(yaml.safe_dump(deeper))
    (workshop / "bare.yaml").write_text(yaml.safe_dump({key: RECIPE[key] for key in ("model", "stages")}))
    common = ("--checkpoint", image, "--codec", workshop / "codec", "--out", out, "--config")
    for config, words in (("deeper.yaml", "does not fit the model"), ("bare.yaml", "no 'defaults'")):
        with pytest.raises((ConfigError, ModelError), match=words):
            packing.pack(run(packing, monkeypatch, *common, workshop / config))
    with pytest.raises(ConfigError, match="no 'grammar' section"):
        packing.pack(
            run(packing, monkeypatch, *common, workshop / "recipe.yaml", "--data", workshop / "data")
        )
    assert not out.exists()


def test_weights_are_compared_on_the_same_batches_and_blended(workshop, monkeypatch, capsys):
    begun = train(workshop, monkeypatch, "image", "--sheets", "0")
    ended = train(workshop, monkeypatch, "video", "--sheets", "0", "--start", begun)
    half = workshop / "half.safetensors"
    blending = script("blend_checkpoints")
    monkeypatch.setattr(sys, "argv", ["", f"{begun}:1", f"{ended}:1", "--out", str(half)])
    blending.main()

    comparing = script("compare_checkpoints")
    argv = [begun, ended, half, f"{begun}:0.5+{ended}:0.5", "--config", workshop / "own.yaml"]
    argv += ["--data", workshop / "data", "--codec", workshop / "codec", "--rounds", "2"]
    (workshop / "own.yaml").write_text(yaml.safe_dump(RECIPE | {"grammar": {"moving": 0.5}}))
    monkeypatch.setattr(sys, "argv", ["", *map(str, argv)])
    capsys.readouterr()
    comparing.main()
    told = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  all:")]
    losses, changes = [float(line[1]) for line in told], [float(line[2]) for line in told]
    assert changes[0] == 0
    assert changes[1] != 0
    assert losses[2:3] == losses[3:]
    assert losses[2] != losses[1]
    trained = comparing.read_blend(str(ended))
    torch.testing.assert_close(
        comparing.read_blend(str(half))["proj_out.weight"],
        0.5 * trained["proj_out.weight"] + 0.5 * comparing.read_blend(str(begun))["proj_out.weight"],
    )


def stopped_at(monkeypatch, number, step):
    """Send this process a signal while it takes a step."""
    plain = Stage.step

    def taken(stage, batch):
        if stage.trainer.step == step:
            signal.raise_signal(number)
        return plain(stage, batch)

    monkeypatch.setattr(Stage, "step", taken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_saves_its_step_and_goes_on_bit_for_bit(workshop, monkeypatch, capsys, number):
    more = ("--steps", "4", "--sheets", "0")
    path = train(workshop, monkeypatch, "image", *more)
    whole, facts = read_tensors(path)
    path.unlink()
    with monkeypatch.context() as patch:
        stopped_at(patch, number, 1)
        train(workshop, patch, "image", *more)
    assert read_facts(path)["step"] == 2
    assert "2 of 4 steps" in capsys.readouterr().out
    train(workshop, monkeypatch, "image", *more)
    resumed, again = read_tensors(path)
    assert again == facts
    assert again["step"] == 4
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert "note" not in (said := capsys.readouterr().out)
    assert "goes on from step 2" in said
    train(workshop, monkeypatch, "image", *more)
    assert "finished before" in capsys.readouterr().out
    train(workshop, monkeypatch, "image", "--steps", "5", "--sheets", "0")
    assert "note: other steps than before step 4" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["data", "seed"])
def test_a_checkpoint_of_other_sprites_or_another_seed_is_not_gone_on_from(workshop, monkeypatch, what):
    path = train(workshop, monkeypatch, "image", "--sheets", "0")
    made = path.read_bytes()
    if what == "data":
        index = json.loads((workshop / "data/sprites.json").read_text())
        (workshop / "data/sprites.json").write_text(json.dumps(index | {"sha256": "cd"}))
    more = ("--seed", "5") if what == "seed" else ()
    with pytest.raises(ConfigError, match=r"was trained with another (sprites|seed) .*another --out"):
        train(workshop, monkeypatch, "image", *more)
    assert path.read_bytes() == made


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--steps", "0"), "--steps 0 is below 1"),
        (("--every", "0"), "--every 0 is below 1"),
        (("--sheets", "-1"), "--sheets -1 is below 0"),
        (("--minutes", "nan"), "--minutes nan"),
        (("--plan", "-3"), "--plan -3"),
        (("--device", "tpu"), "--device tpu"),
        (("--additions", "recipe.yaml"), "leave out --additions"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(workshop, monkeypatch, more, words):
    monkeypatch.chdir(workshop)
    (workshop / "data/frames.npy").unlink()  # would be the first to be missed
    with pytest.raises(ConfigError, match=words):
        train(workshop, monkeypatch, "image", *more)


def test_additions_need_a_model(workshop, monkeypatch):
    """They would learn on top of random numbers, and be a LoRA of nothing."""
    recipe = {**RECIPE, "stages": {"own": STAGE | {"parts": [STILLS], "additions": {"rank": 2}}}}
    (workshop / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match="name one with --start"):
        train(workshop, monkeypatch, "own")
    with pytest.raises(ModelError, match="nothing of that name"):
        train(workshop, monkeypatch, "own", "--start", workshop / "nobody")


def test_parts_that_do_not_belong_together_are_refused_before_the_first_step(workshop, monkeypatch):
    other = {**RECIPE, "model": RECIPE["model"] | {"in_channels": 12, "out_channels": 12}}
    (workshop / "recipe.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(ConfigError, match="codec has 10 channels and the recipe's model 12"):
        train(workshop, monkeypatch, "image")
    (workshop / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"clip": {"size": 12}}))
    with pytest.raises(ConfigError, match="clips of 12 px from sprites of 16"):
        train(workshop, monkeypatch, "image")


def test_a_script_says_what_is_wrong_in_one_line(workshop):
    argv = ["--config", workshop / "none.yaml", "--data", workshop, "--out", workshop / "run", "--stage", "x"]
    line = [sys.executable, ROOT / "scripts/train_embedded.py", *argv]
    result = subprocess.run([str(word) for word in line], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "none.yaml is not readable YAML" in result.stderr
    assert not (workshop / "run").exists()
