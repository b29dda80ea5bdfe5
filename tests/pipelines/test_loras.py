"""LoRAs of a shot: checked before weights are read, worn while it samples, for one or two transformers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import kinema
from kinema.cli import run
from kinema.core.errors import ConfigError, ModelError
from kinema.models.lora_file import read_lora
from kinema.models.lora_write import relaid
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

LAYERS = ("blocks.0.attn1.to_q", "blocks.1.attn2.to_k", "blocks.1.attn1.to_out.0")


def save(path, prefix="transformer.", width=48, layers=LAYERS):
    g = torch.Generator().manual_seed(len(str(prefix)))
    tensors = {}
    for layer in layers:
        tensors[f"{prefix}{layer}.lora_A.weight"] = torch.randn(3, width, generator=g)
        tensors[f"{prefix}{layer}.lora_B.weight"] = torch.randn(width, 3, generator=g)
    save_file(tensors, path)
    return path


def clip(folder, **fields) -> np.ndarray:
    shot = {"prompt": "a red fox", "size": "32x32", "frames": 5, "steps": 4, "seed": 1, **fields}
    return kinema.generate(model=str(folder), **shot).array()


@pytest.fixture
def lora(tmp_path):
    return save(tmp_path / "a.safetensors")


def test_a_lora_changes_the_clip_and_scale_0_does_not(wan, lora):
    plain = clip(wan("t2v"))
    assert np.array_equal(clip(wan("t2v"), loras=f"{lora}:0"), plain)
    worn = clip(wan("t2v"), loras=str(lora))
    assert not np.array_equal(worn, plain)
    merged = clip(wan("t2v"), loras=[{"path": str(lora), "merge": True}])
    assert np.abs(merged.astype(int) - worn).max() <= 1
    assert not np.array_equal(clip(wan("t2v"), loras=f"{lora}:0:(0), 4:(1)"), worn)


def test_a_loaded_model_is_itself_again(wan, lora):
    model = kinema.load(str(wan("t2v")))
    before = {k: v.clone() for k, v in model.dit.state_dict().items()}
    shot = {"model": model, "size": "32x32", "frames": 5, "steps": 2, "seed": 1}
    plain = kinema.generate("a fox", **shot).array()
    for merge in (False, True):
        kinema.generate("a fox", **shot, loras=[{"path": str(lora), "merge": merge}]).array()
        assert all(torch.equal(v, before[k]) for k, v in model.dit.state_dict().items())
    assert np.array_equal(kinema.generate("a fox", **shot).array(), plain)


def test_the_plan_counts_keys_and_takes_the_contents_hash(wan, lora):
    card = read_card(str(wan("t2v")))
    shot = Shot(model=card.id, size="32x32", frames=5, seed=1, loras=f"{lora}:0:(0), 4:(1)")
    plan = make_plan(shot, card)
    assert "LoRA a.safetensors: 6 of 6 keys used, rank 3" in plan.notes
    assert plan.loras[0].scale == (0.0, pytest.approx(np.mean([0.25, 0.5, 0.75, 1.0])))
    save(lora, prefix="diffusion_model.")
    assert make_plan(shot, card).digest != plan.digest


def test_what_says_the_scales_beside_a_file_is_of_its_hash(wan, tmp_path):
    card = read_card(str(wan("t2v")))
    path = save(tmp_path / "adapter_model.safetensors", prefix="base_model.model.")
    shot = Shot(model=card.id, size="32x32", frames=5, seed=1, loras=str(path))
    digests = {make_plan(shot, card).digest}
    for alpha in (3, 6):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": alpha}))
        digests.add(make_plan(shot, card).digest)
    assert len(digests) == 3


def test_a_wrong_lora_is_refused_before_weights_are_read(wan, tmp_path):
    folder = shutil.copytree(wan("t2v"), tmp_path / "t2v")
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"not read")
    card = read_card(str(folder))
    for name, given, reason in (
        ("wide", {"width": 64}, "is 48x48 here and 64x64 there"),
        ("deep", {"layers": ("blocks.9.attn1.to_q",)}, "2 of its 2 keys name layers"),
    ):
        path = save(tmp_path / f"{name}.safetensors", **given)
        with pytest.raises(ModelError, match=reason):
            make_plan(Shot(model=card.id, loras=str(path)), card)


def test_two_transformers_have_their_own(wan, tmp_path):
    folder = wan("two-experts")
    card = read_card(str(folder))
    both = save(tmp_path / "both.safetensors")
    with pytest.raises(ConfigError, match="does not say for which of the two transformers"):
        make_plan(Shot(model=card.id, loras=str(both)), card)
    with pytest.raises(ConfigError, match="has one transformer"):
        make_plan(Shot(loras=[{"path": str(both), "expert": "high"}]), read_card("embedded"))
    one = {e: clip(folder, loras=[{"path": str(both), "expert": e}]) for e in ("high", "low", "both")}
    assert len({c.tobytes() for c in one.values()}) == 3
    tensors = load_file(both)
    tensors |= {k.replace("transformer.", "transformer_2."): v.clone() for k, v in tensors.items()}
    save_file(tensors, tmp_path / "pair.safetensors")
    assert np.array_equal(clip(folder, loras=str(tmp_path / "pair.safetensors")), one["both"])


def test_frame_by_frame_every_frame_has_its_own_scale(wan, lora):
    """Drawn from nothing, frames do not know each other: each is as with its own scale in all."""
    redraw = {"strength": 1, "colour": "off", "seed": "fixed"}
    given = {"mode": "frame_by_frame", "frames": 3, "redraw": redraw, "prompt": "a fox"}
    off, on = (clip(wan("t2v"), loras=f"{lora}:{scale}", **given) for scale in (0, 1))
    over = clip(wan("t2v"), loras=f"{lora}:0:(0), 1:(0), 2:(1)", **given)
    assert not np.array_equal(off, on)
    assert np.array_equal(over[:2], off[:2])
    assert np.array_equal(over[2], on[2])


def test_a_scale_over_frames_cannot_be_merged(wan, lora):
    card = read_card(str(wan("t2v")))
    given = [{"path": str(lora), "scale": "0:(0), 4:(1)", "merge": True}]
    with pytest.raises(ConfigError, match="cannot be merged"):
        make_plan(Shot(model=card.id, size="32x32", frames=5, loras=given), card)


@pytest.mark.parametrize("layout", ["diffusers", "original", "kohya"])
def test_converted_files_say_the_same(wan, lora, tmp_path, layout, capsys):
    expected = clip(wan("t2v"), loras=str(lora))
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert run(["lora", "convert", str(lora), str(there), "--to", layout]) == 0
    assert read_lora(there).layout == layout
    assert np.array_equal(clip(wan("t2v"), loras=str(there)), expected)
    assert run(["lora", "convert", str(there), str(back)]) == 0
    assert {k: v.tolist() for k, v in load_file(back).items()} == {
        k: v.tolist() for k, v in load_file(lora).items()
    }
    assert run(["lora", "inspect", str(there), "--model", str(wan("t2v"))]) == 0
    assert "of 9 keys used" in (out := capsys.readouterr().out) or "6 of 6 keys used" in out


def test_a_lora_of_a_video_model_fits_no_image_model(image_model, lora, capsys):
    assert run(["lora", "inspect", str(lora), "--model", str(image_model("sd"))]) == 2
    assert "6 of its 6 keys name layers that it does not have" in capsys.readouterr().err


def test_alphas_are_folded_for_diffusers(tmp_path):
    stem = "lora_unet_blocks_0_ffn_0"
    tensors = {
        f"{stem}.lora_down.weight": torch.ones(4, 48),
        f"{stem}.lora_up.weight": torch.ones(64, 4),
        f"{stem}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "k.safetensors")
    found = relaid(read_lora(tmp_path / "k.safetensors"), "diffusers")
    assert set(found) == {f"transformer.blocks.0.ffn.net.0.proj.lora_{half}.weight" for half in "AB"}
    assert torch.equal(found["transformer.blocks.0.ffn.net.0.proj.lora_B.weight"], torch.full((64, 4), 0.25))


def test_the_command_line(wan, lora, tmp_path, capsys):
    verb = [
        "generate",
        "a fox",
        "--model",
        str(wan("t2v")),
        "--size",
        "32x32",
        "--frames",
        "5",
        "--steps",
        "2",
    ]
    out = tmp_path / "a.mp4"
    assert run([*verb, "--seed", "1", "--lora", f"{lora}:0.5", "--lora", f"{lora}:0.5", "-o", str(out)]) == 0
    capsys.readouterr()
    assert run(["inspect", str(out)]) == 0
    assert "a.safetensors" in capsys.readouterr().out
    for wrong, reason in (("a.pt", "is no LoRA"), ("none.safetensors", "does not exist")):
        assert run([*verb, "--lora", wrong, "-o", str(tmp_path / "b.mp4")]) == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "a fox <lora:ink:0.8>"}, "--lora ink.safetensors:0.8,"),
        ({"prompt": {0: "a fox", 4: "a wolf <lora:old paper>"}}, "--lora old paper.safetensors:1,"),
        ({"prompt": "a fox", "negative": "<lora:ink:-1:low>"}, "--lora ink.safetensors:-1,"),
        ({"prompt": "a fox <3 <loraine>"}, None),
    ],
)
def test_a_lora_in_a_prompt_is_said_to_be_words(small, fields, words):
    card = read_card(str(small))
    notes = [note for note in make_plan(Shot(model=card.id, **fields), card).notes if "only words" in note]
    assert len(notes) == (words is not None)
    assert words is None or words in notes[0]
