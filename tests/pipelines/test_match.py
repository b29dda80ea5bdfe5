"""`match`: from one seed the latents of Wan's own program and of diffusers; their defaults and rounding."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from wan_formulas import LATENTS, MODEL, fill, texts

import kinema
from kinema.core.errors import ConfigError
from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.models.original import load_original
from kinema.models.text import TextStates
from kinema.models.wan_names import parameter_from_original, to_original
from kinema.models.weights import load_into
from kinema.pipelines.cards import read_card
from kinema.pipelines.geometry import ROUNDINGS
from kinema.pipelines.match import CUTTING, NEGATIVE, SHAKING
from kinema.pipelines.planning import make_plan
from kinema.pipelines.render import sample_plan
from kinema.story.shot import Shot

BOUND = 1e-4
WAN_RUNS = json.loads((Path(__file__).parents[1] / "golden" / "wan.json").read_text())


class Formulas:
    """The two texts of the golden runs."""

    def encode(self, prompts, max_length=512):
        """The second is the negative prompt's, which is the only one with Chinese words."""
        state_LD = texts()[NEGATIVE in "".join(text for text, _ in prompts[0])]
        mask = torch.ones(1, len(state_LD), dtype=torch.bool)
        return TextStates(state_LD[None], mask, pad_count_K=torch.tensor([max_length - len(state_LD)]))

    def to(self, device):
        return self


@pytest.fixture
def formula_model(wan, tmp_path):
    """The golden runs' transformer, loaded from a file in its original names."""
    ours = {
        "patch_size": MODEL["patch_size"],
        "num_attention_heads": MODEL["num_heads"],
        "attention_head_dim": MODEL["dim"] // MODEL["num_heads"],
        "in_channels": MODEL["in_dim"],
        "out_channels": MODEL["out_dim"],
        "text_dim": MODEL["text_dim"],
        "freq_dim": MODEL["freq_dim"],
        "ffn_dim": MODEL["ffn_dim"],
        "num_layers": MODEL["num_layers"],
    }
    dit = VideoDiT(VideoDiTConfig.from_mapping(ours))
    shapes = {}
    for name, tensor in dit.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        original = to_original(name) or f"{to_original(stem)}.{leaf}"
        assert parameter_from_original(original) == name
        shapes[original] = tensor.shape
    save_file(fill(shapes), tmp_path / "wan.safetensors")
    load_into(dit, load_original([tmp_path / "wan.safetensors"]), tmp_path)
    model = kinema.load(str(wan("t2v")), device="cpu")
    model.dit, model.text = dit.eval(), Formulas()
    model.card = replace(model.card, transformer=ours, latent_channels=4)
    return model


@pytest.mark.parametrize("run", WAN_RUNS, ids=["8 steps", "5 steps"])
def test_latents_equal_those_of_wans_own_program(formula_model, run):
    _, frames, rows, columns = LATENTS
    asked = {name: run[name] for name in ("steps", "shift", "guidance", "seed")}
    size = {"frames": 4 * frames - 3, "height": 8 * rows, "width": 8 * columns}
    shot = Shot(model=formula_model.card.id, prompt="(a fox:1.3)", match="wan", **asked, **size)
    plan = make_plan(shot, formula_model.card)
    found = sample_plan(plan, formula_model, previous=None, on_progress=lambda _: None).latents_BCTYX
    expected = torch.tensor(run["latents"]).reshape(1, *LATENTS)
    assert expected.std() > 0.5
    torch.testing.assert_close(found, expected, atol=BOUND, rtol=0)
    other = make_plan(shot.with_(match="diffusers", negative=NEGATIVE), formula_model.card)
    diffusers = sample_plan(other, formula_model, previous=None, on_progress=lambda _: None).latents_BCTYX
    assert (diffusers - expected).abs().max() > 10 * BOUND  # the grids differ, so equality says something


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


KINDS = {
    "t2v": ("WanPipeline", 0, 32),
    "i2v": ("WanImageToVideoPipeline", 1, 32),
    "flf2v": ("WanImageToVideoPipeline", 2, 32),
    "ti2v": ("WanPipeline", 0, 64),
    "two-experts": ("WanPipeline", 0, 32),
    "two-experts-i2v": ("WanImageToVideoPipeline", 1, 32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_latents_of_diffusers_pipeline(wan, tmp_path, kind):
    import diffusers

    name, pictures, side = KINDS[kind]
    # parentheses, entities and white space are read as diffusers reads them, and 6 frames become 5
    call = {"prompt": " (a  red:2) fox &amp; the [dog] ", "num_inference_steps": 4, "num_frames": 6}
    given = {name: picture(i, (side, side)) for i, name in enumerate(("image", "last_image")[:pictures])}
    theirs = getattr(diffusers, name).from_pretrained(wan(kind))
    theirs.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    expected = theirs(
        **call, **given, height=side, width=side, generator=generator, output_type="latent"
    ).frames
    keyframes = []
    for part, place in zip(given, (0, -1), strict=False):
        given[part].save(tmp_path / f"{part}.png")
        keyframes.append(f"{tmp_path / part}.png@{place}")
    clip = kinema.generate(
        call["prompt"],
        model=str(wan(kind)),
        match="diffusers",
        steps=4,
        frames=6,
        size=[side, side],
        seed=7,
        keyframes=keyframes,
        device="cpu",
    )
    assert len(clip.array()) == 5
    torch.testing.assert_close(clip.latents, expected, atol=BOUND, rtol=0)


def plan_of(card, **fields):
    return make_plan(Shot(model=card.id, prompt="a fox", **fields), card)


def facts(plan) -> tuple:
    s, g = plan.sampling, plan.geometry
    low = None if s.guidance_low is None else s.guidance_low[0]
    return g.width, g.height, g.frames, g.fps, s.steps, s.grid, s.shift, s.guidance[0], low


@pytest.fixture
def still(tmp_path):
    for name in ("first", "last"):
        picture(1, (128, 72)).save(tmp_path / f"{name}.png")
    return [f"{tmp_path}/first.png@0", f"{tmp_path}/last.png@-1"]


# As in generate.py and wan/configs of Wan2.1 @9737cba and Wan2.2 @42bf4cf: size, frames, fps, steps, grid,
# shift, guidance, guidance at low noise; then the words in front of the negative prompt.
PUBLISHED = {
    "t2v": ((1280, 720, 81, "16", 50, "wan", 5.0, 5.0, None), ""),
    "i2v": ((1280, 720, 81, "16", 40, "wan", 5.0, 5.0, None), SHAKING),
    "flf2v": ((1280, 720, 81, "16", 50, "wan", 16.0, 5.0, None), CUTTING + SHAKING),
    "ti2v": ((1280, 704, 121, "24", 50, "wan", 5.0, 5.0, None), ""),
    "two-experts": ((1280, 720, 81, "16", 40, "wan", 12.0, 4.0, 3.0), ""),
    "two-experts-i2v": ((1280, 720, 81, "16", 40, "wan", 5.0, 3.5, 3.5), ""),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_wans_own_defaults(wan, still, kind):
    values, front = PUBLISHED[kind]
    keyframes = {"t2v": 0, "ti2v": 0, "two-experts": 0, "flf2v": 2}.get(kind, 1)
    plan = plan_of(read_card(str(wan(kind))), match="wan", keyframes=still[:keyframes])
    assert facts(plan) == values
    assert plan.negatives.spans == (((front + NEGATIVE, 1.0),),)
    assert plan.shot["negative"] == front + NEGATIVE  # the record has what was used


@pytest.mark.parametrize("kind", PUBLISHED)
def test_diffusers_own_defaults(wan, still, kind):
    keyframes = {"t2v": 0, "ti2v": 0, "two-experts": 0, "flf2v": 2}.get(kind, 1)
    plan = plan_of(read_card(str(wan(kind))), match="diffusers", keyframes=still[:keyframes], size="832x480")
    low = 5.0 if kind.startswith("two") else None
    assert facts(plan) == (832, 480, 81, "16", 50, "diffusers", 3.0, 5.0, low)
    assert plan.negatives.spans == ((("", 1.0),),)


def test_the_narrow_wan_is_made_at_480p(wan):
    card = read_card(str(wan("t2v")))
    narrow = replace(
        card, transformer={**card.transformer, "num_attention_heads": 12, "attention_head_dim": 128}
    )
    assert facts(plan_of(narrow, match="wan"))[:2] == (832, 480)


def test_wan_2_1_shifts_pictures_of_480p_less(wan, still):
    card = read_card(str(wan("i2v")))
    for size, shift in (("832x480", 3.0), ("480x832", 3.0), ("1280x720", 5.0), ("720x1280", 5.0)):
        assert plan_of(card, match="wan", keyframes=still[:1], size=size).sampling.shift == shift


@pytest.mark.parametrize("match", ["wan", "diffusers"])
def test_what_the_shot_says_wins(wan, match):
    said = {"steps": 12, "shift": 2.5, "guidance": 3.0, "negative": "", "grid": "wan-euler", "size": "64x32"}
    plan = plan_of(read_card(str(wan("two-experts"))), match=match, frames=9, **said)
    assert facts(plan) == (64, 32, 9, "16", 12, "wan-euler", 2.5, 3.0, 3.0)  # one scale given is both
    assert plan.negatives.spans == ((("", 1.0),),)
    made_again = make_plan(Shot.from_mapping(plan.shot), read_card(str(wan("two-experts"))))
    assert (made_again.sampling, made_again.prompts) == (plan.sampling, plan.prompts)


@pytest.mark.parametrize(
    "said", [{"guidance": 1}, {"guidance": 0}, {"guidance": 0.5, "guidance_low": 3}], ids=str
)
def test_diffusers_turns_both_guidances_off_with_the_first(wan, said):
    plan = plan_of(read_card(str(wan("two-experts"))), match="diffusers", **said)
    assert (plan.sampling.guidance[0], plan.sampling.guidance_low[0]) == (1, 1)
    single = plan_of(read_card(str(wan("t2v"))), match="diffusers", guidance=said["guidance"])
    assert (single.sampling.guidance[0], single.sampling.guidance_low) == (1, None)


def test_another_solver_has_that_programs_grid(wan):
    card = read_card(str(wan("t2v")))
    for match, solver, grid in (
        ("wan", "dpm++2m", "wan-dpm++"),
        ("wan", "euler", "wan-euler"),
        ("diffusers", "dpm++2m", "diffusers-dpm++"),
        ("diffusers", "euler", "diffusers-euler"),
    ):
        assert plan_of(card, match=match, solver=solver).sampling.grid == grid


@pytest.mark.parametrize(("match", "asked", "made"), [
    ("wan", 48, 45), ("wan", 49, 49), ("wan", 1, 1),
    ("diffusers", 48, 49), ("diffusers", 50, 49), ("diffusers", 3, 1), ("diffusers", 52, 53),
])  # fmt: skip
def test_lengths_are_rounded_as_there_and_said(wan, match, asked, made):
    plan = plan_of(read_card(str(wan("t2v"))), match=match, frames=asked, size="64x32")
    assert plan.geometry.frames == made
    assert any(f"as {match} rounds {asked}" in note for note in plan.notes) == (asked != made)


def test_diffusers_rounds_a_size_down_to_the_models_grid(wan):
    plan = plan_of(read_card(str(wan("ti2v"))), match="diffusers", size="1280x720")
    assert (plan.geometry.width, plan.geometry.height) == (1280, 704)
    assert any("height 704, as diffusers rounds 720" in note for note in plan.notes)


# Sizes from pictures: worked out by hand from each program's formula, at 480p and, for the ratio, at 704p.
@pytest.mark.parametrize(("rounding", "like", "area", "multiple", "size"), [
    ("diffusers", (1000, 1000), 480 * 832, 16, (624, 624)),  # sqrt = 631.95 -> 632 -> 624
    ("wan", (1000, 1000), 480 * 832, 16, (624, 624)),
    ("diffusers", (833, 1000), 480 * 832, 16, (576, 688)),  # widths 576.8, heights 692.4
    ("diffusers", (1000, 987), 480 * 832, 16, (624, 624)),
    ("wan", (1000, 1027), 480 * 832, 16, (608, 640)),  # 623.6 is floored before it is rounded
    ("diffusers", (1000, 1027), 480 * 832, 16, (624, 640)),  # and rounded to 624 here
    ("wan-ratio", (1000, 1000), 704 * 1280, 32, (960, 928)),  # 949.3 -> 928 leaves 971 -> 960
    ("wan-ratio", (1280, 704), 704 * 1280, 32, (1280, 704)),
])  # fmt: skip
def test_a_pictures_size_is_rounded_as_there(rounding, like, area, multiple, size):
    assert ROUNDINGS[rounding](like, area, multiple) == size


@pytest.mark.parametrize(
    "fields", [{"model": "embedded"}, {"mode": "frame_by_frame"}], ids=["embedded", "frame by frame"]
)
def test_what_no_other_program_makes_is_refused(wan, fields):
    shot = Shot(**{"model": str(wan("t2v")), "prompt": "a", "match": "wan", **fields})
    with pytest.raises(ConfigError, match=r"match: wan is for Wan checkpoints.*leave match out"):
        make_plan(shot, read_card(shot.model))
