"""LoRA files of every layout fit strictly, act as PEFT makes them act, and leave no trace."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from checkpoints import TRANSFORMER
from kinema.core.errors import ModelError
from kinema.models.dit import Conditioning, VideoDiT, VideoDiTConfig
from kinema.models.lora import Worn, fit, shapes_of, wearing
from kinema.models.lora_file import read_lora
from kinema.models.lora_write import relaid as converted
from kinema.models.wan_names import from_original, to_original

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]


def adapted(**settings: object):
    """A diffusers transformer with a PEFT adapter of rank 4 and alpha 6, all of it random."""
    import diffusers
    from peft import LoraConfig

    torch.manual_seed(0)
    model = diffusers.WanTransformer3DModel(**TRANSFORMER).eval()
    given = {"r": 4, "lora_alpha": 6, "target_modules": TARGETS, "init_lora_weights": False, **settings}
    model.add_adapter(LoraConfig(**given))
    return model


@pytest.fixture(scope="module")
def theirs():
    return adapted()


@pytest.fixture(scope="module")
def ours(theirs) -> VideoDiT:
    model = VideoDiT(VideoDiTConfig.from_mapping(TRANSFORMER)).eval()
    plain = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in theirs.state_dict().items()
        if "lora" not in name
    }
    model.load_state_dict(plain)
    return model


@pytest.fixture(scope="module")
def saved(theirs, tmp_path_factory) -> Path:
    return save_adapter(theirs, tmp_path_factory.mktemp("lora"))


def save_adapter(theirs, folder: Path) -> Path:
    """The adapter as diffusers saves it, its alpha in the header."""
    from diffusers import WanPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from peft import get_peft_model_state_dict

    WanPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(theirs),
        **_collate_lora_metadata({"transformer": theirs}),
    )
    return folder / "pytorch_lora_weights.safetensors"


def inputs(frames: int = 2):
    g = torch.Generator().manual_seed(3)
    x_BCTYX = torch.randn(1, 4, frames, 4, 4, generator=g)
    return x_BCTYX, torch.full((1, frames), 500.0), torch.randn(1, 5, 16, generator=g)


@torch.no_grad()
def run(model: VideoDiT, frames: int = 2) -> torch.Tensor:
    x_BCTYX, time_BT, states_BLD = inputs(frames)
    return model(x_BCTYX, time_BT, model.prepare(Conditioning(states_BKLD=states_BLD[:, None])))


@torch.no_grad()
def run_theirs(model) -> torch.Tensor:
    x_BCTYX, time_BT, states_BLD = inputs()
    return model(x_BCTYX, time_BT[:, 0], states_BLD, return_dict=False)[0]


# What the names look like, and what stands before them.
NAMES = {
    "original": ("original", "diffusion_model."),
    "DiffSynth": ("original", "pipe.dit."),
    "kohya": ("kohya", "lora_unet_"),
    "VideoX-Fun": ("kohya", "lora_unet__"),
}


def relaid(saved: Path, folder: Path, layout: str) -> Path:
    """The same adapter in the names of other programs, its alpha as tensors."""
    tensors = {}
    for key, tensor in load_file(saved).items():
        stem, half = key.removeprefix("transformer.").rsplit(".lora_", 1)
        half = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[half]
        flat = NAMES[layout][1].startswith("lora_")
        name = NAMES[layout][1] + (to_original(stem).replace(".", "_") if flat else to_original(stem))
        tensors[f"{name}.{half}"] = tensor.contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(6.0)
    path = folder / f"{layout}.safetensors"
    save_file(tensors, path)
    return path


def test_names_go_there_and_back(ours):
    stems = {name.removesuffix(".weight").removesuffix(".bias") for name, _ in ours.named_parameters()}
    for stem in stems:
        original = to_original(stem)
        assert original is not None, stem
        assert from_original(original) == stem
    assert from_original("blocks.11.cross_attn.k_img") == "blocks.11.attn2.add_k_proj"
    assert from_original("blocks.1.norm3") == "blocks.1.norm2"
    assert from_original("blocks.1.nothing") is None


@pytest.mark.parametrize("layout", ["diffusers", *NAMES])
@pytest.mark.parametrize("merge", [False, True], ids=["beside", "merged"])
def test_every_layout_acts_as_in_peft(theirs, ours, saved, tmp_path, layout, merge):
    file = read_lora(saved if layout == "diffusers" else relaid(saved, tmp_path, layout))
    assert file.layout == (NAMES[layout][0] if layout in NAMES else layout)
    assert file.ranks == (4,)
    lora = fit(file, shapes_of(ours))
    assert lora.keys == file.count == (len(TARGETS) + 4) * 2 * 2 * (1.5 if layout != "diffusers" else 1)
    theirs.enable_adapters()
    expected = run_theirs(theirs)
    theirs.disable_adapters()
    plain = run(ours)
    assert (run_theirs(theirs) - plain).abs().max() < 1e-5
    assert (expected - plain).abs().max() > 0.05
    with wearing(ours, [Worn(lora, (1.0,))], merge=merge):
        assert (run(ours) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("merge", [False, True], ids=["beside", "merged"])
@pytest.mark.parametrize("settings", [
    {"use_rslora": True}, {"lora_bias": True}, {"use_rslora": True, "lora_bias": True},
    {"use_rslora": True, "alpha_pattern": {"to_q": 12}},
], ids=str)  # fmt: skip
def test_scales_are_what_peft_makes_of_its_settings(ours, tmp_path, settings, merge):
    """By the root of the rank with `use_rslora`; the bias of `lora_B` is scaled as its product is."""
    theirs = adapted(**settings)
    file = read_lora(save_adapter(theirs, tmp_path))
    expected = run_theirs(theirs)
    assert (expected - run(ours)).abs().max() > 0.05
    files = [file]
    for layout in ("original", "diffusers"):
        save_file(converted(file, layout), tmp_path / f"{layout}.safetensors")
        files.append(read_lora(tmp_path / f"{layout}.safetensors"))
    for one in files:
        with wearing(ours, [Worn(fit(one, shapes_of(ours)), (1.0,))], merge=merge):
            assert (run(ours) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("settings", [
    {}, {"use_rslora": True},
    {"rank_pattern": {"blocks.0.attn1.to_q": 2}, "alpha_pattern": {"blocks.0.attn1.to_q": 10, "to_k": 1}},
    {"alpha_pattern": {"^blocks.1.attn1.to_q": 12, "^to_k": 40}},
], ids=str)  # fmt: skip
def test_an_adapter_as_peft_itself_saves_it(ours, tmp_path, settings):
    """Its scales stand in a file beside it, without which they are not known."""
    import diffusers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    plain = diffusers.WanTransformer3DModel(**TRANSFORMER).eval()
    given = {"r": 4, "lora_alpha": 6, "target_modules": TARGETS, "init_lora_weights": False, **settings}
    theirs = get_peft_model(plain, LoraConfig(**given)).eval()
    theirs.save_pretrained(tmp_path)
    expected = run_theirs(theirs)
    path = tmp_path / "adapter_model.safetensors"
    file = read_lora(path)
    assert (file.config, file.notes) == (tmp_path / "adapter_config.json", ())
    with wearing(ours, [Worn(fit(file, shapes_of(ours)), (1.0,))]):
        assert (run(ours) - expected).abs().max() < 1e-5
    (tmp_path / "adapter_config.json").unlink()
    alone = read_lora(path)
    assert any("has PEFT's names and no alpha" in note for note in alone.notes)
    with wearing(ours, [Worn(fit(alone, shapes_of(ours)), (1.0,))]):
        assert (run(ours) - expected).abs().max() > 0.01


def test_a_plain_difference_of_a_bias_is_added_as_it_is(ours, tmp_path):
    tensors = low_rank((48, 48), "transformer.blocks.0.attn1.to_q")
    tensors["transformer.blocks.0.attn1.to_q.alpha"] = torch.tensor(1.0)
    for name, scaled in (("diff_b", 1.0), ("lora_B.bias", 0.5)):
        given = {**tensors, f"transformer.blocks.0.attn1.to_q.{name}": torch.ones(48)}
        save_file(given, tmp_path / "b.safetensors")
        change = fit(read_lora(tmp_path / "b.safetensors"), shapes_of(ours)).changes["blocks.0.attn1.to_q"]
        assert torch.equal(change.diff_b, torch.full((48,), scaled))


@pytest.mark.parametrize("merge", [False, True], ids=["beside", "merged"])
def test_nothing_is_left_behind(ours, saved, merge):
    before = {name: (p.data_ptr(), p.clone()) for name, p in ours.named_parameters()}
    plain = run(ours)
    lora = fit(read_lora(saved), shapes_of(ours))
    with wearing(ours, [Worn(lora, (2.0,)), Worn(lora, (0.5,))], merge=merge):
        assert not torch.equal(run(ours), plain)
    with suppress(RuntimeError), wearing(ours, [Worn(lora, (2.0,))], merge=merge):
        raise RuntimeError
    for name, parameter in ours.named_parameters():
        assert parameter.data_ptr() == before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert torch.equal(run(ours), plain)


def test_several_add_up_and_scales_multiply(ours, saved):
    lora = fit(read_lora(saved), shapes_of(ours))
    with wearing(ours, [Worn(lora, (0.25,)), Worn(lora, (0.5,))]):
        both = run(ours)
    with wearing(ours, [Worn(lora, (0.75,))]):
        assert (run(ours) - both).abs().max() < 1e-5


def test_a_scale_of_its_own_for_every_frame(ours, saved):
    """Where no frame sees another, each one comes out as with its own scale in all."""
    lora = fit(read_lora(saved), shapes_of(ours))
    chosen = {
        k: c
        for k, c in lora.changes.items()
        if "attn1" not in k and "attn2.to_k" not in k and "attn2.to_v" not in k
    }
    lora = type(lora)(chosen, lora.keys)
    alone = VideoDiT(VideoDiTConfig.from_mapping(TRANSFORMER)).eval()
    alone.load_state_dict(ours.state_dict())
    for block in alone.blocks:
        block.attn1.to_out[0].weight.data.zero_()
    ends = []
    for scale in (0.0, 1.0):
        with wearing(alone, [Worn(lora, (scale,))]):
            ends.append(run(alone))
    with wearing(alone, [Worn(lora, (0.0, 1.0))]):
        found = run(alone)
    torch.testing.assert_close(found[:, :, 0], ends[0][:, :, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, :, 1], ends[1][:, :, 1], atol=1e-6, rtol=0)
    assert (ends[0] - ends[1]).abs().max() > 0.05


@pytest.mark.parametrize("merge", [False, True], ids=["beside", "merged"])
def test_plain_differences_of_weights_biases_norms_and_tables(ours, tmp_path, merge):
    g = torch.Generator().manual_seed(1)
    wanted = {
        "blocks.0.attn1.to_q.weight": "diffusion_model.blocks.0.self_attn.q.diff",
        "blocks.1.ffn.net.2.bias": "diffusion_model.blocks.1.ffn.2.diff_b",
        "blocks.1.norm2.weight": "diffusion_model.blocks.1.norm3.diff",
        "blocks.0.scale_shift_table": "diffusion_model.blocks.0.diff_m",
        "scale_shift_table": "diffusion_model.head.diff_m",
        "patch_embedding.weight": "diffusion_model.patch_embedding.diff",
        "patch_embedding.bias": "diffusion_model.patch_embedding.diff_b",
    }
    shapes = shapes_of(ours)
    diffs = {name: 0.1 * torch.randn(shapes[name], generator=g) for name in wanted}
    save_file({wanted[name]: d for name, d in diffs.items()}, tmp_path / "d.safetensors")
    changed = VideoDiT(VideoDiTConfig.from_mapping(TRANSFORMER)).eval()
    changed.load_state_dict({k: v + 0.5 * diffs.get(k, 0) for k, v in ours.state_dict().items()})
    lora = fit(read_lora(tmp_path / "d.safetensors"), shapes)
    assert lora.keys == len(wanted)
    with wearing(ours, [Worn(lora, (0.5,))], merge=merge):
        assert (run(ours) - run(changed)).abs().max() < 1e-5
    assert (run(ours) - run(changed)).abs().max() > 0.01


def low_rank(shape: tuple[int, int], stem: str, r: int = 2) -> dict[str, torch.Tensor]:
    return {
        f"{stem}.lora_A.weight": torch.ones(r, shape[1]),
        f"{stem}.lora_B.weight": torch.ones(shape[0], r),
    }


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"diffusion_model.blocks.0.self_attn.q.weight": torch.ones(2, 2)}, "1 keys of 1 that are no part"),
        ({"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 48)}, "without its lora_B"),
        ({"blocks.0.attn1.to_q.alpha": torch.tensor(2.0)}, "an alpha for blocks.0.attn1.to_q and no change"),
        (low_rank((48, 48), "text_encoder.layers.0.q"), "changes a text encoder"),
        ({"blocks.0.attn1.to_q.hada_w1_a": torch.ones(2, 2)}, "is a LoHa"),
        ({"blocks.0.attn1.to_q.lora_magnitude_vector": torch.ones(2)}, "is a DoRA"),
        (
            low_rank((48, 48), "lora_unet_x") | {"bundle_emb.fox.clip_l": torch.ones(2, 8)},
            r"embeddings of words \(textual inversion\) \(bundle_emb\.fox",
        ),
        (low_rank((48, 48), "blocks.0.attn1.to_q", r=0), r"to_q that is empty .*\[0, 48\]"),
        ({"a.lora_A.weight": torch.ones(2), "a.lora_B.weight": torch.ones(2)}, r"no matrix \(of shape \[2\]"),
        (low_rank((48, 48), "blocks.0.q") | {"blocks.0.q.alpha": torch.ones(2)}, "an alpha of 2 numbers"),
        (
            {"a.lora_A.weight": torch.ones(2, 8), "a.lora_B.weight": torch.ones(8, 3)},
            "do not fit each other: ranks 2 and 3",
        ),
    ],
)
def test_what_is_no_lora_is_refused(tmp_path, tensors, reason):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=reason):
        read_lora(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (
            low_rank((48, 48), "transformer.blocks.7.attn1.to_q"),
            "2 of its 2 keys name layers that it does not",
        ),
        (low_rank((48, 48), "diffusion_model.blocks.0.cross_attn.k_img"), "k_img"),
        (low_rank((48, 32), "transformer.blocks.0.attn1.to_q"), "to_q is 48x48 here and 48x32 there"),
        ({"blocks.0.attn1.to_q.diff_b": torch.ones(47)}, "to_q.bias is 48 here and 47 there"),
        ({"blocks.0.attn1.to_q.diff": torch.ones(24, 96)}, "to_q is 48x48 here and 24x96 there"),
        ({"blocks.0.ffn.net.2.diff": torch.ones(64, 48)}, "net.2 is 48x64 here and 64x48 there"),
        ({"patch_embedding.diff": torch.ones(48, 4, 2, 2)}, "48x4x1x2x2 here and 48x4x2x2 there"),
    ],
)
def test_what_does_not_fit_is_refused(ours, tmp_path, tensors, reason):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=reason):
        fit(read_lora(tmp_path / "x.safetensors"), shapes_of(ours))


def test_pickles_and_damage_are_refused(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.pt").read_bytes())
    for name, reason in (
        ("a.pt", "pickles"),
        ("b.safetensors", "pickles"),
        ("c.safetensors", "does not exist"),
    ):
        with pytest.raises(ModelError, match=reason):
            read_lora(tmp_path / name)


def test_a_convolution_of_low_rank(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("patch_embedding", nn.Conv3d(4, 6, (1, 2, 2), stride=(1, 2, 2)))
    down, up = torch.randn(2, 4, 1, 2, 2), torch.randn(6, 2, 1, 1, 1)
    save_file(
        {"patch_embedding.lora_A.weight": down, "patch_embedding.lora_B.weight": up},
        tmp_path / "c.safetensors",
    )
    lora = fit(read_lora(tmp_path / "c.safetensors"), shapes_of(model))
    x = torch.randn(1, 4, 3, 4, 4)
    with wearing(model, [Worn(lora, (0.5,))], merge=True):
        merged = model(x)
    with wearing(model, [Worn(lora, (0.5,))]):
        torch.testing.assert_close(model(x), merged, atol=1e-5, rtol=0)
    assert (model(x) - merged).abs().max() > 0.1
