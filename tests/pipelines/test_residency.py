"""Where weights are changes no pixel: whole, one part at a time, block by block; and who is there when."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import kinema
from kinema.cli import run
from kinema.core.errors import ConfigError, ModelError, ResourceError
from kinema.io.record import read_record
from kinema.models.supply import StreamedBlocks
from kinema.pipelines.residency.loading import ResidentModel
from kinema.story.shot import Shot

TIERS = ("whole", "component", "block")
SHOT = {"prompt": "a red fox", "size": "32x32", "frames": 5, "steps": 2, "seed": 1}


@pytest.fixture
def pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    place = f"{tmp_path}/a.png"
    return {"flf2v": [f"{place}@0", f"{place}@-1"], "ti2v": [f"{place}@0"]}


def clip(folder, memory="whole", **fields) -> kinema.Clip:
    """The shot with nothing loaded before; `memory` is no field of it."""
    made = kinema.render(Shot.from_mapping({**SHOT, "model": str(folder), **fields}), memory=memory)
    made.array()
    return made


def same(a: kinema.Clip, b: kinema.Clip) -> bool:
    return torch.equal(a.latents, b.latents) and np.array_equal(a.array(), b.array())


@pytest.mark.parametrize("kind", ["flf2v", "ti2v", "two-experts"])
def test_pixels_are_the_same_to_the_last_bit(wan, pictures, kind):
    given = {"keyframes": pictures[kind]} if kind in pictures else {}
    whole, component, block = (clip(wan(kind), memory, **given) for memory in TIERS)
    assert same(component, whole)
    assert same(block, whole)


def test_sides_that_are_no_batch_share_a_pass_through_the_blocks(wan, small, monkeypatch):
    monkeypatch.setattr("kinema.models.inference.TOGETHER_TOKENS", 0)
    assert same(clip(wan("t2v"), "block"), clip(wan("t2v")))
    whole, block = (clip(small, memory, size="64x64") for memory in ("whole", "block"))  # with pooled texts
    assert same(block, whole)
    model = kinema.load(str(wan("t2v")), memory="block")
    passes = []
    part = model.dit.blocks.part
    model.dit.blocks.part = lambda which: passes.append(which) or part(which)
    kinema.generate(**SHOT, model=model, guidance=4).array()
    assert len(passes) == 2 + SHOT["steps"]  # each side's texts, then one for each step


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_so_they_are_in_half_precision(wan, dtype):
    whole, component, block = (clip(wan("t2v"), memory, dtype=dtype) for memory in TIERS)
    assert same(component, whole)
    assert same(block, whole)


def test_windows_and_prompts_that_mix_read_streamed_blocks(wan):
    fields = {"frames": 21, "windows": {"length": 9}, "prompt": {0: "a red fox", 20: "the snow"}}
    whole, block = (clip(wan("t2v"), memory, **fields) for memory in ("whole", "low"))
    assert same(block, whole)


def test_frame_by_frame_the_transformer_and_the_vae_stay(wan):
    fields = {"mode": "frame_by_frame", "frames": 3, "camera": "zoom in"}
    whole, component, block = (
        kinema.render(Shot.from_mapping({**SHOT, "model": str(wan("t2v")), **fields}), memory=m).array()
        for m in TIERS
    )
    assert np.array_equal(component, whole)
    assert np.array_equal(block, whole)


def save_lora(path, **tensors):
    g = torch.Generator().manual_seed(0)
    for layer in ("blocks.0.attn1.to_q", "blocks.1.attn2.to_k", "blocks.1.ffn.net.2"):
        wide = 64 if layer.endswith("net.2") else 48
        tensors[f"transformer.{layer}.lora_A.weight"] = torch.randn(3, wide, generator=g)
        tensors[f"transformer.{layer}.lora_B.weight"] = torch.randn(48, 3, generator=g)
    save_file(tensors, path)
    return path


def test_loras_are_laid_over_whatever_is_in_memory(wan, tmp_path):
    tables = {"diffusion_model.blocks.0.diff_m": torch.randn(1, 6, 48)}  # which is not laid over but added
    lora = save_lora(tmp_path / "a.safetensors", **tables)
    whole, component, block = (clip(wan("t2v"), m, loras=str(lora)) for m in TIERS)
    assert not same(whole, clip(wan("t2v")))
    assert same(component, whole)
    assert same(block, whole)
    over = f"{save_lora(tmp_path / 'b.safetensors')}:0:(0), 4:(1)"
    assert same(clip(wan("t2v"), "block", loras=over), clip(wan("t2v"), loras=over))


def test_a_merged_lora_needs_plain_matrices_in_memory(wan, tmp_path):
    merged = [{"path": str(save_lora(tmp_path / "a.safetensors")), "merge": True}]
    for fields in ({"memory": "block"}, {"memory": "component"}, {"weights": "int8"}):
        with pytest.raises(ConfigError, match=r"merge.*leave out merge"):
            clip(wan("t2v"), loras=merged, **fields)


def present(module) -> int:
    """Numbers in matrices that are in memory."""
    return sum(p.numel() for p in module.parameters() if p.ndim == 2 and not p.is_meta)


def test_each_part_is_there_when_it_works_and_not_longer(wan):
    model = kinema.load(str(wan("two-experts")), memory="component")
    assert isinstance(model, ResidentModel)
    seen = []

    def watch(event):
        if event.step:
            experts = ("high", "low")
            seen.append((event.phase, *(present(getattr(model.dit, e)) > 0 for e in experts)))

    kinema.generate(**{**SHOT, "steps": 4}, model=model, on_progress=watch).array()
    steps = [who for phase, *who in seen if phase == "denoise"]
    assert steps[0] == [True, False]
    assert steps[-1] == [False, True]
    assert steps == sorted(steps, reverse=True)  # they change over once
    assert {tuple(who) for phase, *who in seen if phase == "decode"} == {(False, False)}


def test_a_streamed_transformer_has_one_block_at_work(wan):
    model = kinema.load(str(wan("t2v")), memory="block")
    blocks = model.dit.blocks
    assert isinstance(blocks, StreamedBlocks)
    counts = []
    for block in blocks:
        block.register_forward_pre_hook(lambda *_: counts.append([present(b) > 0 for b in blocks.children()]))
    kinema.generate(**SHOT, model=model).array()
    assert counts[:2] == [[True, False], [False, True]]
    assert present(blocks) == 0
    iterator = iter(blocks)
    next(iterator)
    iterator.close()  # left in the middle, as an error leaves it
    assert present(blocks) == 0


def test_a_loaded_model_moves_to_another_precision(wan):
    for memory in ("component", "block"):
        model = kinema.load(str(wan("t2v")), memory=memory)
        model.to(dtype=torch.bfloat16)
        made = kinema.generate(**SHOT, model=model)
        made.array()
        assert same(made, clip(wan("t2v"), dtype="bfloat16"))


@pytest.mark.parametrize("weights", ["fp8", "int8"])
def test_weights_in_a_byte_are_part_of_the_shot_and_of_its_record(wan, tmp_path, weights):
    made = [clip(wan("t2v"), memory, weights=weights) for memory in TIERS]
    full = clip(wan("t2v"))  # of which the others are a little off
    assert same(made[1], made[0])
    assert same(made[2], made[0])
    error = (made[0].latents - full.latents).square().mean().sqrt() / full.latents.std()
    assert 0 < error < 0.05
    made[0].save(tmp_path / "a.mp4")
    assert read_record(tmp_path / "a.mp4").shot["weights"] == weights
    assert same(kinema.render(tmp_path / "a.mp4"), made[0])


def test_a_model_in_memory_must_keep_its_weights_as_the_shot_says(wan):
    model = kinema.load(str(wan("t2v")), weights="int8")
    made = kinema.generate(**SHOT, model=model)
    made.array()
    assert same(made, clip(wan("t2v"), weights="int8"))
    with pytest.raises(ConfigError, match="weights int8 and the shot asks for full"):
        kinema.render(Shot.from_mapping({**SHOT, "model": str(wan("t2v"))}), model=model)


class Stop(Exception):
    """Cuts a render off."""


def test_a_render_goes_on_in_another_arrangement(wan, tmp_path):
    shot = Shot.from_mapping({**SHOT, "model": str(wan("t2v")), "steps": 6})

    def cut(event):
        if event.phase == "denoise" and event.step == 3:
            raise Stop

    with pytest.raises(Stop):
        kinema.render(shot, out=tmp_path / "a.mp4", memory="component", on_progress=cut, checkpoint_every=1)
    again = []
    kinema.render(shot, out=tmp_path / "a.mp4", memory="block", on_progress=again.append)
    kinema.render(shot, out=tmp_path / "b.mp4", memory="whole")
    assert min(e.step for e in again if e.phase == "denoise") > 3
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_command_line_takes_and_refuses(wan, tmp_path, capsys):
    out = tmp_path / "a.mp4"
    words = [str(SHOT["prompt"]), "--model", str(wan("t2v")), "--size", "32x32", "--frames", "5"]
    words += ["--steps", "2", "--seed", "1", "-o", str(out)]
    assert run(["generate", *words, "--memory", "block", "--weights", "int8"]) == 0
    assert run(["generate", *words, "--overwrite", "--memory", "blok"]) == 2
    assert "unknown memory 'blok'. Did you mean 'block'?" in capsys.readouterr().err


def test_image_models_are_held_whole(image_model):
    with pytest.raises(ConfigError, match="is held whole"):
        kinema.load(str(image_model("sd")), memory="block")


def test_a_damaged_file_is_told_before_the_first_step(wan, tmp_path):
    import shutil

    folder = shutil.copytree(wan("t2v"), tmp_path / "t2v")
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="damaged"):
        clip(folder, "block")


def test_memory_that_is_not_there_is_refused_before_anything_is_read(wan, monkeypatch):
    monkeypatch.setattr("kinema.pipelines.residency.fit.free_on", lambda device: 100 << 20)
    with pytest.raises(ResourceError, match=r"832x480 .* would fit") as caught:
        clip(wan("t2v"), "auto", size="832x480", frames=81)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["dit", "text"])
@pytest.mark.parametrize("memory", ["component", "block"])
def test_what_overflows_in_half_precision_comes_in_float32(wan, memory, part):
    """The layers of weights that come and go are lifted too: here every one that is half gives infinity."""
    plain, model = (kinema.load(str(wan("t2v")), dtype="float16", memory=memory) for _ in range(2))
    whole = model.dit if part == "dit" else model.text.model
    layer = whole.blocks[1].ffn if part == "dit" else whole.encoder.block[1]
    layer.register_forward_hook(
        lambda _, inputs, output: output if inputs[0].dtype == torch.float32 else output * torch.inf
    )
    made = [kinema.generate(**SHOT, model=m).array().astype(int) for m in (plain, model)]
    assert made[1].std() > 1
    assert np.abs(made[1] - made[0]).max() <= 3
    assert plain.dit.dtype == model.dit.dtype == torch.float16
