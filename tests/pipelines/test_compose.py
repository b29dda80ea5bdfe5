"""Composition: which frames are shown, mixed how, and no more of them in memory than one overlap."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kinema
from kinema.core.contracts import Progress
from kinema.core.errors import ConfigError, GeometryError
from kinema.io.image import fit_image
from kinema.pipelines.compose import CUT, compose, join, mask, mixed
from kinema.pipelines.conditioning import condition
from kinema.pipelines.job import make_job
from kinema.pipelines.known import to_pixels
from kinema.story.storyboard import Storyboard
from kinema.story.transition import Transition

FPS = Fraction(8)


def grey(*levels: int, side: int = 4) -> list[np.ndarray]:
    return [np.full((side, side, 3), level, np.uint8) for level in levels]


def shown(shots: list[list[np.ndarray]], *transitions: str | dict, end: str = "cut") -> list[np.ndarray]:
    joins = [CUT, *(join(Transition.model_validate(t), FPS) for t in transitions)]
    last = join(Transition.model_validate(end), FPS, end=True)
    return list(compose(shots, joins, last, size=(4, 4)))


def levels(frames: list[np.ndarray]) -> list[int]:
    assert all(np.ptp(frame) == 0 for frame in frames)
    return [int(frame[0, 0, 0]) for frame in frames]


def test_a_cut_shows_every_frame():
    assert levels(shown([grey(1, 2), grey(3), grey(4, 5)], "cut", "cut")) == [1, 2, 3, 4, 5]


def test_a_dissolve_mixes_equal_steps_between_both_shots():
    frames = shown([grey(0, 0, 0, 0, 0), grey(200, 200, 200, 200, 200)], "dissolve 3")
    assert levels(frames) == [0, 0, 50, 100, 150, 200, 200]


def test_a_dissolve_shows_the_right_frames_of_both():
    frames = shown([grey(10, 20, 30, 40), grey(110, 120, 130)], "dissolve 2")
    assert levels(frames) == [10, 20, round(30 + 80 / 3), round(40 + 80 * 2 / 3), 130]


def test_an_eased_dissolve_follows_its_curve():
    eased = shown([grey(0, 0, 0), grey(200, 200, 200)], {"dissolve": "3", "ease": "in_quad"})
    assert levels(eased) == [round(200 * 0.25**2), 50, round(200 * 0.75**2)]


def test_a_fade_goes_through_its_colour_in_both_shots():
    frames = shown([grey(100, 100, 100), grey(200, 200, 200)], {"fade": 4, "color": "#141414"})
    assert levels(frames) == [100, 60, 20, 20, 110, 200]


def test_the_clip_comes_out_of_a_colour_and_goes_into_one():
    begin = join(Transition(fade=4), FPS, first=True)
    end = join(Transition(fade="0.5s", color="white"), FPS, end=True)
    (shot,) = [grey(200, 200, 200, 200, 155, 155, 155, 155)]
    frames = list(compose([shot], [begin], end, size=(4, 4)))
    assert levels(frames) == [0, 50, 100, 150, 180, 205, 230, 255]


def test_a_matched_frame_is_shown_once_and_as_the_first_shot_made_it():
    assert levels(shown([grey(1, 2), grey(3, 4)], "match")) == [1, 2, 4]


@pytest.mark.parametrize(
    ("direction", "corner"), [("right", (0, 0)), ("left", (0, 3)), ("down", (0, 0)), ("up", (3, 0))]
)
def test_a_wipe_comes_from_its_side(direction, corner):
    hard = {"wipe": 3, "direction": direction, "softness": 0}
    (first, middle, last) = shown([grey(0, 0, 0), grey(200, 200, 200)], hard)
    assert [frame[corner][0] for frame in (first, middle, last)] == [200, 200, 200]
    assert (middle == 200).mean() == 0.5
    assert (first == 200).mean() < 0.5 < (last == 200).mean()
    assert set(np.unique(middle)) == {0, 200}


@given(st.integers(1, 30), st.floats(0, 1), st.sampled_from(["left", "up"]))
def test_a_wipe_only_ever_advances(frames, softness, direction):
    wipe = join(Transition(wipe=frames, softness=softness, direction=direction), FPS)
    masks = [np.broadcast_to(mask(wipe, i, (7, 9)), (7, 9, 1)) for i in range(frames)]
    for one, next_ in pairwise(masks):
        assert (next_ >= one).all()
    assert all(m.min() >= 0 and m.max() <= 1 for m in masks)


def test_mixing_is_exact_at_its_ends():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(mixed(one, other, 0.0), one)
    assert np.array_equal(mixed(one, other, 1.0), other)


def test_memory_holds_one_overlap_and_the_next_shot_waits_for_the_last():
    alive, most, drawn = 0, 0, []

    def shot(name: int, count: int) -> Iterator[np.ndarray]:
        nonlocal alive
        for i in range(count):
            alive += 1
            drawn.append((name, i))
            yield np.full((2, 2, 3), name, np.uint8)

    joins = [CUT, join(Transition(dissolve=5), FPS)]
    for _ in compose([shot(0, 100), shot(1, 100)], joins, size=(2, 2)):
        alive -= 1
        most = max(most, alive)
    assert most <= 5
    assert drawn == [(0, i) for i in range(100)] + [(1, i) for i in range(100)]


@given(
    st.lists(st.integers(4, 9), min_size=1, max_size=5),
    st.lists(st.sampled_from(["cut", "match", "dissolve 2", "wipe 2", "fade 3"]), min_size=4, max_size=4),
)
def test_the_clip_is_as_long_as_the_shots_without_their_overlaps(lengths, transitions):
    transitions = transitions[: len(lengths) - 1]
    frames = shown([grey(*[9] * n) for n in lengths], *transitions)
    overlap = {"cut": 0, "match": 1, "dissolve 2": 2, "wipe 2": 2, "fade 3": 0}
    assert len(frames) == sum(lengths) - sum(overlap[t] for t in transitions)


# With a model


@pytest.fixture(scope="module")
def model(small):
    return kinema.load(str(small), device="cpu")


def board(model, *shots, **whole):
    return Storyboard.from_mapping({"model": model.card.id, "frames": 9, "seed": 2, "shots": shots, **whole})


def test_a_rendered_dissolve_is_the_mix_of_the_shots_alone(model):
    story = board(model, "a fox", {"prompt": "a wolf", "transition": "dissolve 3"})
    job = make_job(story)
    clip = kinema.render(story, model=model).array()
    fox, wolf = (kinema.render(shot.with_(transition="cut"), model=model).array() for shot in story.shots)
    assert (len(clip), job.length, job.frames, job.starts) == (15, 15, 15, (0, 6))
    assert np.array_equal(clip[:6], fox[:6])
    assert np.array_equal(clip[9:], wolf[3:])
    assert np.array_equal(clip[7], mixed(fox[7], wolf[1], 0.5))


def test_a_match_holds_the_last_frame_of_the_shot_before(model):
    story = board(model, "a fox", {"prompt": "a wolf", "transition": "match"})
    clip = kinema.render(story, model=model).array()
    fox = kinema.render(story.shots[0], model=model).array()
    assert len(clip) == 17
    assert np.array_equal(clip[:9], fox)
    plan = make_job(story).plans[1]
    before = kinema.Clip(fox[-1:], 8)
    held = model.vae.encode(to_pixels(fox[-1:], model.device))
    conditions = condition(plan, model, previous=before)
    assert np.array_equal(conditions.start_BCTYX[:, :, :1], held)
    assert conditions.table_SBT[:, 0, 0].max() == 0
    free = kinema.render(story.shots[1].with_(transition="cut"), model=model).array()
    assert not np.array_equal(clip[9:], free[1:])  # the other frames have seen it


def test_progress_says_which_shot_it_is_of(model):
    events: list[Progress] = []
    kinema.render(board(model, "a fox", "a wolf"), model=model, on_progress=events.append)
    assert {event.shots for event in events} == {2}
    assert [event.shot for event in events if event.phase == "text" and event.step] == [1, 2]


def test_shots_of_other_sizes_are_fitted_to_the_canvas(model):
    wide = {"prompt": "a wolf", "size": "128x64", "fit": "pad"}
    story = board(model, {"prompt": "a fox", "size": "64x64"}, wide, canvas="64x64")
    clip = kinema.render(story, model=model)
    alone = kinema.render(story.shots[1], model=model).array()
    assert clip.size == (64, 64)
    assert np.array_equal(clip.array()[9], fit_image(alone[0], 64, 64, "pad"))
    assert clip.record is not None
    assert clip.record.shot["canvas"] == [64, 64]
    assert np.array_equal(
        kinema.render(kinema.Storyboard(**clip.record.shot), model=model).array(), clip.array()
    )


def test_sizes_that_differ_need_a_canvas(model, wan):
    shots = [{"prompt": "a", "size": "96x64"}, {"prompt": "b", "size": "96x64"}]
    assert make_job(board(model, *shots)).width == 96
    with pytest.raises(ConfigError, match="a canvas that shots of other sizes"):
        make_job(board(model, {"prompt": "a", "width": 96}, {"prompt": "b", "height": 128}))


def test_transitions_longer_than_a_shot_are_refused(model):
    shots = ["a", {"prompt": "b", "transition": "dissolve 5"}, {"prompt": "c", "transition": "fade 9"}]
    with pytest.raises(GeometryError, match=r"shots\[1\] has 9 frames and the transitions around it take 10"):
        make_job(board(model, *shots))


def test_a_match_leaves_frame_0_to_the_shot_before(model, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    twice = {"prompt": "b", "transition": "match", "keyframes": [str(tmp_path / "a.png")]}
    with pytest.raises(ConfigError, match="transition match holds frame 0 already"):
        make_job(board(model, "a", twice))


def test_what_is_wrong_in_a_plan_names_its_shot(model):
    with pytest.raises(GeometryError, match=r"shots\[1\]: frames=10 is not 1 \+ a multiple of 4"):
        make_job(board(model, "a", {"prompt": "b", "frames": 10}))
    with pytest.raises(GeometryError, match=r"^frames=10 is not"):
        make_job(Storyboard.from_mapping({"model": model.card.id, "shots": [{"prompt": "b", "frames": 10}]}))
