"""LoRAs of image models: the pictures of diffusers' own pipeline with the same changes in its weights, at
every frame with its own scale, the model bitwise itself afterwards; on checkpoints in the true layout."""

from __future__ import annotations

import copy

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import kinema
from image_lora_files import PARTS, changes_of, save_lora
from kinema.core.runtime import generator
from kinema.models import lora
from kinema.models.lora import _Beside
from kinema.pipelines.images.engine import Drawing, Seeds
from kinema.pipelines.images.engine_diffusers import DiffusersImages
from kinema.pipelines.modes import draw_plan
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

SIDE, SEEDS = 32, Seeds(7, 7, 0.0)


@pytest.fixture(scope="module")
def loaded(image_model):
    models = {}

    def of(kind):
        if kind not in models:
            models[kind] = kinema.load(str(image_model(kind)), device="cpu")
        return models[kind]

    return of


def by_hand(model, *worn):
    """The pipeline's parts, copied, with W + s (alpha / r) up down in their weights."""
    parts = {name: copy.deepcopy(part) for name, part in model.pipe.components.items()}
    for changes, scale in worn:
        for (part, layer), (down, up) in changes.items():
            weight = parts[part].get_submodule(layer).weight
            low = up.flatten(1) @ down.flatten(1)
            weight.data += scale * 0.5 * low.view(weight.shape)
    return parts


def theirs(model, kind, parts, scheduler=None, guidance=4.0, steps=3):
    pipe = getattr(diffusers, model.kind.name)(**parts)
    pipe.scheduler = model.scheduler(scheduler or "checkpoint")
    pipe.set_progress_bar_config(disable=True)
    latents = SIDE // model.card.stride.space
    noise = SEEDS.noise((model.card.latent_channels, latents, latents))
    return pipe(
        prompt="a red fox",
        negative_prompt="dog",
        **{"guidance_scale": guidance} | ({"true_cfg_scale": 2.5} if kind == "flux" else {}),
        num_inference_steps=steps,
        height=SIDE,
        width=SIDE,
        latents=pipe._pack_latents(noise, *noise.shape) if kind == "flux" else noise,
        generator=generator(7, "drawing"),
        output_type="pt",
    ).images


def plan_of(card, frames=5, **fields):
    given = {"prompt": "a red fox", "negative": "dog", "guidance": 4, "steps": 3, "seed": 7} | fields
    if card.transformer["_class_name"] == "FluxPipeline":
        given = {"options": {"true_cfg_scale": 2.5}} | given
    shot = Shot(model=card.id, frames=frames, size="32x32", mode="frame_by_frame", **given)
    return make_plan(shot, card)


def engine_of(model, **fields):
    return DiffusersImages(plan_of(model.card, **fields), model)


def drawn(model, frame=0, steps=3, solver="checkpoint", **fields):
    drawing = Drawing(frame=frame, seeds=SEEDS, steps=steps, solver=solver)
    return engine_of(model, **fields).draw(drawing)


def weights(model):
    parts = [part for part in model.pipe.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [tensor for part in parts for tensor in part.state_dict().values()]
    return [(tensor.data_ptr(), tensor.clone()) for tensor in tensors]


def unchanged(model, before):
    after = weights(model)
    return all(a == b and torch.equal(v, w) for (a, v), (b, w) in zip(before, after, strict=True))


def hooked(model):
    parts = [part for part in model.pipe.components.values() if isinstance(part, torch.nn.Module)]
    hooks = [hook for part in parts for module in part.modules() for hook in module._forward_hooks.values()]
    return any(isinstance(hook, _Beside) for hook in hooks)  # transformers has hooks of its own


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "original", "comfyui"])
@pytest.mark.parametrize("kind", PARTS)
def test_pictures_are_those_of_diffusers_with_the_changes_in_its_weights(loaded, tmp_path, kind, layout):
    model = loaded(kind)
    changes = changes_of(model, kind)
    path = save_lora(tmp_path / "a.safetensors", model, kind, changes, layout)
    expected = theirs(model, kind, by_hand(model, (changes, 0.7)))
    before, plain = weights(model), drawn(model)
    found = drawn(model, loras=f"{path}:0.7")
    assert (plain - expected).abs().max() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    merged = drawn(model, loras=[{"path": str(path), "scale": 0.7, "merge": True}])
    torch.testing.assert_close(merged, expected, atol=2e-4, rtol=0)
    assert unchanged(model, before)
    assert not hooked(model)
    assert torch.equal(drawn(model), plain)


@pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind, parts in PARTS.items() for part in parts])
def test_every_part_of_a_model_is_changed_by_itself(loaded, tmp_path, kind, part):
    model = loaded(kind)
    changes = changes_of(model, kind, only=part)
    path = save_lora(tmp_path / "a.safetensors", model, kind, changes, "kohya")
    found = drawn(model, loras=str(path))
    torch.testing.assert_close(found, theirs(model, kind, by_hand(model, (changes, 1))), atol=2e-4, rtol=0)
    assert (found - drawn(model)).abs().max() > 1e-3


def test_several_add_up(loaded, tmp_path):
    model, files = loaded("sdxl"), []
    changes = [changes_of(model, "sdxl", seed=seed, rank=seed + 1) for seed in range(2)]
    for i, (change, layout) in enumerate(zip(changes, ("original", "diffusers"), strict=True)):
        files.append(save_lora(tmp_path / f"{i}.safetensors", model, "sdxl", change, layout))
    expected = theirs(model, "sdxl", by_hand(model, (changes[0], 0.5), (changes[1], -0.4)))
    found = drawn(model, loras=[f"{files[0]}:0.5", f"{files[1]}:-0.4"])
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    mixed = [{"path": str(files[0]), "scale": 0.5, "merge": True}, f"{files[1]}:-0.4"]
    torch.testing.assert_close(drawn(model, loras=mixed), expected, atol=2e-4, rtol=0)


def test_diffusers_own_loader_reads_the_same_of_a_file_in_the_makers_names(loaded, tmp_path):
    """Down to the numbers of SDXL's blocks, which its loader turns back by itself."""
    model = loaded("sdxl")
    changes = changes_of(model, "sdxl", only="unet")
    path = save_lora(tmp_path / "a.safetensors", model, "sdxl", changes, "original")
    assert {"lora_unet_input_blocks_3_1_proj_in.alpha", "lora_unet_input_blocks_2_0_op.alpha"} <= set(
        load_file(path)
    )
    parts = {name: copy.deepcopy(part) for name, part in model.pipe.components.items()}
    pipe = diffusers.StableDiffusionXLPipeline(**parts)
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="a")
    pipe.set_adapters(["a"], [0.7])
    torch.testing.assert_close(
        drawn(model, loras=f"{path}:0.7"), theirs(model, "sdxl", pipe.components), atol=2e-4, rtol=0
    )


def test_a_lora_for_few_steps_needs_nothing_else(loaded, tmp_path):
    model = loaded("sdxl")
    changes = changes_of(model, "sdxl", only="unet")
    path = save_lora(tmp_path / "lcm.safetensors", model, "sdxl", changes, "kohya")
    few = {"steps": 4, "guidance": 1, "solver": "lcm"}
    expected = theirs(model, "sdxl", by_hand(model, (changes, 1)), "lcm", guidance=1.0, steps=4)
    found = drawn(model, loras=str(path), **few)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_a_matrix_fits_a_convolution_over_one_pixel(loaded, tmp_path):
    model, layer = loaded("sd"), "down_blocks.1.attentions.0.proj_in"
    changes = {key: value for key, value in changes_of(model, "sd").items() if key[1] == layer}
    flat = {key: (down.flatten(1), up.flatten(1)) for key, (down, up) in changes.items()}
    a = save_lora(tmp_path / "a.safetensors", model, "sd", changes, "kohya")
    b = save_lora(tmp_path / "b.safetensors", model, "sd", flat, "kohya")
    assert torch.equal(drawn(model, loras=str(a)), drawn(model, loras=str(b)))


def test_norms_are_changed_by_plain_differences(loaded, tmp_path):
    model, layer = loaded("sd"), "mid_block.resnets.0.norm1"
    g = torch.Generator().manual_seed(0)
    diff, bias = torch.randn(16, generator=g), torch.randn(16, generator=g)
    flat = f"lora_unet_{layer.replace('.', '_')}"
    save_file({f"{flat}.w_norm": diff, f"{flat}.b_norm": bias}, tmp_path / "n.safetensors")
    parts = by_hand(model)
    norm = parts["unet"].get_submodule(layer)
    norm.weight.data += 0.5 * diff
    norm.bias.data += 0.5 * bias
    found = drawn(model, loras=f"{tmp_path / 'n.safetensors'}:0.5")
    torch.testing.assert_close(found, theirs(model, "sd", parts), atol=2e-4, rtol=0)
    assert (found - drawn(model)).abs().max() > 1e-2


# Scales over frames


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("only", [None, "text_encoder"])
def test_every_frame_is_as_with_its_own_scale_in_all(loaded, tmp_path, kind, only):
    """In any order, so that no text of another frame's scale is left."""
    model = loaded(kind)
    path = save_lora(tmp_path / "a.safetensors", model, kind, changes_of(model, kind, only=only), "kohya")
    engine = engine_of(model, loras=f"{path}:0:(0), 4:(1)")
    pictures = {}
    for frame, scale in ((0, 0), (4, 1), (2, 0.5), (0, 0), (4, 1), (1, 0.25)):
        found = engine.draw(Drawing(frame=frame, seeds=SEEDS, steps=3, solver="checkpoint"))
        assert torch.equal(found, drawn(model, frame, loras=f"{path}:{scale}"))
        pictures[frame] = found
    assert torch.equal(pictures[0], drawn(model))  # 0 is as without, to the byte
    for one, other in ((0, 1), (1, 2), (2, 4)):
        assert (pictures[one] - pictures[other]).abs().max() > 1e-3


def test_at_0_a_file_has_no_say_whatever_is_in_it(loaded, tmp_path):
    """Its product with a picture may be infinite."""
    model = loaded("sd")
    huge = {key: (1e30 * down, 1e30 * up) for key, (down, up) in changes_of(model, "sd").items()}
    path = save_lora(tmp_path / "a.safetensors", model, "sd", huge, "kohya")
    for merge in (False, True):
        found = drawn(model, loras=[{"path": str(path), "scale": 0, "merge": merge}])
        assert torch.equal(found, drawn(model))


@pytest.mark.parametrize("merge", [False, True])
def test_half_precision_is_near(image_model, loaded, tmp_path, merge):
    model = loaded("sdxl")
    half = kinema.load(str(image_model("sdxl")), device="cpu", dtype="bfloat16")
    path = save_lora(tmp_path / "a.safetensors", model, "sdxl", changes_of(model, "sdxl"), "kohya")
    before, loras = weights(half), [{"path": str(path), "scale": 0.3, "merge": merge}]
    off, on = (drawn(model, **fields) for fields in ({}, {"loras": loras}))
    found = drawn(half, loras=loras)
    assert (found - on).abs().mean() < 0.5 * (off - on).abs().mean()
    assert unchanged(half, before)


def heard(model, monkeypatch):
    """Prompts that are encoded from now on; the call itself is given embeddings and no prompt."""
    own, prompts = model.pipe.encode_prompt, []

    def listen(prompt, **options):
        prompts.extend([] if prompt is None else [prompt])
        return own(prompt=prompt, **options)

    monkeypatch.setattr(model.pipe, "encode_prompt", listen)
    return prompts


def test_prompts_are_encoded_anew_only_where_the_encoders_change(loaded, tmp_path, monkeypatch):
    model, ramp = loaded("sdxl"), "0:(0), 4:(1)"
    files = {
        part: save_lora(
            tmp_path / f"{part}.safetensors", model, "sdxl", changes_of(model, "sdxl", only=part), "kohya"
        )
        for part in ("unet", "text_encoder_2")
    }
    prompts = heard(model, monkeypatch)

    def count(**fields):
        prompts.clear()
        engine = engine_of(model, **fields)
        for frame in (0, 1, 1, 2, 0):
            engine.draw(Drawing(frame=frame, seeds=SEEDS, steps=1, solver="checkpoint"))
        return len(prompts)

    assert count(loras=f"{files['unet']}:{ramp}") == 2  # the prompt and the negative one
    assert count(loras=f"{files['text_encoder_2']}:0.5") == 2
    assert count(loras=f"{files['text_encoder_2']}:{ramp}") == 2 * 3
    ramped = {"loras": f"{files['text_encoder_2']}:{ramp}"}
    assert count(**ramped, guidance=1) == 3  # without guidance nobody reads the other side
    assert count(**ramped, guidance={0: 4, 1: 1, "ease": "hold"}) == 3 + 1
    assert count(guidance=1) == 1


@pytest.mark.parametrize(("kind", "t5"), [("flux", "text_encoder_2"), ("sd3", "text_encoder_3")])
def test_t5_reads_each_prompt_once_whatever_clip_wears(loaded, tmp_path, kind, t5):
    model = loaded(kind)
    path = save_lora(
        tmp_path / "a.safetensors", model, kind, changes_of(model, kind, only="text_encoder"), "kohya"
    )
    alone = [drawn(model, frame, loras=f"{path}:{scale}") for frame, scale in enumerate((0.25, 0.5, 0.75))]
    calls = []
    hook = getattr(model.pipe, t5).register_forward_hook(lambda *_: calls.append(1))
    try:
        engine = engine_of(model, loras=f"{path}:0:(0.25), 4:(1.25)")
        pictures = [
            engine.draw(Drawing(frame=frame, seeds=SEEDS, steps=3, solver="checkpoint")) for frame in range(3)
        ]
    finally:
        hook.remove()
    assert len(calls) == 2  # the prompt, and the negative one
    assert all(torch.equal(a, b) for a, b in zip(pictures, alone, strict=True))
    assert "_get_t5_prompt_embeds" not in vars(model.pipe)


def test_what_is_merged_is_folded_once(image_model, loaded, tmp_path, monkeypatch):
    model = kinema.load(str(image_model("sd")), device="cpu")
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        save_lora(path, model, "sd", changes_of(model, "sd", seed), "kohya")
    given = [
        {"path": str(paths[0]), "scale": 0.5, "merge": True},
        {"path": str(paths[1]), "scale": "0:(0), 4:(1)"},
    ]
    given.append({"path": str(paths[2]), "scale": 0.25, "merge": True})
    before, folded, own = weights(model), [], lora._merge
    monkeypatch.setattr(lora, "_merge", lambda *args: (folded.append(args[1]), own(*args)))
    engine = engine_of(model, loras=given)
    count = 2 * sum(len(layers) for layers in PARTS["sd"].values())

    def draw(engine, frame):
        return engine.draw(Drawing(frame=frame, seeds=SEEDS, steps=2, solver="checkpoint"))

    pictures = [draw(engine, frame) for frame in (1, 2, 1)]
    assert len(folded) == count
    assert unchanged(model, before)
    assert torch.equal(pictures[0], pictures[2])
    assert torch.equal(pictures[1], draw(engine_of(model, loras=given), 2))
    by_hand_beside = [{**one, "merge": False} for one in given]
    assert (draw(engine_of(model, loras=by_hand_beside), 2) - pictures[1]).abs().max() < 1e-4
    folded.clear()
    model.to(dtype=torch.float64)  # its weights are others now
    assert (draw(engine, 1) - pictures[0]).abs().max() < 1e-4
    assert len(folded) > 0


def test_a_render_with_a_scale_over_frames_goes_on_to_the_bit(loaded, tmp_path):
    model = loaded("sd")
    path = save_lora(tmp_path / "a.safetensors", model, "sd", changes_of(model, "sd"), "kohya")
    before = weights(model)
    plan = plan_of(model.card, 4, loras=f"{path}:0:(0), 3:(1)", redraw={"strength": 0.6})
    states = []
    whole = draw_plan(plan, model, on_progress=print, on_state=states.append).array()
    rest = draw_plan(plan, model, on_progress=print, state=states[1]).array()
    assert np.array_equal(rest, whole[2:])
    plain = draw_plan(plan_of(model.card, 4, redraw={"strength": 0.6}), model, on_progress=print).array()
    assert np.array_equal(whole[0], plain[0])
    assert not np.array_equal(whole[3], plain[3])
    assert unchanged(model, before)


def test_a_model_is_itself_after_a_picture_that_failed(loaded, tmp_path, monkeypatch):
    model = loaded("sd")
    path = save_lora(tmp_path / "a.safetensors", model, "sd", changes_of(model, "sd"), "kohya")
    before = weights(model)
    engines = [engine_of(model, loras=[{"path": str(path), "merge": merge}]) for merge in (True, False)]

    def fail(*args, **kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr(model.pipe.vae, "decode", fail)
    for engine in engines:
        with pytest.raises(RuntimeError, match="no"):
            engine.draw(Drawing(frame=0, seeds=SEEDS, steps=1, solver="checkpoint"))
    assert unchanged(model, before)
    assert not hooked(model)
