"""The frame-by-frame loop: what is kept is kept to the bit, what is shared is shared as asked, and a render
that goes on is the one that was never interrupted."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import kinema
from kinema.core.errors import ConfigError, ModelError
from kinema.pipelines.cards import read_card
from kinema.pipelines.frame_by_frame.loop import Loop, LoopState, Still, to_uint8
from kinema.pipelines.frame_by_frame.pictures import Pictures, picture_tensor
from kinema.pipelines.frame_by_frame.plan import drawn_frames
from kinema.pipelines.images.engine import Drawing, Seeds
from kinema.pipelines.images.engine_kinema import KinemaImages, levels
from kinema.pipelines.modes import draw_plan
from kinema.pipelines.plan import Plan
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

SIDE = 64


def quiet(_event: object) -> None:
    """Nobody watches."""


def picture(path: Path, seed: int) -> str:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
    return str(path)


def pixels(path: str) -> torch.Tensor:
    return picture_tensor(np.asarray(Image.open(path).convert("RGB")))


class Copy:
    """An image model that gives back what it is given, `shift` brighter, and remembers what it was asked."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift, self.asked = shift, []

    def draw(self, drawing: Drawing) -> torch.Tensor:
        self.asked.append(drawing)
        if drawing.canvas is None:
            return (
                drawing.seeds.noise((3, SIDE // 8, SIDE // 8))
                .mul(0.1)
                .add(0.5)
                .clamp(0, 1)
                .repeat_interleave(8, 2)
                .repeat_interleave(8, 3)
            )
        shift = self.shift if drawing.open is None else self.shift * drawing.open
        return (drawing.canvas + shift).clamp(0, 1)


class Right:
    """A camera that moves the picture right by 4 pixels a frame; what comes in from the side is a hole."""

    state = ()

    def warp(self, picture_BCHW, start, end):
        by = 4 * (end - start)
        holes = torch.zeros(1, 1, SIDE, SIDE)
        if by > 0:
            holes[..., :by] = 1
        elif by < 0:
            holes[..., by:] = 1
        return picture_BCHW.roll(by, dims=3), holes


class Counting(Right):
    """The same, which remembers how often it was asked, and shows it in the first pixel."""

    def __init__(self) -> None:
        self.state = (0.0,)

    def warp(self, picture_BCHW, start, end):
        self.state = (self.state[0] + 1,)
        marked = picture_BCHW.clone()
        marked[..., 0, 0] = self.state[0] % 7 / 7
        return super().warp(marked, start, end)


@pytest.fixture(scope="module")
def card(small):
    return read_card(str(small))


@pytest.fixture(scope="module")
def model(small):
    return kinema.load(str(small), device="cpu")


def plan_of(card, frames: int = 9, *, keyframes=(), steps: int = 4, **redraw) -> Plan:
    shot = Shot(
        prompt="a rooster", frames=frames, seed=5, steps=steps, keyframes=keyframes, mode="frame_by_frame",
        redraw=redraw,
    )  # fmt: skip
    return make_plan(shot, card)


def loop_of(plan: Plan, engine=None, moves=None) -> Loop:
    return Loop(plan, engine or Copy(), moves or Still(), Pictures(plan))


def frames_of(loop: Loop, **options) -> np.ndarray:
    return loop.clip(on_progress=quiet, **options).array()


# Which frames are drawn


def test_a_cadence_draws_the_first_the_last_and_every_so_many():
    assert drawn_frames(np.full(10, 3.0), []) == (0, 3, 6, 9)
    assert drawn_frames(np.full(9, 3.0), []) == (0, 3, 6, 8)
    assert drawn_frames(np.full(5, 1.0), []) == (0, 1, 2, 3, 4)
    assert drawn_frames(np.full(1, 1.0), []) == (0,)


def test_a_keyframe_is_always_drawn_and_the_count_goes_on_from_it():
    assert drawn_frames(np.full(13, 4.0), [6]) == (0, 4, 6, 10, 12)


def test_a_cadence_may_change_over_frames():
    assert drawn_frames(np.array([1, 1, 2, 2, 4, 4, 4, 4, 4, 4.0]), []) == (0, 1, 2, 4, 8, 9)


def test_deforums_dialect_counts_seeds_and_steps_as_deforum_does(card):
    def strokes(**redraw):
        said = {"mode": "frame_by_frame", "dialect": "deforum", "redraw": redraw}
        return make_plan(Shot(prompt="a rooster", frames=6, seed=5, **said), card).redraw.strokes

    assert [s.seeds[0] for s in strokes(seed="iter", seed_every=3)] == [5, 6, 6, 6, 7, 7]
    tween = strokes(seed="schedule", seeds="0:(10), 5:(13)", steps="0:(10), 5:(13)")
    assert [s.seeds[0] for s in tween] == [10, 10, 11, 11, 12, 13]
    assert [s.steps for s in tween] == [10, 10, 11, 11, 12, 13]
    travelled = strokes(seed="travel", seeds="0:(s), max_f-1:(9), 30:(11)")
    assert [s.seeds for s in travelled[1:4]] == [(5, 9, i / 4) for i in (1, 2, 3)]
    assert [travelled[i].seeds[0] for i in (0, 4, 5)] == [5, 9, 9]


def test_drawn_frames_have_the_seeds_of_their_behaviour(card):
    def seeds(**redraw):
        return [stroke.seeds for stroke in plan_of(card, 9, **redraw).redraw.strokes]

    assert seeds(cadence=4) == [(5, 5, 0.0), (6, 6, 0.0), (7, 7, 0.0)]
    assert seeds(cadence=4, seed="fixed") == [(5, 5, 0.0)] * 3
    travelled = seeds(cadence=2, seed="travel", seeds={0: 7, 8: 70})
    assert travelled[1:4] == [(7, 70, s / 4) for s in (1, 2, 3)]
    assert [travelled[0][0], travelled[4][0]] == [7, 70]
    assert [travelled[0][2], travelled[4][2]] == [0, 0]


def test_a_clip_may_be_as_long_as_it_likes(card):
    """Only one frame's latents are in memory at a time."""
    shot = Shot(prompt="a fox", mode="frame_by_frame", frames=3000, size="512x512")
    assert len(make_plan(shot, card).redraw.strokes) == 3000
    with pytest.raises(kinema.KinemaError, match="latents, above"):
        make_plan(Shot(prompt="a fox", frames=8001, size="512x512"), card)


# What the loop does


def test_without_strength_and_motion_a_frame_stays(card):
    frames = frames_of(loop_of(plan_of(card, strength=0)))
    assert (frames == frames[:1]).all()


def test_the_canvas_is_where_the_camera_is(card):
    engine = Copy()
    frames = frames_of(loop_of(plan_of(card, 4, colour="off"), engine, Right()))
    assert np.array_equal(np.roll(frames[0], 12, axis=1), frames[3])
    assert [drawing.holes for drawing in engine.asked] == [None] * 4  # filled by the border


def test_holes_are_drawn_from_nothing_when_asked(card):
    engine = Copy()
    frames_of(loop_of(plan_of(card, 3, holes="redraw"), engine, Right()))
    assert engine.asked[0].holes is None
    assert engine.asked[1].holes[0, 0, 0].tolist() == [1.0] * 4 + [0.0] * (SIDE - 4)


def test_frames_between_are_both_neighbours_moved_and_blended(card):
    plan = plan_of(card, 5, cadence=4, colour="off", noise=0.4)
    loop = loop_of(plan, moves=Right())
    states = []
    frames = frames_of(loop, on_state=states.append)
    first, last = states[0].picture, states[1].picture
    for f in range(1, 4):
        ahead, back = first.roll(4 * f, dims=3), last.roll(-4 * (4 - f), dims=3)
        inner = slice(4 * f, SIDE - 4 * (4 - f))
        mixed = to_uint8(torch.lerp(ahead, back, f / 4))
        assert np.abs(frames[f][:, inner].astype(int) - mixed[:, inner]).max() <= 1
        # where one of them shows nothing, the other is shown alone
        assert np.array_equal(frames[f][:, : 4 * f], to_uint8(back)[:, : 4 * f])
        assert np.array_equal(frames[f][:, inner.stop :], to_uint8(ahead)[:, inner.stop :])


def test_a_keyframe_of_full_strength_is_shown_as_it_is(card, tmp_path):
    path = picture(tmp_path / "a.png", 1)
    frames = frames_of(loop_of(plan_of(card, 6, keyframes=f"{path}@3", strength=0.7)))
    assert np.array_equal(frames[3], np.asarray(Image.open(path)))
    assert not np.array_equal(frames[2], frames[3])


def test_a_picture_comes_in_along_a_straight_line(card, tmp_path):
    """The share of the canvas, whatever the frames before have of it already."""
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(2)]
    keys = [f"{paths[0]}@0", f"{paths[1]}@8:0.8"]
    plan = plan_of(card, 9, keyframes=keys, approach=4, colour="off")
    states = []
    frames_of(loop_of(plan), on_state=states.append)
    first, second = (pixels(path) for path in paths)
    for frame in range(3, 9):
        expected = torch.lerp(first, second, 0.8 * (frame - 3) / 5)
        assert torch.allclose(states[frame].picture, expected, atol=1e-5), frame


def test_a_first_keyframe_below_full_strength_is_drawn_over(card, tmp_path):
    path, engine = picture(tmp_path / "a.png", 1), Copy()
    frames_of(loop_of(plan_of(card, 2, keyframes=f"{path}@0:0.75"), engine))
    assert engine.asked[0].strength == 0.25
    assert torch.equal(engine.asked[0].canvas, pixels(path))


def test_what_a_mask_keeps_stays_to_the_bit(card, tmp_path):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for inverted, kept in ((False, slice(0, 32)), (True, slice(32, SIDE))):
        plan = plan_of(
            card, 5, mask=str(tmp_path / "mask.png"), mask_invert=inverted, noise=0.2, colour="off"
        )
        frames = frames_of(loop_of(plan, Copy(0.05)))
        other = slice(32, SIDE) if kept.start == 0 else slice(0, 32)
        assert (frames[:, :, kept] == frames[:1, :, kept]).all()
        assert not (frames[4, :, other] == frames[0, :, other]).any(axis=-1).all()


def test_a_clip_of_masks_runs_along_with_the_frames(card, tmp_path):
    masks = np.zeros((5, SIDE, SIDE, 3), np.uint8)
    for f in range(5):
        masks[f, :, : 8 * (f + 1)] = 255
    kinema.Clip(masks, 8).save(tmp_path / "masks.mkv", quality="lossless")
    plan = plan_of(card, 9, mask=str(tmp_path / "masks.mkv"))
    pictures = Pictures(plan)
    wide = [int(pictures.mask(f, 0.0)[0, 0, 0].gt(0.5).sum()) for f in (0, 1, 3, 4, 8)]
    assert wide == [8, 16, 32, 40, 40]  # a short one stays on its last frame


def test_touches_reach_the_canvas_and_not_the_first_frame(card):
    engine = Copy()
    frames_of(loop_of(plan_of(card, 3, noise="0:(0), 2:(0.2)", colour="off"), engine))
    assert engine.asked[0].canvas is None
    apart = (engine.asked[2].canvas - engine.asked[1].canvas).abs().max()
    assert 0.05 < float(apart) <= 0.1 + 1e-6


def test_drift_of_colours_is_taken_back(card):
    """A model that makes every picture a little brighter turns the clip white, unless colours are kept."""

    def rise(**redraw):
        frames = frames_of(loop_of(plan_of(card, 30, **redraw), Copy(0.01))).astype(float)
        return abs(frames[-1].mean() - frames[0].mean()) / 255

    assert rise(colour="off") > 0.2
    assert rise() < 0.01
    assert rise(colour="histogram") < 0.01


@pytest.mark.parametrize("colour", ["transport", "histogram"])
def test_drift_is_taken_back_where_a_mask_is_open(card, tmp_path, colour):
    """What is kept has not drifted, and other colours than what is redrawn: it says nothing of them."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    inside = (slice(None), slice(16, 48), slice(16, 48))

    def mean(**redraw):
        asked = {"mask": str(tmp_path / "mask.png"), "colour": colour, **redraw}
        frames = frames_of(loop_of(plan_of(card, 60, keyframes=path, **asked), Copy(0.01)))
        return frames[inside].astype(float).mean(axis=(1, 2, 3))

    path = picture(tmp_path / "a.png", 1)
    whole = np.asarray(Image.open(path)) // 2 + 50
    whole[:, :12] = whole[:, 52:] = 8  # a dark frame, kept
    Image.fromarray(whole).save(path)
    off, kept, at_once = mean(colour="off"), mean(), mean(colour_window=1)
    assert off[-1] - off[0] > 50
    assert abs(kept[-1] - kept[0]) < 3
    assert abs(at_once[-1] - at_once[0]) < 2


def test_a_mask_that_wanders_leaves_each_place_its_own_colours(card, tmp_path):
    """From a blue half to a red one: blue is no colour that red returns to, but drift is taken back."""
    masks = np.zeros((30, SIDE, SIDE, 3), np.uint8)
    masks[:1, :, :32] = 255
    masks[1:, :, 32:] = 255
    kinema.Clip(masks, 8).save(tmp_path / "masks.mkv", quality="lossless")
    halves = np.full((SIDE, SIDE, 3), (40, 60, 200), np.uint8)
    halves[:, 32:] = (190, 60, 40)
    halves[::2, ::2] += 20
    Image.fromarray(halves).save(tmp_path / "a.png")
    plan = plan_of(
        card, 30, keyframes=str(tmp_path / "a.png"), mask=str(tmp_path / "masks.mkv"), mask_feather=0
    )
    for shift in (0.0, 0.01):
        frames = frames_of(loop_of(plan, Copy(shift))).astype(float)
        moved = frames[-1][:, 34:].mean(axis=(0, 1)) - halves[:, 34:].mean(axis=(0, 1))
        assert np.abs(moved).max() < 4, (shift, moved)


def test_noise_that_is_put_in_does_not_add_to_the_contrast(card):
    """Colours are matched to those before the noise, which the model was to remove."""
    frames = frames_of(loop_of(plan_of(card, 40, noise=0.25, noise_kind="perlin"))).astype(float)
    spread = frames.std(axis=(1, 2, 3))
    assert abs(spread[-1] / spread[0] - 1) < 0.1


def test_a_frame_drawn_from_nothing_begins_its_own_colours(card, tmp_path):
    loop = loop_of(plan_of(card, 4, strength="0:(1), 2:(1), 3:(0.5)"))
    states = []
    frames = frames_of(loop, on_state=states.append)
    assert not torch.equal(states[1].reference.mean_BC, states[0].reference.mean_BC)
    assert torch.equal(states[3].reference.mean_BC, states[2].reference.mean_BC)
    path = picture(tmp_path / "a.png", 1)
    alike = frames_of(loop_of(plan_of(card, 4, strength=1, colour_from=path, colour_window=1)))
    target = pixels(path).mean(dim=(2, 3))[0].numpy() * 255
    assert np.abs(frames[1].mean(axis=(0, 1)) - target).max() > 8
    assert np.abs(alike[1].mean(axis=(0, 1)) - target).max() < 8


# Going on


def test_a_render_that_goes_on_is_the_one_that_was_not_interrupted(card, tmp_path):
    path = picture(tmp_path / "a.png", 1)
    plan = plan_of(
        card, 12, keyframes=f"{path}@7:0.6", cadence=2, approach=3, noise=0.1, noise_kind="perlin",
        sharpen=0.3, strength="0.5 + 0.2 * sin(t)",
    )  # fmt: skip
    whole = frames_of(loop_of(plan, Copy(0.03), Counting()))
    for taken in (1, 3, 8, 10):
        states = []
        clip = loop_of(plan, Copy(0.03), Counting()).clip(on_progress=quiet, on_state=states.append)
        first = list(islice(clip, taken))
        if not states:
            continue
        state = LoopState.from_tensors(safetensors.torch.load(safetensors.torch.save(states[-1].tensors())))
        rest = loop_of(plan, Copy(0.03), Counting()).clip(on_progress=quiet, state=state)
        given = 12 - len(rest)
        assert given <= taken  # nothing is skipped
        assert np.array_equal(np.stack([*first[:given], *rest]), whole)


def test_a_state_is_told_when_its_frames_were_taken(card):
    states = []
    clip = loop_of(plan_of(card, 7, cadence=3)).clip(on_progress=quiet, on_state=states.append)
    seen = [(len(states), i) for i, _ in enumerate(clip)]
    assert seen == [(0, 0), (1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]
    assert len(states) == 3


# With a model


def test_the_first_frame_is_the_picture_of_its_seed(model):
    clip = kinema.generate("a rooster", model=model, mode="frame_by_frame", frames=2, seed=3, steps=3)
    alone = kinema.generate("a rooster", model=model, frames=1, seed=3, steps=3)
    assert np.array_equal(clip.array()[0], alone.array()[0])
    assert not np.array_equal(clip.array()[1], alone.array()[0])


def test_at_full_strength_every_frame_is_a_picture_of_its_own(model):
    """Latent travel: no frame sees the one before, whatever it is."""
    redraw = {"strength": 1, "seed": "travel", "seeds": {0: 3, 4: 9}}
    clip = kinema.generate(
        {0: "a rooster", 4: "a penguin"}, model=model, mode="frame_by_frame", frames=5, steps=3, redraw=redraw
    )
    ends = [
        kinema.generate(text, model=model, frames=1, seed=seed, steps=3).array()[0]
        for text, seed in (("a rooster", 3), ("a penguin", 9))
    ]
    assert np.array_equal(clip.array()[0], ends[0])
    assert np.array_equal(clip.array()[4], ends[1])
    assert len({frame.tobytes() for frame in clip.array()}) == 5


@pytest.mark.parametrize("solver", ["euler-ancestral", "dpm++2m-sde"])
def test_what_a_solver_adds_between_its_steps_travels_too(model, solver):
    """Across a key as slowly as anywhere, and at a key the noise of its seed alone."""
    plan = plan_of(model.card, 2, steps=3)
    engine = KinemaImages(plan, model)

    def drawn(*seeds):
        return engine.draw(Drawing(frame=0, seeds=Seeds(*seeds), steps=3, solver=solver))

    key = drawn(9, 9, 0.0)
    assert torch.equal(drawn(3, 9, 1.0), key)
    assert torch.equal(drawn(9, 5, 0.0), key)
    near, far = drawn(3, 9, 1 - 1e-4), drawn(3, 3, 0.0)
    assert (near - key).abs().mean() < 0.02 * (far - key).abs().mean()


def test_steps_that_cannot_be_mixed_have_one_stream_while_seeds_travel(card):
    def streams(**redraw):
        engine = Copy()
        frames_of(loop_of(plan_of(card, 5, **redraw), engine))
        return [drawing.seeds.stream for drawing in engine.asked]

    assert streams(seed="travel", seeds={0: 3, 2: 9, 4: 7}) == [5] * 5
    assert streams(seed="iter") == [5, 6, 7, 8, 9]


def test_a_model_run_goes_on_to_the_bit(model):
    plan = plan_of(model.card, 4, steps=3, noise=0.05, strength=0.6)
    states = []
    whole = draw_plan(plan, model, on_progress=quiet, on_state=states.append).array()
    rest = draw_plan(plan, model, on_progress=quiet, state=states[1]).array()
    assert np.array_equal(rest, whole[2:])


def test_strength_takes_its_share_of_the_steps(model):
    plan = plan_of(model.card, 2, steps=10)
    asked = [
        levels(plan, Drawing(frame=0, seeds=None, steps=10, solver="euler"), top) for top in (1.0, 0.5, 0.01)
    ]
    assert [len(found) - 1 for found in asked] == [10, 5, 1]
    assert [float(found[0]) for found in asked] == pytest.approx([1.0, 0.5, 0.01])
    assert all(bool((found.diff() < 0).all()) and found[-1] == 0 for found in asked)


def test_no_first_step_is_shorter_than_a_timestep(model):
    """Over such a step, solvers that look back would divide what a network rounds by next to nothing."""
    plan = replace(plan_of(model.card, 2, steps=38), redraw=None)
    plan = replace(plan, sampling=replace(plan.sampling, grid="wan", shift=5.0))
    for top in (0.53, 0.93, 0.9995):
        found = levels(plan, Drawing(frame=0, seeds=None, steps=38, solver="unipc"), top)
        assert float(-found.diff().max()) >= 1e-3, top
        assert float(found[0]) == pytest.approx(top, abs=1e-3)


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc", "dpm++2m-sde"])
def test_the_model_keeps_what_is_closed_and_fills_what_is_missing(model, solver):
    """In latents already: closed positions come back to the canvas, holes do not depend on what was there."""
    plan = plan_of(model.card, 2, steps=3)
    engine = KinemaImages(plan, model)
    canvas = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    closed = torch.ones(1, 1, SIDE, SIDE)
    closed[..., :32] = 0
    plain = Drawing(
        frame=1, seeds=plan_seeds(plan), steps=3, solver=solver, strength=0.6, canvas=canvas, open=closed
    )
    known, caps = engine._canvas(plain)
    latents = engine._sample(plain, known, caps, levels(plan, plain, 0.6)[:, None, None])
    assert torch.allclose(latents[..., :4], known[..., :4], atol=1e-4)
    assert not torch.allclose(latents[..., 4:], known[..., 4:], atol=1e-2)


def test_a_hole_does_not_show_what_was_under_it(model):
    plan = plan_of(model.card, 2, steps=3)
    engine = KinemaImages(plan, model)
    holes = torch.zeros(1, 1, SIDE, SIDE)
    holes[..., 32:] = 1
    canvases = [torch.full((1, 3, SIDE, SIDE), 0.5) for _ in range(2)]
    canvases[1][..., 40:] = 0.9
    asked = [
        Drawing(
            frame=1, seeds=plan_seeds(plan), steps=3, solver="euler", strength=0.0, canvas=canvas, holes=holes
        )
        for canvas in canvases
    ]
    found = [engine._canvas(drawing) for drawing in asked]
    latents = [
        engine._sample(drawing, known, caps, levels(plan, drawing, 1.0)[:, None, None])
        for drawing, (known, caps) in zip(asked, found, strict=True)
    ]
    assert torch.allclose(latents[0][..., 4:], latents[1][..., 4:], atol=1e-5)
    assert torch.allclose(latents[0][..., :4], found[0][0][..., :4], atol=1e-4)


def plan_seeds(plan: Plan):
    return Seeds(*plan.redraw.strokes[1].seeds)


def test_a_clip_is_carried_on_from_its_last_frame(model, tmp_path):
    still = np.full((3, SIDE, SIDE, 3), (30, 90, 200), np.uint8)
    kinema.Clip(still, 8).save(tmp_path / "a.mkv", quality="lossless")
    clip = kinema.generate(
        "a rooster",
        model=model,
        mode="frame_by_frame",
        frames=2,
        extend=str(tmp_path / "a.mkv"),
        steps=3,
        redraw={"strength": 0},
    ).array()
    assert len(clip) == 5
    assert np.abs(clip.astype(int) - still[0]).max() <= 2


def test_the_first_frame_after_a_clip_has_the_colours_that_are_asked_for(card, tmp_path):
    named, engine = picture(tmp_path / "a.png", 1), Copy(0.2)
    dark = (pixels(picture(tmp_path / "b.png", 2)) * 0.5 + 0.1).mul(255).byte()[0].permute(1, 2, 0)
    clip = kinema.Clip(np.stack([dark.numpy()] * 3), 8).save(tmp_path / "b.mkv", quality="lossless")
    shot = Shot(prompt="a fox", frames=2, mode="frame_by_frame", extend=str(clip), steps=3)

    def first_after(**redraw):
        loop = loop_of(make_plan(shot.with_(redraw={"strength": 0.5, **redraw}), card), engine)
        before = loop.pictures.last_before()
        return loop.draw(0, loop.after(before)).picture, before

    plain, _ = first_after(colour="off")
    assert torch.equal(plain, engine.asked[-1].canvas + 0.2)
    kept, before = first_after(colour_window=1)
    assert float((kept - before).mean(dim=(2, 3)).abs().max()) < 0.03
    alike, _ = first_after(colour_window=1, colour_from=named)
    assert float((alike - pixels(named)).mean(dim=(2, 3)).abs().max()) < 0.03


# What is refused


def test_a_video_only_model_is_refused_by_name(wan):
    card = read_card(str(wan("i2v")))
    with pytest.raises(ModelError, match=r"cannot do frame by frame.*Use --model embedded"):
        make_plan(Shot(prompt="a fox", mode="frame_by_frame", model=card.id), card)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"redraw": {"strength": "0.5 + t"}}, "redraw.strength is 1.5 at frame 1"),
        ({"redraw": {"seed": "travel", "seeds": {0: 1.5}}}, "whole seeds"),
        ({"redraw": {"solver": {0: "euler", 3: "oiler"}}}, "Did you mean 'euler'"),
    ],
)
def test_what_cannot_be_is_refused_when_planned(card, fields, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(Shot(prompt="a fox", mode="frame_by_frame", frames=5, **fields), card)


def test_a_clip_to_make_over_is_refused(card, tmp_path):
    shot = Shot(prompt="a fox", mode="frame_by_frame", source=str(tmp_path / "a.mp4"))
    with pytest.raises(ConfigError, match=r"source is made over.*mode: joint"):
        make_plan(shot, card)


def test_a_plan_of_a_record_is_the_same_plan(card):
    plan = plan_of(card, 9, strength=0.4, seed="random", noise="0:(0.1), 8:(0)")
    again = make_plan(Shot.from_mapping(plan.shot), card)
    assert again.redraw == plan.redraw
    assert replace(again, shot=plan.shot).digest == plan.digest
