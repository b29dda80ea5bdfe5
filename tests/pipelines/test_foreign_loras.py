"""LoRAs in other diffusers pipelines: the frames of diffusers' own loader, every key used or the file
refused, and the model's own tensors afterwards; on checkpoints in the true layout with random weights."""

from __future__ import annotations

import copy
import shutil

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import kinema
from foreign_checkpoints import save_motion_adapter
from kinema.cli import run
from kinema.core.errors import ConfigError, ModelError
from kinema.core.runtime import generator
from kinema.models.lora import fit, shapes_of
from kinema.models.lora_file import read_lora
from kinema.models.lora_names import NAMINGS
from kinema.pipelines.cards import read_card
from kinema.pipelines.foreign.families import CLASSES, FAMILIES
from kinema.pipelines.foreign.loras import _denoiser_shapes
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

SIDE = {"ltx": 32}
FRAMES = {"mochi": 7, "animatediff": 4, "vace": 5, "hunyuan": 5}
BLOCK = "transformer_blocks.0"
LAYERS = {
    "ltx": (
        "proj_in",
        "time_embed.linear",
        f"{BLOCK}.attn1.to_q",
        f"{BLOCK}.attn2.to_v",
        f"{BLOCK}.ff.net.2",
    ),
    "cogvideo": (f"{BLOCK}.attn1.to_k", f"{BLOCK}.attn1.to_out.0", f"{BLOCK}.ff.net.0.proj"),
    "hunyuan": (f"{BLOCK}.attn.to_q", f"{BLOCK}.attn.add_k_proj", "single_transformer_blocks.0.proj_mlp"),
    "mochi": (f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn1.add_v_proj", f"{BLOCK}.ff.net.0.proj"),
    "vace": ("blocks.0.attn1.to_q", "vace_blocks.0.attn2.to_k", "vace_blocks.0.proj_out"),
    "animatediff": (
        "conv_in",
        "down_blocks.0.resnets.0.conv1",
        "down_blocks.1.attentions.0.proj_in",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
        "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_v",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(foreign):
    models = {}

    def of(kind):
        if kind not in models:
            models[kind] = kinema.load(str(foreign(kind)), device="cpu")
        return models[kind]

    return of


def halves(shapes, layers, rank=2, seed=0):
    """A low-rank change of each layer that is about as large as its weight."""
    g, found = torch.Generator().manual_seed(seed), {}
    for layer in layers:
        out, *rest = shapes[f"{layer}.weight"]
        down = torch.randn(rank, *rest, generator=g)
        up = torch.randn(out, rank, *[1] * (len(rest) - 1), generator=g)
        found[layer] = (down / down[0].numel() ** 0.5, up / 2)
    return found


def saved(path, changes, prefix):
    tensors = {}
    for layer, (down, up) in changes.items():
        tensors[f"{prefix}{layer}.lora_A.weight"] = down.contiguous()
        tensors[f"{prefix}{layer}.lora_B.weight"] = up.contiguous()
    save_file(tensors, path)
    return path


@pytest.fixture
def lora(loaded, tmp_path):
    """A LoRA of a kind's own names as diffusers writes it."""

    def of(kind, name="a", seed=0):
        prefix = "unet." if kind == "animatediff" else "transformer."
        changes = halves(shapes_of(loaded(kind).denoiser), LAYERS[kind], seed=seed)
        return saved(tmp_path / f"{kind}-{name}.safetensors", changes, prefix)

    return of


def given(kind):
    side = SIDE.get(kind, 16)
    return {"size": f"{side}x{side}", "frames": FRAMES.get(kind, 9), "steps": 2, "seed": 7, "guidance": 4}


def ours(kind, model, **fields):
    return kinema.generate("a red fox", model=model, **(given(kind) | fields)).array()


def theirs(kind, model, loras, **call):
    """The frames of diffusers' own pipeline with the same files loaded by its own loader."""
    pipe = getattr(diffusers, model.card.transformer["_class_name"])(**model.pipe.components)
    pipe.scheduler = model.scheduler("checkpoint")
    pipe.set_progress_bar_config(disable=True)
    fields = given(kind)
    side = SIDE.get(kind, 16)
    more = {"width": side, "height": side, "num_frames": fields["frames"], "num_inference_steps": 2}
    more |= {"guidance_scale": 4.0, "generator": generator(7, "noise"), "output_type": "np"}
    more |= {"frame_rate": 25} if kind == "ltx" else {}
    names = [f"lora{i}" for i in range(len(loras))]
    for name, (path, _) in zip(names, loras, strict=True):
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    pipe.set_adapters(names, [scale for _, scale in loras])
    try:
        video = pipe("a red fox", **(more | call)).frames[0]
    finally:
        pipe.unload_lora_weights()
    return (np.asarray(video) * 255).round().astype(np.uint8)


def near(a, b):
    return np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize("kind", LAYERS)
def test_frames_are_those_of_diffusers_own_loader(loaded, lora, kind):
    model, path = loaded(kind), lora(kind)
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    where = {k: v.data_ptr() for k, v in model.denoiser.named_parameters()}
    plain = ours(kind, model)
    worn = ours(kind, model, loras=f"{path}:0.7")
    merged = ours(kind, model, loras=[{"path": str(path), "scale": 0.7, "merge": True}])
    assert np.abs(worn.astype(int) - plain).max() > 8
    assert near(merged, worn)
    assert {k: v.data_ptr() for k, v in model.denoiser.named_parameters()} == where
    assert all(torch.equal(v, before[k]) for k, v in model.denoiser.state_dict().items())
    assert np.array_equal(ours(kind, model), plain)
    assert near(worn, theirs(kind, model, [(path, 0.7)]))


def test_several_add_up(loaded, lora):
    model = loaded("animatediff")
    a, b = lora("animatediff"), lora("animatediff", "b", seed=1)
    both = ours("animatediff", model, loras=[f"{a}:0.5", f"{b}:-0.4"])
    assert near(both, theirs("animatediff", model, [(a, 0.5), (b, -0.4)]))
    assert not near(both, ours("animatediff", model, loras=f"{a}:0.5"))


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != "animatediff"])
def test_shapes_are_known_without_weights(foreign, loaded, kind):
    assert dict(_denoiser_shapes(read_card(str(foreign(kind))))) == shapes_of(loaded(kind).denoiser)


def test_shapes_of_a_moving_image_model_are_known_without_weights(foreign, image_model, tmp_path):
    adapter = save_motion_adapter(tmp_path / "adapter")
    card = read_card(f"{adapter}@{image_model('sd')}")
    model = kinema.load(card.id, device="cpu")
    assert dict(_denoiser_shapes(card)) == shapes_of(model.denoiser)


# The names of others


def fused(changes, name, parts, turned=False):
    """The layers `parts` as rows of one matrix: halves side by side, so that the product is stacked."""
    downs = torch.cat([changes[part][0] for part in parts])
    ups = torch.block_diag(*(changes[part][1] for part in parts))
    return {name: (downs, torch.cat(ups.chunk(2)[::-1]) if turned else ups)}


DOUBLE, SINGLE = "double_blocks.0", "single_blocks.0"
REFINER = "context_embedder.token_refiner.refiner_blocks.0"
ORIGINALS = {
    "hunyuan": [
        (f"{DOUBLE}.img_attn_qkv", [f"{BLOCK}.attn.to_{x}" for x in "qkv"], False),
        (f"{DOUBLE}.txt_attn_qkv", [f"{BLOCK}.attn.add_{x}_proj" for x in "qkv"], False),
        (f"{DOUBLE}.img_mlp.fc1", [f"{BLOCK}.ff.net.0.proj"], False),
        (f"{DOUBLE}.txt_mod.linear", [f"{BLOCK}.norm1_context.linear"], False),
        (f"{SINGLE}.linear2", ["single_transformer_blocks.0.proj_out"], False),
        (f"{SINGLE}.modulation.linear", ["single_transformer_blocks.0.norm.linear"], False),
        ("txt_in.individual_token_refiner.blocks.0.mlp.fc2", [f"{REFINER}.ff.net.2"], False),
        ("txt_in.individual_token_refiner.blocks.0.self_attn_proj", [f"{REFINER}.attn.to_out.0"], False),
        ("vector_in.in_layer", ["time_text_embed.text_embedder.linear_1"], False),
        ("guidance_in.mlp.2", ["time_text_embed.guidance_embedder.linear_2"], False),
    ],
    "ltx": [
        ("transformer_blocks.0.attn1.to_q", [f"{BLOCK}.attn1.to_q"], False),
        ("patchify_proj", ["proj_in"], False),
        ("adaln_single.emb.timestep_embedder.linear_1", ["time_embed.emb.timestep_embedder.linear_1"], False),
    ],
    "mochi": [
        ("blocks.0.attn.qkv_x", [f"{BLOCK}.attn1.to_{x}" for x in "qkv"], False),
        ("blocks.0.attn.qkv_y", [f"{BLOCK}.attn1.add_{x}_proj" for x in "qkv"], False),
        ("blocks.0.mlp_x.w1", [f"{BLOCK}.ff.net.0.proj"], True),
        ("blocks.1.mod_y", ["transformer_blocks.1.norm1_context.linear_1"], False),
        ("final_layer.mod", ["norm_out.linear"], True),
    ],
    "vace": [
        ("vace_blocks.0.self_attn.q", ["vace_blocks.0.attn1.to_q"], False),
        ("vace_blocks.0.before_proj", ["vace_blocks.0.proj_in"], False),
        ("blocks.0.ffn.0", ["blocks.0.ffn.net.0.proj"], False),
        ("vace_blocks.0.cross_attn.o", ["vace_blocks.0.attn2.to_out.0"], False),
    ],
}  # fmt: skip


def deltas(fitted):
    return {
        name: change.strength * change.up.flatten(1) @ change.down.flatten(1)
        for name, change in fitted.changes.items()
    }


@pytest.mark.parametrize("kind", ORIGINALS)
@pytest.mark.parametrize("layout", ["original", "kohya"])
def test_the_makers_names_say_the_same(loaded, tmp_path, kind, layout):
    shapes, naming = shapes_of(loaded(kind).denoiser), NAMINGS[loaded(kind).family.loras]
    changes = halves(shapes, [part for _, parts, _ in ORIGINALS[kind] for part in parts])
    names = {}
    for name, parts, turned in ORIGINALS[kind]:
        names |= fused(changes, name, parts, turned)
    if layout == "kohya":
        names = {name.replace(".", "_"): pair for name, pair in names.items()}
    prefix = "diffusion_model." if layout == "original" else "lora_unet_"
    file = read_lora(saved(tmp_path / "o.safetensors", names, prefix))
    found = fit(file, shapes, naming=naming)
    assert found.keys == file.count == 2 * len(names)
    expected = {name: up.flatten(1) @ down.flatten(1) for name, (down, up) in changes.items()}
    assert found.changes.keys() == expected.keys()
    for name, delta in deltas(found).items():
        assert torch.allclose(delta, expected[name], atol=1e-5)


def test_hunyuans_names_are_read_as_diffusers_reads_them(loaded, tmp_path):
    model = loaded("hunyuan")
    shapes = shapes_of(model.denoiser)
    changes = halves(shapes, [part for _, parts, _ in ORIGINALS["hunyuan"] for part in parts])
    names = {}
    for name, parts, turned in ORIGINALS["hunyuan"]:
        names |= fused(changes, name, parts, turned)
    path = saved(tmp_path / "hunyuan.safetensors", names, "diffusion_model.")
    assert near(ours("hunyuan", model, loras=str(path)), theirs("hunyuan", model, [(path, 1.0)]))


def test_a_matrix_of_another_models_rows_is_refused(loaded, tmp_path):
    shapes = shapes_of(loaded("hunyuan").denoiser)
    names = {f"{SINGLE}.linear1": (torch.ones(1, 20), torch.ones(3, 1))}
    file = read_lora(saved(tmp_path / "o.safetensors", names, "diffusion_model."))
    with pytest.raises(ModelError, match=r"has 3 rows, and this model's layers have 20 \+ 20 \+ 20 \+ 80"):
        fit(file, shapes, naming=NAMINGS["hunyuan"])


def test_fused_rows_of_one_down_are_counted_once(loaded, tmp_path):
    shapes = shapes_of(loaded("hunyuan").denoiser)
    g = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 20, generator=g), torch.randn(140, 2, generator=g)
    file = read_lora(saved(tmp_path / "o.safetensors", {f"{SINGLE}.linear1": (down, up)}, "diffusion_model."))
    found = fit(file, shapes, naming=NAMINGS["hunyuan"])
    assert (found.keys, file.count) == (2, 2)
    single = "single_transformer_blocks.0"
    order = [*(f"{single}.attn.to_{x}" for x in "qkv"), f"{single}.proj_mlp"]
    assert torch.equal(torch.cat([deltas(found)[name] for name in order]), up @ down)


# Stable Diffusion's LoRAs, which change the text encoder too


def text_lora(tmp_path, model, kohya, prefix="text_model."):
    layer = "encoder.layers.0.self_attn.q_proj"
    down, up = halves(shapes_of(model.pipe.text_encoder), [layer])[layer]
    unet = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    low, high = halves(shapes_of(model.denoiser), [unet])[unet]
    if kohya:
        flat, other = f"{prefix}{layer}".replace(".", "_"), unet.replace(".", "_")
        tensors = {f"lora_te_{flat}.lora_down.weight": down, f"lora_te_{flat}.lora_up.weight": up}
        tensors |= {f"lora_te_{flat}.alpha": torch.tensor(1.0)}
        tensors |= {f"lora_unet_{other}.lora_down.weight": low, f"lora_unet_{other}.lora_up.weight": high}
    else:
        old = unet.removesuffix(".to_k") + ".processor.to_k_lora"
        tensors = {f"text_encoder.{prefix}{layer}.lora_linear_layer.down.weight": down}
        tensors |= {f"text_encoder.{prefix}{layer}.lora_linear_layer.up.weight": 0.5 * up}
        tensors |= {f"unet.{old}.down.weight": low, f"unet.{old}.up.weight": high}
    save_file(tensors, tmp_path / "t.safetensors")
    return tmp_path / "t.safetensors", layer, 0.5 * up @ down, unet, high @ low


@pytest.mark.parametrize("kohya", [True, False])
def test_text_encoders_are_changed_too(loaded, tmp_path, kohya):
    model = loaded("animatediff")
    path, layer, delta, unet, change = text_lora(tmp_path, model, kohya)
    plan = make_plan(
        Shot(model=model.card.id, prompt="a", loras=str(path), **given("animatediff")), model.card
    )
    assert any(f"{path.name}: {5 if kohya else 4} of {5 if kohya else 4} keys used" in n for n in plan.notes)
    worn = ours("animatediff", model, loras=str(path))
    other = copy.copy(model.pipe)
    encoder, denoiser = (copy.deepcopy(part) for part in (model.pipe.text_encoder, model.denoiser))
    encoder.get_submodule(layer).weight.data += delta
    denoiser.get_submodule(unet).weight.data += change
    parts = model.pipe.components | {"text_encoder": encoder, "unet": denoiser}
    pipe = diffusers.AnimateDiffPipeline(**parts)
    pipe.scheduler = model.scheduler("checkpoint")
    call = {"width": 16, "height": 16, "num_frames": 4, "num_inference_steps": 2, "guidance_scale": 4.0}
    video = pipe("a red fox", **call, generator=generator(7, "noise"), output_type="np").frames[0]
    assert near(worn, (video * 255).round().astype(np.uint8))
    assert other.text_encoder is model.pipe.text_encoder
    travelled = ours("animatediff", model, loras=str(path), negative={0: "dog", 3: "snow"})
    assert not near(travelled, ours("animatediff", model, negative={0: "dog", 3: "snow"}))


def test_only_models_whose_loras_do_may_change_texts(foreign, loaded, tmp_path):
    path = text_lora(tmp_path, loaded("animatediff"), kohya=True)[0]
    card = read_card(str(foreign("ltx")))
    with pytest.raises(ModelError, match="also changes a text encoder"):
        make_plan(Shot(model=card.id, prompt="a", loras=str(path), **given("ltx")), card)


# What is said and refused before weights are read


def test_the_plan_counts_keys_without_weights(foreign, lora, tmp_path, capsys):
    path = lora("ltx")
    folder = shutil.copytree(foreign("ltx"), tmp_path / "ltx")
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"not read")
    card = read_card(str(folder))
    shot = Shot(model=card.id, prompt="a", loras=f"{path}:0.5", **given("ltx"))
    plan = make_plan(shot, card)
    assert f"LoRA {path.name}: 10 of 10 keys used, rank 2" in plan.notes
    assert make_plan(shot.with_(loras=f"{path}:0.6"), card).digest != plan.digest
    assert run(["lora", "inspect", str(path), "--model", str(folder)]) == 0
    assert "10 of 10 keys used" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(foreign, lora, tmp_path):
    card = read_card(str(foreign("cogvideo")))

    def planned(**fields):
        return make_plan(Shot(model=card.id, prompt="a", **(given("cogvideo") | fields)), card)

    with pytest.raises(ModelError, match=r"keys name layers that it does not have|is \d+x\d+ here"):
        planned(loras=str(lora("mochi")))
    fits = str(lora("cogvideo"))
    with pytest.raises(ConfigError, match=r"scale that changes over frames.*write one number"):
        planned(loras=f"{fits}:0:(0), 4:(1)")
    with pytest.raises(ConfigError, match=r"has one transformer; leave it out"):
        planned(loras=[{"path": fits, "expert": "high"}])
    svd = read_card(str(foreign("svd")))
    with pytest.raises(ConfigError, match="loras is not carried by"):
        make_plan(Shot(model=svd.id, frames=4, size="16x16", keyframes="a.png", loras=fits), svd)


def test_a_family_takes_loras_where_diffusers_pipeline_does():
    for family in FAMILIES:
        for name in family.calls:
            assert hasattr(getattr(diffusers, name), "load_lora_weights") == bool(CLASSES[name].loras)
