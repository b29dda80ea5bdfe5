"""Long clips and loops through the whole road: planned in windows, every mode as before, loops that close."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.core.errors import ConfigError, GeometryError, ModelError
from kinema.diffusion.coverage import Continued, Fused
from kinema.diffusion.guidance import COND
from kinema.diffusion.step import Step
from kinema.models.inference import OneByOne
from kinema.pipelines.conditioning import condition
from kinema.pipelines.estimate import estimate
from kinema.pipelines.known import to_pixels
from kinema.pipelines.model import Model
from kinema.pipelines.network import Network
from kinema.pipelines.planning import make_plan
from kinema.pipelines.render import Sampled, closed, denoise, to_uint8
from kinema.pipelines.windows import longest_turn
from kinema.story.prompt_track import PromptTrack
from kinema.story.shot import Shot
from kinema.story.window import sample_around

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(small) -> Model:
    return kinema.load(str(small), device="cpu")


def plan_of(model: Model, **fields):
    return make_plan(Shot.make(model=model.card.id, seed=1, **fields), model.card)


def picture(tmp_path, seed=0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path = tmp_path / f"{seed}.png"
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return str(path)


# The plan; the small model learned 9 frames, 3 latent ones


def test_windows_begin_where_the_model_ends(model):
    assert plan_of(model, frames=9).windows is None
    assert plan_of(model, frames=13).windows == Fused(total=4, length=3, overlap=1, lead=1)
    assert plan_of(model, frames=13, windows="whole").windows is None
    assert plan_of(model, frames=9, windows={"length": 5}).windows.length == 2
    assert plan_of(model, frames=33, windows="continue").windows == Continued(total=9, length=3, overlap=2)
    wide = plan_of(model, frames=33, windows={"length": 17, "overlap": 8, "weights": "flat"}).windows
    assert (wide.length, wide.overlap, wide.weights) == (5, 2, "flat")


def test_the_overlap_holds_the_longest_turn_between_prompts_that_fits(model):
    turn = {0: "a", 20: "a", 29: {"prompt": "b"}}
    wide = plan_of(model, frames=81, prompt=turn, windows={"length": 33}).windows
    assert wide.overlap == 4  # two fifths of 9
    assert longest_turn(((1, 0), (0.5, 0.5), (0.1, 0.9), (0, 1), (0.3, 0.7)), 8) == 2
    assert longest_turn(((1, 0), (0.5, 0.5), (0.1, 0.9), (0, 1), (0.3, 0.7)), 1) == 1
    slow = {0: "a", 20: "a", 41: {"prompt": "b"}}
    assert plan_of(model, frames=81, prompt=slow, windows={"length": 33}).windows.overlap == 5


def test_what_cannot_be_a_window_is_refused_with_what_can(model):
    with pytest.raises(GeometryError, match=r"windows\.length=10 .* the nearest are 9 and 13"):
        plan_of(model, frames=33, windows={"length": 10})
    with pytest.raises(GeometryError, match=r"windows\.overlap=6 .* the nearest are 4 and 8"):
        plan_of(model, frames=33, windows={"overlap": 6})
    with pytest.raises(GeometryError, match=r"windows\.length=100000 .* the nearest is 33\."):
        plan_of(model, frames=33, windows={"length": 100_000})
    with pytest.raises(GeometryError, match=r"windows\.length=34 .* the nearest is 33\."):
        plan_of(model, frames=32, loop=True, windows={"length": 34})
    with pytest.raises(GeometryError, match=r"windows\.length=3 .* the nearest is 5\."):
        plan_of(model, frames=1, windows={"length": 3})
    with pytest.raises(GeometryError, match=r"windows\.length=99998 .* the nearest is 99997\."):
        plan_of(model, frames=100_000, loop=True, windows={"length": 99_998})
    with pytest.raises(GeometryError, match=r"windows\.overlap=10 .* the nearest is 8\."):
        plan_of(model, frames=33, windows={"overlap": 10})
    with pytest.raises(ConfigError, match=r"windows\.overlap=13 leaves nothing .* at most 8"):
        plan_of(model, frames=33, windows={"overlap": 13})
    with pytest.raises(ConfigError, match=r"windows\.overlap=12 leaves nothing .* at most 8"):
        plan_of(model, frames=33, windows={"overlap": 12})
    with pytest.raises(GeometryError, match=r"frames=17 is not a multiple of 4, as a loop's.*16 and 20"):
        plan_of(model, frames=17, loop=True)
    with pytest.raises(ConfigError, match="loop and extend exclude each other"):
        Shot(loop=True, extend="a.mp4")
    with pytest.raises(ConfigError, match="not by windows: continue"):
        Shot(loop=True, windows="continue")


def test_the_cost_counts_every_window_and_only_the_prompts_in_it(model):
    plan = plan_of(model, frames=33, steps=2, windows={"places": "static"})
    windows = len(plan.windows.windows(0, 0))
    assert windows == 4
    cost = estimate(plan, model.card)
    assert (cost.forwards, cost.tokens) == (2 * 2 * windows, 3 * 64)
    held = {0: {"prompt": "a", "mode": "hold"}, 17: "b"}
    plan = plan_of(
        model, frames=33, steps=1, prompt=held, blend="velocity", guidance=1, windows={"places": "static"}
    )
    assert estimate(plan, model.card).forwards == 4 + 1  # one window looks over the cut


# The same bits, the same modes


def test_windows_take_from_every_frame_what_is_its_own(model, monkeypatch):
    """Text, scale and level travel with the frame: a network without attention in time cannot tell."""
    fields = {
        "frames": 25,
        "prompt": {0: "a rooster", 24: "a penguin"},
        "negative": {0: "rain", 12: "snow"},
        "guidance": "0:(1), 24:(6)",
        "steps": 3,
        "blend": "velocity",
    }

    def frame_by_frame(self, x_BCTYX, time_BT, context):
        frames = [
            type(self).alone(self, x_BCTYX[:, :, [t]], time_BT[:, [t]], context.at([t]))
            for t in range(x_BCTYX.shape[2])
        ]
        return torch.cat(frames, dim=2)

    monkeypatch.setattr("kinema.pipelines.network.made_ready", lambda dit, **_: OneByOne(dit))
    monkeypatch.setattr(type(model.dit), "alone", type(model.dit).forward, raising=False)
    monkeypatch.setattr(type(model.dit), "forward", frame_by_frame)
    whole, fused, continued = (
        kinema.generate(**fields, model=model, seed=2, windows=kind).latents
        for kind in ("whole", "fuse", "continue")
    )
    assert torch.equal(fused, whole)
    assert torch.equal(continued, whole)


def test_a_prompt_without_weight_in_a_window_is_not_computed(model, monkeypatch):
    track = {0: {"prompt": "a rooster", "mode": "hold"}, 17: "a penguin"}
    plan = plan_of(model, frames=33, prompt=track, blend="velocity", guidance=1)
    conditions = condition(plan, model)
    asked = []
    forward = type(model.dit).forward

    def counted(self, x, time, context):
        asked.append(x.shape[2])
        return forward(self, x, time, context)

    monkeypatch.setattr(type(model.dit), "forward", counted)
    step = Step(0, plan.sampling.steps, 0, torch.ones(1, 3))
    network = Network(model.dit, conditions.at([0, 1, 2]), plan.sampling, OneByOne(model.dit))
    network(conditions.start_BCTYX[:, :, :3], step, (COND,))
    assert asked == [3]
    network = Network(model.dit, conditions.at([3, 4, 5]), plan.sampling, OneByOne(model.dit))
    network(conditions.start_BCTYX[:, :, 3:6], step, (COND,))
    assert asked == [3, 3, 3]


@pytest.mark.parametrize("kind", ["fuse", "continue"])
def test_pictures_are_held_anywhere_in_a_long_clip(model, tmp_path, kind):
    paths = [picture(tmp_path, seed) for seed in range(3)]
    keys = [f"{paths[0]}@0", f"{paths[1]}@20", f"{paths[2]}@-1"]
    clip = kinema.generate("", model=model, seed=3, frames=33, keyframes=keys, windows=kind)
    pixels = [np.asarray(Image.open(path)) for path in paths]
    groups = [model.vae.encode(to_pixels([p] * 5, CPU))[:, :, 1] for p in pixels]
    assert torch.equal(clip.latents[:, :, 0], model.vae.encode(to_pixels([pixels[0]], CPU))[:, :, 0])
    assert torch.equal(clip.latents[:, :, 5], groups[1])
    assert torch.equal(clip.latents[:, :, 8], groups[2])


@pytest.mark.parametrize("kind", ["fuse", "continue"])
def test_long_extensions_and_restyles_go_through_windows(model, tmp_path, kind):
    first = kinema.generate("a rooster", model=model, seed=1, frames=9)
    first.save(tmp_path / "clip.mkv", quality="lossless")
    path = str(tmp_path / "clip.mkv")
    longer = kinema.generate("", model=model, seed=1, frames=24, extend=path, windows=kind)
    assert len(longer.array()) == 33
    assert np.array_equal(longer.array()[:9], kinema.Clip.open(path).array())
    source = {"path": path, "strength": 0.5}
    kept = kinema.generate("", model=model, seed=1, frames=33, source={**source, "strength": 0}, windows=kind)
    made = kinema.generate("", model=model, seed=1, frames=33, source=source, windows=kind)
    assert not torch.equal(kept.latents, made.latents)


@pytest.mark.parametrize("kind", ["fuse", "continue"])
def test_a_killed_run_goes_on_with_the_same_bits(model, kind):
    plan = plan_of(model, frames=25, steps=3, windows=kind)
    conditions, states = condition(plan, model), []
    whole = denoise(plan, model, conditions, lambda _: None, on_state=states.append)
    for state in states[:-1]:
        again = denoise(plan, model, conditions, lambda _: None, state=state)
        assert torch.equal(again, whole)


def test_a_model_that_reads_masks_sees_its_picture_first_in_every_window(wan, tmp_path):
    model = kinema.load(str(wan("i2v")), device="cpu")
    keys = picture(tmp_path)
    fields = {
        "size": "32x32",
        "frames": 17,
        "steps": 1,
        "seed": 1,
        "keyframes": keys,
        "windows": {"length": 9},
    }
    shot = Shot.make(model=model.card.id, **fields)
    plan = make_plan(shot, model.card)
    conditions = condition(plan, model)
    channels = conditions.channels_BCTYX
    inner = conditions.at([2, 3, 4]).channels_BCTYX
    assert torch.equal(inner[:, :, 0], channels[:, :, 0])
    assert torch.equal(inner[:, :, 1:], channels[:, :, 3:5])
    for window in plan.windows.windows(0, 0)[1:]:
        assert window.shares[0] == 0  # and does not count there
    assert kinema.generate("", model=model, **fields).array().shape == (17, 32, 32, 3)
    with pytest.raises(ModelError, match="cannot do extension"):
        make_plan(shot.with_(windows={"kind": "continue", "length": 9}), model.card)
    with pytest.raises(ModelError, match="cannot be loops"):
        make_plan(shot.with_(loop=True, frames=16, windows=None), model.card)


# Loops


def changes(frames: np.ndarray) -> np.ndarray:
    """Mean change of a pixel from each frame to the next, the last one to the first."""
    return np.abs(np.roll(frames, -1, axis=0).astype(float) - frames).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("frames", [4, 8, 24])
def test_a_loop_decodes_as_if_it_had_gone_on_forever(model, frames):
    clip = kinema.generate("a rooster", model=model, seed=1, frames=frames, loop=True)
    pixels = clip.array()
    assert len(pixels) == frames
    assert clip.latents.shape[2] == frames // 4
    many = torch.cat([clip.latents] * 9, dim=2)
    decoded = torch.cat(list(model.vae.stream(many)), dim=2)
    assert np.array_equal(to_uint8(decoded)[-frames:], pixels)
    assert np.array_equal(to_uint8(decoded)[-2 * frames : -frames], pixels)


def test_a_wan_decoder_forgets_as_its_memory_says(wan):
    vae = kinema.load(str(wan("t2v")), device="cpu").vae
    x = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    seen = closed(Sampled(x), vae)
    around, skip = seen.latents_BCTYX, seen.skip
    frames = torch.cat(list(vae.stream(around)), dim=2)
    assert frames.shape[2] - skip == 12
    longer = torch.cat([x[:, :, 1:], around], dim=2)[:, :, -around.shape[2] - 2 :]
    other = torch.cat(list(vae.stream(longer)), dim=2)
    assert torch.equal(other[:, :, -12:], frames[:, :, skip:])


def test_travel_in_a_loop_comes_back_to_its_first_prompt():
    track = PromptTrack({2: "a", 6: "b"})
    texts, weights = sample_around(track, 12, Fraction(8))
    assert texts == ("a", "b")
    b = weights[:, 1]
    assert b.tolist() == pytest.approx([0.25, 0.125, 0, 0.25, 0.5, 0.75, 1, 0.875, 0.75, 0.625, 0.5, 0.375])
    assert weights.sum(axis=1) == pytest.approx(np.ones(12))
    held = PromptTrack({0: "a", 6: {"prompt": "b", "mode": "hold"}})
    b = sample_around(held, 12, Fraction(8))[1][:, 1]
    assert b.tolist() == pytest.approx([*np.arange(6) / 6, *[1] * 6])


def test_a_loop_says_over_how_many_frames_it_turns_back(model):
    plan = plan_of(model, frames=16, loop=True, prompt={0: "a fox", 8: "a wolf"})
    assert "the loop turns from 'a wolf' back to 'a fox' over its last 8 frames." in plan.notes
    assert plan.prompts.weights[0] == pytest.approx((1 - 1.5 / 8, 1.5 / 8))
    assert plan.prompts.weights[3] == pytest.approx((5.5 / 8 - 0.0, 1 - 5.5 / 8))


@pytest.mark.parametrize(
    ("prompt", "begin", "until", "said"),
    [
        ({0: "a", "8..12": "b"}, 0, 12, "turns over its last 4 frames"),
        ({4: "a", 8: "b"}, 4, 8, "turns over 12 frames, the first 4 of the clip among them"),
        ({0: {"prompt": "a", "mode": "hold"}, 8: "b"}, 0, 8, "turns over its last 8 frames"),
        ({0: "a", 8: {"prompt": "b", "mode": "hold"}}, 0, 8, "jumps at its end"),
        ({4: "a", 8: "b", "mode": "hold"}, 4, 8, "jumps at frame 4"),
        ({0: "a", -1: "b"}, 0, 15, "jumps at its end"),
    ],
)  # fmt: skip
def test_a_loop_says_how_it_comes_back(model, prompt, begin, until, said):
    """The shares say the same: both prompts act in every frame of a turn, and in none where it jumps."""
    plan = plan_of(model, frames=16, loop=True, prompt=prompt)
    how, rest = said.split(" ", 1)
    assert f"the loop {how} from 'b' back to 'a' {rest}." in plan.notes
    weights = sample_around(PromptTrack(prompt), 16, Fraction(8))[1]
    mixed = ((weights > 0) & (weights < 1)).any(axis=1)
    back = [*mixed[until + 1 :], *mixed[:begin]]
    assert back == [how == "turns"] * len(back)


def test_a_held_picture_in_a_loop_is_a_group_like_all_others(model, tmp_path):
    path = picture(tmp_path)
    clip = kinema.generate("", model=model, seed=3, frames=16, keyframes=f"{path}@0", loop=True)
    group = model.vae.encode(to_pixels([np.asarray(Image.open(path))] * 5, CPU))[:, :, 1]
    assert torch.equal(clip.latents[:, :, 0], group)


def test_a_loop_that_is_made_over_at_strength_0_is_itself(model, tmp_path):
    clip = kinema.generate("a rooster", model=model, seed=1, frames=16, loop=True)
    clip.save(tmp_path / "loop.mkv", quality="lossless")
    source = {"path": str(tmp_path / "loop.mkv"), "strength": 0}
    again = kinema.generate("", model=model, seed=1, source=source, loop=True)
    pixels = clip.array()
    around = np.concatenate([pixels[-4:], pixels])
    expected = model.vae.encode(to_pixels(list(around), CPU), first=False)[:, :, 1:]
    torch.testing.assert_close(again.latents, expected)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["a rooster on a blue background", {0: "a rooster", 16: "a penguin"}])
def test_the_embedded_models_loops_close(prompt):
    clip = kinema.generate(prompt, frames=32, loop=True, seed=1, steps=8)
    between_groups = changes(clip.array())[3::4]  # where a model is least smooth; the seam is one of them
    assert between_groups[-1] <= 1.25 * between_groups[:-1].mean()
