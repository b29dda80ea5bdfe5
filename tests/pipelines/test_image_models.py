"""Diffusers image models behind the frame-by-frame engine: equal to diffusers' own pipelines where both are
asked the same, on checkpoints in the true layout with random weights."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch

import kinema
from kinema.core.errors import ConfigError, ModelError
from kinema.core.runtime import generator
from kinema.pipelines.cards import read_card
from kinema.pipelines.diffusers_solvers import IMAGE_SOLVERS, SPACED, SPACINGS
from kinema.pipelines.frame_by_frame.cost import drawn_forwards
from kinema.pipelines.images.engine import Drawing, Seeds
from kinema.pipelines.images.engine_diffusers import DiffusersImages, enough_steps
from kinema.pipelines.images.model import ImageModel, given_noise
from kinema.pipelines.images.texts import ImageTexts
from kinema.pipelines.modes import draw_plan
from kinema.pipelines.plan import Prompts
from kinema.pipelines.planning import make_plan
from kinema.pipelines.plots import tracks
from kinema.story.shot import Shot

SIDE = 32
KINDS = ("sd", "sdxl", "sd3", "flux")
SEEDS = Seeds(7, 7, 0.0)


@pytest.fixture(scope="module")
def loaded(image_model):
    models: dict[str, ImageModel] = {}

    def of(kind: str) -> ImageModel:
        if kind not in models:
            models[kind] = kinema.load(str(image_model(kind)), device="cpu")
        return models[kind]

    return of


def plan_of(model: ImageModel, frames: int = 3, **fields):
    given = {"prompt": "a red fox", "negative": "dog", "guidance": 4, "steps": 3, "seed": 7} | fields
    if model.card.transformer["_class_name"] == "FluxPipeline":
        given = {"options": {"true_cfg_scale": 2.5}} | given
    shot = Shot(model=model.card.id, frames=frames, size="32x32", mode="frame_by_frame", **given)
    return make_plan(shot, model.card)


def engine_of(model: ImageModel, **fields) -> DiffusersImages:
    return DiffusersImages(plan_of(model, **fields), model)


def canvas() -> torch.Tensor:
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def asked(**fields) -> Drawing:
    return Drawing(**{"frame": 0, "seeds": SEEDS, "steps": 3, "solver": "checkpoint", **fields})


def noise_of(model: ImageModel) -> torch.Tensor:
    latents = SIDE // model.card.stride.space
    return SEEDS.noise((model.card.latent_channels, latents, latents))


@pytest.mark.parametrize("kind", KINDS)
def test_text_to_image_is_the_pipelines_own(loaded, kind):
    model = loaded(kind)
    noise = noise_of(model)
    pipe = model.pipeline("text", "checkpoint")
    guidance = {"guidance_scale": 4.0} | ({"true_cfg_scale": 2.5} if kind == "flux" else {})
    theirs = pipe(
        prompt="a red fox",
        negative_prompt="dog",
        **guidance,
        num_inference_steps=3,
        height=SIDE,
        width=SIDE,
        latents=pipe._pack_latents(noise, *noise.shape) if kind == "flux" else noise,
        generator=generator(7, "drawing"),
        output_type="pt",
    ).images
    assert torch.allclose(engine_of(model).draw(asked()), theirs, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_image_to_image_is_the_pipelines_own_with_the_noise_that_was_given(loaded, kind):
    model = loaded(kind)
    pipe = model.pipeline("image", "checkpoint")
    guidance = {"guidance_scale": 4.0} | ({"true_cfg_scale": 2.5} if kind == "flux" else {})
    call = {
        "prompt": "a red fox", "negative_prompt": "dog", "image": canvas(), "strength": 0.7,
        "num_inference_steps": 3, "generator": generator(7, "drawing"), "output_type": "pt",
    }  # fmt: skip
    with given_noise(pipe.scheduler, noise_of(model)):
        theirs = pipe(
            **call, **guidance, **({"height": SIDE, "width": SIDE} if kind == "flux" else {})
        ).images
    drawn = engine_of(model).draw(asked(canvas=canvas(), strength=0.7))
    assert torch.allclose(drawn, theirs, atol=1e-5)
    other = engine_of(model).draw(asked(canvas=canvas(), strength=0.7, seeds=Seeds(7, 8, 0.5)))
    assert not torch.allclose(drawn, other, atol=1e-3)


def test_guidance_of_flux_and_its_negative_prompt_have_a_scale_each(loaded):
    """Its guidance is the network's input; without a true_cfg_scale the negative prompt is not read."""
    model = loaded("flux")

    def call(**fields):
        return engine_of(model, **fields)._texts(0)

    told = call()
    assert (told["guidance_scale"], told["true_cfg_scale"]) == (4.0, 2.5)
    assert "negative_prompt_embeds" in told
    plain = call(options={})
    assert plain["guidance_scale"] == 4.0
    assert not [name for name in plain if name.startswith(("negative", "true"))]
    none = call(negative="")  # away from what an empty prompt is
    assert none["true_cfg_scale"] == 2.5
    assert not torch.equal(none["negative_prompt_embeds"], told["negative_prompt_embeds"])


@pytest.mark.parametrize(
    ("kind", "fields", "note"),
    [
        ("flux", {"options": {}}, r"negative prompt does not act: add --option true_cfg_scale=4"),
        ("flux", {}, None),
        ("sd", {"guidance": 1}, r"negative prompt does not act: guidance is 1: give one above 1"),
        ("sd", {"guidance": "0:(1), 2:(3)"}, None),
        ("sd", {"guidance": 1, "negative": ""}, None),
    ],
)
def test_a_plan_says_where_a_negative_prompt_does_not_act(loaded, kind, fields, note):
    model = loaded(kind)
    plan = plan_of(model, **fields)
    found = [said for said in plan.notes if "negative" in said]
    assert len(found) == (note is not None)
    assert note is None or re.search(note, found[0])
    shown = [track.label for track in tracks(plan) if track.name == "negative"]
    assert shown == (["dog"] if note is None and fields.get("negative") != "" else [])
    twice = drawn_forwards(plan, model.card) / drawn_forwards(
        plan_of(model, guidance=1, options={}), model.card
    )
    assert (twice == 1) == (note is not None or fields.get("negative") == "")


def test_guidance_of_a_flux_without_it_is_told_of(image_model, tmp_path):
    copy = edited(image_model("flux"), tmp_path)
    config = copy / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"guidance_embeds": False}))
    card = read_card(str(copy))
    shot = Shot(prompt="a fox", mode="frame_by_frame", frames=3, size="32x32", model=card.id)
    assert not [note for note in make_plan(shot, card).notes if "guidance" in note]
    (note,) = [note for note in make_plan(shot.with_(guidance=3.5), card).notes if "guidance" in note]
    assert "is no input of" in note


@contextmanager
def heard_noise(scheduler):
    """What noise the pipeline draws by itself."""
    name = "scale_noise" if hasattr(scheduler, "scale_noise") else "add_noise"
    own, heard = getattr(scheduler, name), []

    def listen(sample, second, third):
        heard.append(third if name == "scale_noise" else second)
        return own(sample, second, third)

    setattr(scheduler, name, listen)
    yield heard


@pytest.mark.parametrize("kind", KINDS)
def test_giving_a_pipeline_its_own_noise_changes_nothing(loaded, kind):
    model = loaded(kind)
    call = {"prompt": "a red fox", "image": canvas(), "strength": 0.7, "num_inference_steps": 3}
    call |= {"output_type": "pt", **({"height": SIDE, "width": SIDE} if kind == "flux" else {})}
    pipe = model.pipeline("image", "checkpoint")
    with heard_noise(pipe.scheduler) as heard:
        plain = pipe(**call, generator=generator(1, "a")).images
    pipe = model.pipeline("image", "checkpoint")
    with given_noise(pipe.scheduler, heard[0]):
        assert torch.equal(pipe(**call, generator=generator(1, "a")).images, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_inpainting_changes_what_is_open_and_fills_holes_from_nothing(loaded, kind):
    model, mask = loaded(kind), torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 16:] = 1
    drawn = engine_of(model).draw(asked(canvas=canvas(), strength=0.7, open=mask))
    assert torch.equal(drawn[..., :16], canvas()[..., :16])
    assert not torch.allclose(drawn[..., 16:], canvas()[..., 16:], atol=0.02)
    other = canvas()
    other[..., 24:] = 0.5
    holes = torch.zeros(1, 1, SIDE, SIDE)
    holes[..., 24:] = 1
    a, b = (engine_of(model).draw(asked(canvas=c, strength=0.0, holes=holes)) for c in (canvas(), other))
    assert torch.equal(a[..., :16], canvas()[..., :16])
    # random weights see far, so what was under the hole is felt a little through its surroundings' codec
    assert float((a - b)[..., 24:].abs().mean()) < 0.5 * float((canvas() - other)[..., 24:].abs().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_is_drawn_anew_where_any_of_its_pixels_is_open(loaded, kind, monkeypatch):
    """The pipelines keep one pixel of each block of the mask, which may be one that is shut."""
    model, mask = loaded(kind), torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 13:15] = 1  # between the pixels that are read
    mask[..., 30, 3] = 1
    engine, given = engine_of(model), {}
    drawn = torch.full((1, 3, SIDE, SIDE), 0.5)

    def call(task, drawing, options):
        given.update(options)
        return drawn

    monkeypatch.setattr(engine, "_call", call)
    found = engine.draw(asked(canvas=canvas(), strength=0.7, open=mask))
    rows = engine.plan.geometry.rows
    latents = torch.nn.functional.interpolate(given["mask_image"], (rows, rows))
    block = SIDE // rows
    opened = torch.nn.functional.max_pool2d(mask, block)
    assert bool((latents >= opened).all())
    side = 2 * block if kind == "flux" else block  # it draws 2 by 2 latents as one
    tokens = torch.nn.functional.max_pool2d(mask, side).repeat_interleave(side, 2).repeat_interleave(side, 3)
    assert torch.equal(given["mask_image"], tokens)
    assert torch.equal(found, torch.where(mask > 0, drawn, canvas()))  # what is shown is no larger


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_mixed_between_their_ends(loaded, kind):
    model, texts = loaded(kind), ("a red fox", "the snow")
    spans = tuple(((text, 1.0),) for text in texts)
    rows = ((1.0, 0.0), (0.25, 0.75), (0.0, 1.0))
    for blend in ("embedding", "slerp"):
        mixed = ImageTexts(Prompts(spans=spans, weights=rows), model, blend=blend)
        alone = [
            ImageTexts(Prompts(spans=(s,), weights=((1.0,),)), model, blend=blend).at(0)["prompt_embeds"]
            for s in spans
        ]
        found = [mixed.at(f)["prompt_embeds"] for f in range(3)]
        assert torch.equal(found[0], alone[0])
        assert torch.equal(found[2], alone[1])
        straight = torch.lerp(alone[0], alone[1], 0.75)
        assert torch.allclose(found[1], straight, atol=1e-6) == (blend == "embedding")


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_weights_of_words_move_their_tokens_only(loaded, kind):
    model = loaded(kind)

    def rows(weight):
        spans = ((("a ", 1.0), ("fox", weight)),)
        return ImageTexts(Prompts(spans=spans, weights=((1.0,),)), model, blend="embedding").at(0)[
            "prompt_embeds"
        ]

    plain, strong = rows(1.0), rows(1.5)
    changed = (plain != strong).any(dim=-1)[0].nonzero()[:, 0].tolist()
    assert changed == [2, 3, 4]  # after the start token and "a": f, o, x


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_a_weight_beyond_the_last_token_moves_none(loaded, kind):
    """The tokens' end is where a word that is cut off would have been."""
    model, words = loaded(kind), "fox " * 25  # a token for each letter: 75

    def rows(*spans):
        return ImageTexts(Prompts(spans=(spans,), weights=((1.0,),)), model, blend="embedding").at(0)[
            "prompt_embeds"
        ]

    plain = rows((words, 1.0), ("dog", 1.0))
    assert plain.shape[1] == 77
    assert torch.equal(rows((words, 1.0), ("dog", 1.5)), plain)
    changed = (rows((words[:-4], 1.0), ("fox dog", 1.5)) != plain).any(dim=-1)[0].nonzero()[:, 0].tolist()
    assert changed == [73, 74, 75]


@pytest.mark.parametrize(("count", "cut"), [(25, None), (26, "fox "), (80, "fox " * 40 + "...")])
def test_a_plan_says_which_words_are_cut_off(loaded, count, cut):
    model = loaded("sd")
    prompt = {0: "a fox", 2: "fox " * count}
    found = [note for note in plan_of(model, prompt=prompt).notes if "not its end" in note]
    assert found == (
        [] if cut is None else [f"{model.card.id!r} reads 75 tokens of a prompt and not its end: {cut!r}."]
    )
    long = plan_of(model, negative="dog " * 26)
    assert [note for note in long.notes if "not its end: 'dog" in note]
    assert not [note for note in plan_of(loaded("flux"), prompt=prompt).notes if "not its end" in note]


@pytest.mark.parametrize("grid", SPACINGS)
@pytest.mark.parametrize("solver", ["checkpoint", "euler", "ddim"])
def test_timesteps_are_spaced_as_diffusers_spaces_them(loaded, solver, grid):
    """LoRAs for few steps are made for trailing timesteps."""
    model, noise = loaded("sd"), noise_of(loaded("sd"))
    pipe = type(model.pipe)(**model.pipe.components)
    own = model.scheduler(solver)
    pipe.scheduler = type(own).from_config(own.config, timestep_spacing=grid)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt="a red fox", negative_prompt="dog", guidance_scale=4.0, num_inference_steps=3, height=SIDE,
        width=SIDE, latents=noise, generator=generator(7, "drawing"), output_type="pt",
    ).images  # fmt: skip
    plan = plan_of(model, solver=solver, grid=grid)
    assert torch.allclose(DiffusersImages(plan, model).draw(asked(solver=solver)), theirs, atol=1e-5)
    assert plan.shot["grid"] == grid
    assert plan.digest != plan_of(model, solver=solver).digest
    assert "grid" not in plan_of(model).shot
    spacings = {own.config.timestep_spacing, grid}
    plain = engine_of(model).draw(asked(solver=solver))
    assert torch.allclose(plain, theirs, atol=1e-5) == (len(spacings) == 1)


@pytest.mark.parametrize("name", sorted(SPACED | {name for name, _ in IMAGE_SOLVERS.values()}))
def test_which_schedulers_read_a_spacing(name):
    first, last = (getattr(diffusers, name)(timestep_spacing=grid) for grid in ("leading", "trailing"))
    for scheduler in (first, last):
        scheduler.set_timesteps(4)
    assert (first.timesteps.tolist() != last.timesteps.tolist()) == (name in SPACED)


def test_tcd_is_diffusers_own(loaded):
    model = loaded("sd")
    pipe = type(model.pipe)(**model.pipe.components)
    pipe.scheduler = diffusers.TCDScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt="a red fox", guidance_scale=1.0, num_inference_steps=3, height=SIDE, width=SIDE,
        latents=noise_of(model), output_type="pt",
    ).images  # fmt: skip
    ours = engine_of(model, solver="tcd", guidance=1).draw(asked(solver="tcd"))
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("solver", IMAGE_SOLVERS)
def test_every_solver_runs(loaded, solver):
    engine = engine_of(loaded("sd"))
    first, again = (engine.draw(asked(solver=solver, canvas=canvas(), strength=0.7)) for _ in range(2))
    assert torch.equal(first, again)  # nothing is left behind by the picture before
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_latents_are_not_clipped_whatever_scheduler_a_checkpoint_brings(solver):
    """Euler's configuration says nothing of clipping, and the scheduler's own default is for pixels."""
    own = diffusers.EulerDiscreteScheduler()
    model = SimpleNamespace(_own=own, kind=SimpleNamespace(flow=False))
    assert "clip_sample" not in own.config
    assert ImageModel.scheduler(model, solver).config.clip_sample is False


@pytest.mark.parametrize("task", ["text", "image"])
def test_travel_does_not_jump_at_a_key_with_a_stochastic_solver(loaded, task):
    engine = engine_of(loaded("sd"))

    def drawn(first, second, share):
        more = {} if task == "text" else {"canvas": canvas(), "strength": 0.7}
        seeds = Seeds(first, second, share, 7)
        return engine.draw(asked(seeds=seeds, solver="euler-ancestral", **more))

    before, key, far = drawn(3, 9, 1 - 1e-4), drawn(9, 5, 0.0), drawn(3, 9, 0.0)
    assert (before - key).abs().mean() < 0.02 * (far - key).abs().mean()


def test_a_render_goes_on_to_the_bit(loaded):
    plan = plan_of(loaded("sd"), 4, solver="euler-ancestral", redraw={"strength": 0.6, "noise": 0.05})
    states = []
    whole = draw_plan(plan, loaded("sd"), on_progress=print, on_state=states.append).array()
    rest = draw_plan(plan, loaded("sd"), on_progress=print, state=states[1]).array()
    assert np.array_equal(rest, whole[2:])


def test_one_frame_of_an_image_model_needs_no_mode(loaded):
    model = loaded("sd")
    clip = kinema.generate("a red fox", model=model, frames=1, size="32x32", steps=2, seed=1)
    assert clip.array().shape == (1, SIDE, SIDE, 3)


def test_a_small_strength_is_one_step_not_none():
    for strength in (0.9, 0.34, 0.1, 0.03, 1 / 49, 0.001):
        steps = enough_steps(20, strength)
        assert int(steps * strength) >= 1
        assert steps == 20 or int((steps - 2) * strength) < 1
    assert enough_steps(20, 0.0005) == enough_steps(20, 1e-17) == enough_steps(20, 0.0) == 1000
    assert [enough_steps(30, strength, 50) for strength in (0.025, 0.02, 0.0199)] == [40, 50, 0]


@pytest.mark.parametrize("solver", ["lcm", "tcd"])
def test_a_distilled_solver_draws_at_any_strength(loaded, solver):
    """Its scheduler has 50 steps; a strength below one of them is none, and no error within a clip."""
    plan = plan_of(loaded("sd"), 3, solver=solver, redraw={"strength": {1: 0.03, 2: 0.01}, "colour": "off"})
    frames = draw_plan(plan, loaded("sd"), on_progress=print).array()
    assert not np.array_equal(frames[1], frames[0])
    assert np.array_equal(frames[2], frames[1])
    engine, still = engine_of(loaded("sd")), canvas()
    masked = asked(solver=solver, canvas=still, strength=0.01, open=torch.ones(1, 1, SIDE, SIDE))
    assert torch.equal(engine.draw(masked), still)
    assert torch.isfinite(engine.draw(asked(solver=solver, steps=50))).all()


@pytest.mark.parametrize("strength", ["0.3*abs(sin(pi*f/2))", "1e-17", 0.0005])
def test_what_is_no_step_of_the_model_leaves_the_frame(loaded, strength):
    """sin(pi) is 1e-16; a drawing of which that is one step has more steps than memory has bytes."""
    plan = plan_of(loaded("sd"), 4, redraw={"strength": strength, "colour": "off"})
    frames = draw_plan(plan, loaded("sd"), on_progress=print).array()
    formula = isinstance(strength, str) and "sin" in strength
    assert [stroke.strength for stroke in plan.redraw.strokes][2] == 0
    assert np.array_equal(frames[2], frames[1])
    assert np.array_equal(frames[1], frames[0]) != formula


# What is refused before weights are read


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"mode": "joint", "frames": 9}, ModelError, r"cannot do text to video.*frame by frame"),
        ({"shift": 3}, ConfigError, r"shift is not used by .*leave it out"),
        ({"guidance_method": "apg"}, ConfigError, "guidance_method is not used by"),
        ({"blend": "velocity"}, ConfigError, "write blend: embedding or slerp"),
        ({"solver": "unipcc"}, ConfigError, "Did you mean 'unipc'"),
        (
            {"grid": "wan"},
            ConfigError,
            "grid='wan' is none of .* write trailing, leading or linspace, or leave",
        ),
        ({"grid": "trailing", "solver": "lcm"}, ConfigError, r"not read by solver 'lcm' \(LCMScheduler\)"),
        (
            {"grid": "trailing", "solver": "dpm++2m-karras"},
            ConfigError,
            r"grid='trailing' is not read by solver 'dpm\+\+2m-karras'",
        ),
        (
            {"grid": "leading", "redraw": {"solver": {0: "euler", 2: "tcd"}}},
            ConfigError,
            r"not read by solver 'tcd' \(TCDScheduler\)",
        ),
        (
            {"solver": "lcm", "steps": 60},
            ConfigError,
            r"steps=60 is more than solver 'lcm' .* write 50 or fewer",
        ),
        (
            {"solver": "tcd", "redraw": {"steps": {0: 4, 2: 51}}},
            ConfigError,
            r"steps=51 is more than solver 'tcd' \(TCDScheduler\)",
        ),
        ({"size": "33x32"}, kinema.KinemaError, "width=33 is not a multiple of 2"),
    ],
)
def test_what_an_image_model_cannot_do_is_refused(image_model, fields, error, message):
    card = read_card(str(image_model("sd")))
    shot = {"prompt": "a fox", "mode": "frame_by_frame", "frames": 3, "size": "32x32", "model": card.id}
    with pytest.raises(error, match=message):
        make_plan(Shot(**{**shot, **fields}), card)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sd", {"true_cfg_scale": 4}, "options are arguments of another diffusers pipeline"),
        ("flux", {"true_cfg": 4}, "Did you mean 'true_cfg_scale'"),
        ("flux", {"true_cfg_scale": True}, r"true_cfg_scale=True is out of range; write a number from 1"),
        ("flux", {"true_cfg_scale": 0.5}, r"true_cfg_scale=0.5 is out of range"),
        ("flux", {"true_cfg_scale": "4"}, r"true_cfg_scale=4 is out of range; write a number"),
    ],
)
def test_options_are_those_of_flux(image_model, kind, options, message):
    card = read_card(str(image_model(kind)))
    shot = Shot(prompt="a fox", mode="frame_by_frame", frames=3, size="32x32", model=card.id, options=options)
    with pytest.raises(ConfigError, match=message):
        make_plan(shot, card)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_straight_paths_have_one_grid(image_model, kind):
    shot = {"prompt": "a fox", "mode": "frame_by_frame", "frames": 3, "size": "32x32", "grid": "trailing"}
    with pytest.raises(ConfigError, match=r"grid='trailing' is none of .*; leave it out\."):
        make_plan(Shot(**shot, model=str(image_model(kind))), read_card(str(image_model(kind))))


def test_weights_of_words_need_a_model_that_reads_them(image_model):
    card = read_card(str(image_model("flux")))
    shot = Shot(prompt="a (fox:1.3)", mode="frame_by_frame", frames=3, size="32x32", model=card.id)
    with pytest.raises(ConfigError, match=r"\(word:1.3\).*Flux"):
        make_plan(shot, card)


def edited(folder, tmp_path, **changes):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | changes))
    return copy


def test_code_of_a_checkpoint_is_never_run(image_model, tmp_path):
    folder = edited(image_model("sd"), tmp_path, unet=["my_unet", "MyUNet"])
    with pytest.raises(ModelError, match=r"'my_unet'.MyUNet for its unet, and kinema loads no code"):
        read_card(str(folder))


def test_an_unknown_image_model_is_refused_by_name(image_model, tmp_path):
    folder = edited(image_model("sd"), tmp_path, _class_name="PixArtAlphaPipeline")
    with pytest.raises(ModelError, match=r"'PixArtAlphaPipeline'.*'StableDiffusionPipeline'"):
        read_card(str(folder))


def test_pickled_weights_are_not_read(image_model, tmp_path):
    folder = edited(image_model("sd"), tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="holds pickled weights"):
        kinema.load(str(folder), device="cpu")


def test_a_checkpoints_own_distilled_scheduler_says_how_many_steps_it_has(image_model, tmp_path):
    folder = edited(image_model("sd"), tmp_path)
    diffusers.LCMScheduler(original_inference_steps=20).save_pretrained(folder / "scheduler")
    shot = {"prompt": "a fox", "frames": 1, "size": "32x32", "model": str(folder)}
    card = read_card(str(folder))
    assert make_plan(Shot(**shot, steps=20), card).sampling.steps == 20
    for solver in ("checkpoint", "lcm"):
        with pytest.raises(ConfigError, match=r"steps=21 is more than .* among 20; write 20 or fewer"):
            make_plan(Shot(**shot, steps=21, solver=solver), card)
    assert make_plan(Shot(**shot, steps=21, solver="ddim"), card).sampling.steps == 21


def test_the_usual_safety_checker_is_no_code_of_its_own(image_model, tmp_path):
    parts = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    assert read_card(str(edited(image_model("sd"), tmp_path, **parts))).family == "image"
