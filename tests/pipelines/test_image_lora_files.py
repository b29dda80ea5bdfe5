"""LoRA files on image models: fitted key by key from configurations, or refused in one line, before weights
are read."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import kinema
from checkpoints import save_kandinsky
from image_lora_files import PARTS, changes_of, save_lora
from kinema.cli import run
from kinema.core.errors import ConfigError, ModelError
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot


@pytest.fixture(scope="module")
def loaded(image_model):
    models = {}

    def of(kind):
        if kind not in models:
            models[kind] = kinema.load(str(image_model(kind)), device="cpu")
        return models[kind]

    return of


def plan_of(card, frames=5, **fields):
    given = {"prompt": "a red fox", "negative": "dog", "guidance": 4, "steps": 3, "seed": 7} | fields
    shot = Shot(model=card.id, frames=frames, size="32x32", mode="frame_by_frame", **given)
    return make_plan(shot, card)


def test_the_plan_counts_keys_without_weights(image_model, loaded, tmp_path, capsys):
    path = save_lora(
        tmp_path / "style.safetensors", loaded("sdxl"), "sdxl", changes_of(loaded("sdxl"), "sdxl"), "original"
    )
    folder = shutil.copytree(image_model("sdxl"), tmp_path / "sdxl")
    for file in folder.rglob("*.safetensors"):
        file.write_bytes(b"not read")
    card = read_card(str(folder))
    plan = plan_of(card, loras=f"{path}:0.5")
    keys = 3 * sum(len(layers) for layers in PARTS["sdxl"].values())
    assert f"LoRA style.safetensors: {keys} of {keys} keys used, rank 2" in plan.notes
    assert plan_of(card, loras=f"{path}:0.6").digest != plan.digest
    assert plan_of(card, loras=f"{path}:0:(0.5), 4:(0.6)").digest != plan.digest
    assert plan_of(card, loras=f"{path}:0:(0), 4:(1)").loras[0].scale == (0, 0.25, 0.5, 0.75, 1)
    assert run(["lora", "inspect", str(path), "--model", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "kohya layout, 14 layers, 42 keys, rank 2" in said
    assert "2 layers of the text encoder\n  2 layers of the second text encoder" in said
    assert f"fits {folder}: {keys} of {keys} keys used" in said
    tensors = load_file(path)
    save_file({key: 2 * value for key, value in tensors.items()}, path)
    assert plan_of(card, loras=f"{path}:0.5").digest != plan.digest


@pytest.mark.parametrize(
    ("layout", "said"), [("diffusers", "diffusers"), ("kohya", "kohya"), ("comfyui", "original")]
)
def test_layouts_are_told_apart_whatever_the_text_encoder_is_called(loaded, tmp_path, capsys, layout, said):
    model = loaded("sd")
    path = save_lora(tmp_path / "a.safetensors", model, "sd", changes_of(model, "sd"), layout)
    assert run(["lora", "inspect", str(path)]) == 0
    assert f"{said} layout" in capsys.readouterr().out


def low_rank(stem, rows=8, columns=8, rank=2):
    return {
        f"{stem}.lora_down.weight": torch.ones(rank, columns),
        f"{stem}.lora_up.weight": torch.ones(rows, rank),
    }


TEXT = "text_model_encoder_layers_0_self_attn_q_proj"
QUERY = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
REFUSED = {
    "another model's text encoder": ("sd", low_rank(f"lora_te2_{TEXT}", 16, 16), "lora_te2_.* LoRAs of this"),
    "T5": ("flux", low_rank("lora_te3_encoder_block_0", 16, 16), "lora_te3_.* which LoRAs of"),
    "no such layer": ("sdxl", low_rank("lora_unet_input_blocks_9_1_proj_in"), "2 of its 2 keys name layers"),
    "no such text layer": ("sdxl", low_rank("lora_te2_text_model_encoder_layers_9_mlp_fc1"), "2 of its 2"),
    "another shape": ("sd", low_rank(f"lora_unet_{QUERY}", 16, 12), "to_q is 16x16 here and 16x12 there"),
    "no pixel": ("sd", low_rank("lora_unet_conv_in", 8, 4), "conv_in is 8x4x3x3 here and 8x4 there"),
    "DoRA": ("sd", low_rank("lora_unet_conv_in") | {"lora_unet_conv_in.dora_scale": torch.ones(8)}, "a DoRA"),
    "LoHa": ("sd", {f"lora_unet_{QUERY}.hada_w1_a": torch.ones(2, 2)}, "is a LoHa"),
    "core": ("sd", {"lora_unet_conv_in.lora_mid.weight": torch.ones(2, 2, 3, 3)}, "LoCon with a core tensor"),
    "XLabs": ("flux", {"double_blocks.0.processor.qkv_lora1.up.weight": torch.ones(2, 2)}, "no part of a"),
    "one half": ("sd", {f"lora_unet_{QUERY}.lora_up.weight": torch.ones(16, 2)}, "one half of a change"),
    "two names": (
        "sd",
        low_rank(f"lora_unet_{QUERY}", 16, 16)
        | low_rank(f"lora_unet_{QUERY.replace('down_blocks_1_attentions_0', 'input_blocks_3_1')}", 16, 16, 3),
        "attn1.to_q twice, under two names",
    ),
    "two prefixes": (
        "sd",
        low_rank(f"lora_te_{TEXT}", 16, 16) | low_rank(f"lora_te1_{TEXT}", 16, 16),
        "says the down of .* twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(image_model, tmp_path, name):
    kind, tensors, message = REFUSED[name]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=message) as error:
        plan_of(read_card(str(image_model(kind))), loras=str(tmp_path / "x.safetensors"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"scale": "0:(0), 4:(1)", "merge": True}, "changes over frames, which cannot be merged"),
        ({"expert": "high"}, "has one transformer; leave it out"),
    ],
)
def test_what_cannot_be_asked_is_refused(image_model, loaded, tmp_path, lora, message):
    path = save_lora(tmp_path / "a.safetensors", loaded("sd"), "sd", changes_of(loaded("sd"), "sd"), "kohya")
    with pytest.raises(ConfigError, match=message):
        plan_of(read_card(str(image_model("sd"))), loras=[{"path": str(path), **lora}])


@pytest.mark.parametrize(
    ("entry", "said"), [([None, None], "'None'"), (["transformers", "T5Model"], "'T5Model'")]
)
def test_a_text_encoder_that_is_not_clips_is_not_changed(image_model, tmp_path, entry, said):
    folder = shutil.copytree(image_model("sd"), tmp_path / "sd")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"text_encoder": entry}))
    save_file(low_rank(f"lora_te_{TEXT}", 16, 16), tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=f"text_encoder of .* is {said}, and LoRAs change CLIP's"):
        plan_of(read_card(str(folder)), loras=str(tmp_path / "x.safetensors"))


def test_kandinsky_takes_none(tmp_path):
    card = read_card(str(save_kandinsky(tmp_path / "k")["both"]))
    save_file(low_rank("unet.conv_in"), tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"loras is not carried by .*leave them out"):
        make_plan(
            Shot(
                model=card.id,
                prompt="a",
                size="64x64",
                frames=2,
                mode="frame_by_frame",
                loras=str(tmp_path / "x.safetensors"),
            ),
            card,
        )
