"""What LoRA files say: names under every prefix, changes of zeros, PEFT's configuration beside them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinema.cli import run
from kinema.core.errors import ModelError
from kinema.models.lora import Worn, fit, shapes_of, wearing
from kinema.models.lora_file import read_lora
from kinema.models.lora_write import relaid

STEM = "blocks.0.attn1.to_q"


def halves(stem, rank=2, width=4, fill=1.0):
    return {
        f"{stem}.lora_A.weight": torch.full((rank, width), fill),
        f"{stem}.lora_B.weight": torch.full((width, rank), fill),
    }


def stored(path, tensors):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def peft(folder, config, name="adapter_model.safetensors", **given):
    written = config if isinstance(config, str) else json.dumps(config)
    (folder / "adapter_config.json").write_text(written)
    return stored(folder / name, halves(f"base_model.model.{STEM}", **given))


@pytest.mark.parametrize(
    ("prefix", "owner"),
    [
        ("transformer.base_model.model.", None),
        ("unet.base_model.model.", None),
        ("base_model.model.transformer.", None),
        ("base_model.model.model.diffusion_model.", None),
        ("transformer_2.base_model.model.", "low"),
        ("base_model.model.transformer_2.", "low"),
        ("text_encoder.base_model.model.", "text"),
    ],
)
def test_prefixes_stand_before_one_another_in_any_order(tmp_path, prefix, owner):
    file = read_lora(stored(tmp_path / "a.safetensors", halves(prefix + STEM)), texts=("text",))
    assert list(file.changes) == [(owner, STEM)]


def test_simpletuners_flat_names(tmp_path):
    file = read_lora(stored(tmp_path / "a.safetensors", halves("lycoris_blocks_0_attn1_to_q")))
    assert file.layout == "kohya"
    assert fit(file, {f"{STEM}.weight": (4, 4)}).keys == 2


@pytest.mark.parametrize(
    ("rank", "root", "scale"), [(None, False, 4.0), (2, False, 4.0), (2, True, 8 / 2**0.5)]
)
def test_alphas_beside_a_file_are_its_own(tmp_path, rank, root, scale):
    config = {"peft_type": "LORA", "lora_alpha": 8, "use_rslora": root} | (
        {} if rank is None else {"r": rank}
    )
    path = peft(tmp_path, config)
    (change,) = read_lora(path).changes.values()
    assert change.strength == pytest.approx(scale)
    other = peft(tmp_path, config, "other.safetensors", rank=3)  # the configuration is adapter_model's
    assert read_lora(other).config is None
    path.unlink()
    if rank is None:
        assert read_lora(other).config is not None
    tensors = halves(f"base_model.model.{STEM}") | {f"base_model.model.{STEM}.alpha": torch.tensor(1.0)}
    (change,) = read_lora(stored(path, tensors)).changes.values()
    assert change.strength == 0.5  # what the file says by itself comes first
    assert read_lora(stored(path, halves(f"transformer.{STEM}"))).config is None
    converted = relaid(read_lora(peft(tmp_path, config)), "diffusers")
    assert converted[f"transformer.{STEM}.lora_B.weight"][0, 0] == pytest.approx(scale)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "no configuration of an adapter"),
        ({"peft_type": "LOHA"}, "is of a 'LOHA'"),
        ({"use_dora": True}, "is of a DoRA"),
        ({"lora_alpha": "8"}, "lora_alpha '8', which is no number"),
        ('{"lora_alpha": NaN}', "lora_alpha 'nan', which is no number"),
        ({"lora_alpha": True}, "lora_alpha 'True'"),
        ({"alpha_pattern": [1]}, "no table for alpha_pattern"),
        ({"alpha_pattern": {"to_q": None}}, "alpha_pattern 'None', which is no number"),
        ({"rank_pattern": {"(a+)+b": 4}}, "rank_pattern for '\\(a\\+\\)\\+b', which is no layer's name"),
        ({"r": 16}, "says rank 16 for blocks.0.attn1.to_q, and the LoRA beside it has 2"),
    ],
)
def test_what_stands_beside_a_file_is_checked(tmp_path, config, reason):
    with pytest.raises(ModelError, match=reason) as error:
        read_lora(peft(tmp_path, config))
    assert "adapter_config.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_changes_of_zeros_may_be_of_anything(tmp_path):
    """Programs that take the difference of two whole models write one for every layer."""
    zeros = (
        halves("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q", fill=0.0)
        | halves("text_encoders.clip_l.transformer.text_projection", fill=0.0)
        | {
            "diffusion_model.blocks.0.norm9.diff": torch.zeros(4),
            "text_encoders.t5xxl.logit.diff_b": torch.zeros(1),
        }
    )
    path = stored(tmp_path / "a.safetensors", halves(f"diffusion_model.{STEM}") | zeros)
    file = read_lora(path, texts=("text",))
    assert (file.count, file.dropped) == (8, 3)
    assert file.notes == ("LoRA a.safetensors: 6 of 8 keys are of changes that are all zeros.",)
    shapes = {f"{STEM}.weight": (4, 4)}
    network, text = fit(file, shapes), fit(file, {"text_model.q.weight": (4, 4)}, expert="text")
    assert network.changes.keys() == {STEM}
    assert (network.keys, dict(text.changes), text.keys) == (3, {}, 2)
    for key, reason in (
        ("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.lora_B.weight", None),
        ("text_encoders.t5xxl.logit.diff_b", "also changes a text encoder .*logit.diff_b"),
        ("diffusion_model.blocks.0.norm9.diff", "1 of its 8 keys name layers that it does not have"),
    ):
        tensors = load_file(path)
        tensors[key] = tensors[key] + 1
        stored(tmp_path / "b.safetensors", tensors)
        if reason is None:  # one half of zeros is enough
            assert fit(read_lora(tmp_path / "b.safetensors", texts=("text",)), shapes).keys == 3
            continue
        with pytest.raises(ModelError, match=reason):
            fit(read_lora(tmp_path / "b.safetensors", texts=("text",)), shapes)


def test_two_names_for_one_change_are_taken_where_they_say_the_same(tmp_path):
    twice = halves(f"transformer.{STEM}") | halves("diffusion_model.blocks.0.self_attn.q")
    shapes = {f"{STEM}.weight": (4, 4)}
    once = fit(read_lora(stored(tmp_path / "a.safetensors", halves(f"transformer.{STEM}"))), shapes)
    found = fit(read_lora(stored(tmp_path / "b.safetensors", twice)), shapes)
    assert (found.keys, list(found.changes)) == (4, [STEM])
    assert found.changes[STEM].same(once.changes[STEM])
    twice["diffusion_model.blocks.0.self_attn.q.alpha"] = torch.tensor(1.0)
    with pytest.raises(ModelError, match="to_q twice, under two names"):
        fit(read_lora(stored(tmp_path / "c.safetensors", twice)), shapes)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1, 1)])
def test_a_difference_of_one_pixel_is_as_its_layer_is(tmp_path, shape, merge):
    torch.manual_seed(0)
    diff = torch.randn(shape)
    file = read_lora(stored(tmp_path / "a.safetensors", {"q.diff": diff}))
    for layer, x in ((nn.Linear(4, 4), torch.randn(2, 4)), (nn.Conv2d(4, 4, 1), torch.randn(2, 4, 3, 3))):
        model = nn.Sequential()
        model.add_module("q", layer)
        plain = model(x)
        with wearing(model, [Worn(fit(file, shapes_of(model)), (0.5,))], merge=merge):
            found = model(x) - plain
        flat = torch.einsum("oi,bi...->bo...", 0.5 * diff.reshape(4, 4), x)
        torch.testing.assert_close(found, flat, atol=1e-5, rtol=0)


def test_the_verb_says_what_a_refused_file_holds(tmp_path, capsys):
    tensors = halves(f"lora_unet_{STEM}") | {
        "bundle_emb.fox.clip_l": torch.ones(2, 8),
        "x.hada_w1_a": torch.ones(1),
    }
    path = stored(tmp_path / "a.safetensors", tensors | halves("lora_te3_encoder"))
    assert run(["lora", "inspect", str(path)]) == 2
    out, told = capsys.readouterr()
    assert "  2 keys, LoRA: lora_unet_" in out
    assert "  2 keys, LoRA of another text encoder: lora_te3_" in out
    assert "  1 key, LoHa: x.hada_w1_a" in out
    assert "embeddings of words (textual inversion): bundle_emb.fox" in out
    assert "error: " in told


def test_the_verb_that_converts_says_what_is_not_known(tmp_path, capsys):
    path = peft(tmp_path, {"lora_alpha": 8, "r": 2})
    for config in (True, False):
        assert run(["lora", "convert", str(path), str(tmp_path / f"{config}.safetensors")]) == 0
        assert ("has PEFT's names and no alpha" in capsys.readouterr().out) != config
        path.with_name("adapter_config.json").unlink(missing_ok=True)
    scaled, plain = (load_file(tmp_path / f"{config}.safetensors") for config in (True, False))
    up = f"transformer.{STEM}.lora_B.weight"
    assert torch.equal(scaled[up], 4 * plain[up])
