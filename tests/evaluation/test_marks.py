"""The judges judged: what breaks one factor must fail on that factor and leave the others standing."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from kinema.core.errors import ConfigError
from kinema.evaluation.marks import bands, interval, mark, psnr, summary
from kinema.evaluation.prompts import prompt_set
from kinema.evaluation.silhouette import Gallery
from kinema.training.data import render
from kinema.training.grammar import Grammar
from kinema.training.scenes import COLOURS, unit_hash

FRAMES, COUNT = 9, 16


@pytest.fixture(scope="module")
def scenes(bank):
    grammar = Grammar(gradient=0.2, resized=0.0, frozen=0.0, held_out=0.0)
    prompts = prompt_set(bank.identities, grammar, seen=COUNT, unseen=0, seed=3)
    return [prompt.scene for prompt in prompts]


@pytest.fixture(scope="module")
def clips(bank, scenes):
    return render(bank, scenes, frames=FRAMES, fps=8, size=bank.size)


@pytest.fixture(scope="module")
def gallery(bank):
    return Gallery(bank)


@pytest.fixture(scope="module")
def shares(judge, gallery, scenes, clips):
    """Marks of damaged clips as shares, by factor; the band is that of the real clips."""
    band = bands(mark(clips, scenes, judge, gallery))

    def of(frames_BCFHW):
        table = summary(mark(frames_BCFHW, scenes, judge, gallery), band)
        return {factor: found["mean"] for factor, found in table.items()}

    return of


def test_real_clips_pass_on_every_factor(shares, clips):
    found = shares(clips)
    assert min(found[name] for name in ("background", "direction", "in place")) == 1
    assert found["identity top-1, net"] >= 0.9
    assert found["identity top-1, gallery"] >= 0.9
    assert found["amount in band"] >= 0.8
    assert found["flicker in band"] >= 0.8


def test_one_colour_frames_show_nobody(shares, scenes, clips):
    """The background survives where it was flat; nobody is there and nothing moves."""
    colour = clips[:, :, :1, :1, :1]
    found = shares(colour.expand_as(clips).clone())
    assert found["identity top-1, net"] <= 0.5
    assert found["identity top-1, gallery"] <= 0.5
    assert found["direction"] == 0
    assert found["background"] == np.mean([scene.background.layout == "flat" for scene in scenes])
    assert found["amount in band"] == 0


def test_frozen_frames_do_not_move(shares, clips):
    middle = clips[:, :, FRAMES // 2 : FRAMES // 2 + 1]
    found = shares(middle.expand_as(clips).clone())
    assert found["direction"] == 0
    assert found["amount in band"] == 0
    assert found["in place"] == found["background"] == 1
    assert found["identity top-1, net"] >= 0.9


def test_reversed_clips_go_the_other_way(shares, clips):
    found, before = shares(clips.flip(2)), shares(clips)
    assert found["direction"] == 0
    for factor in before.keys() - {"direction"}:
        assert found[factor] == pytest.approx(before[factor], abs=1e-6), factor


def test_anothers_clip_fails_on_identity_and_nothing_else(shares, bank, scenes, clips):
    from dataclasses import replace

    others = [
        replace(scene, identity=bank.identities[(scene.identity.index + 1) % len(bank.identities)])
        for scene in scenes
    ]
    found, before = shares(render(bank, others, frames=FRAMES, fps=8, size=bank.size)), shares(clips)
    assert found["identity top-1, net"] <= 0.1
    assert found["identity top-1, gallery"] <= 0.1
    for factor in ("background", "direction", "in place"):
        assert found[factor] == before[factor], factor


def test_another_background_fails_on_the_background_only(shares, clips):
    found, before = shares(clips.roll(1, dims=1)), shares(clips)  # red, green and blue change places
    assert found["background"] <= 0.35  # gray, black and white stay what they are
    assert found["direction"] == before["direction"]


def test_flicker_of_the_background_leaves_the_band(shares, clips):
    flash = 0.1 * (torch.arange(FRAMES) % 2).view(1, 1, FRAMES, 1, 1)
    found = shares((clips + flash - 0.05).clamp(-1, 1))
    assert found["flicker in band"] == 0
    assert found["direction"] == 1


def test_factors_nobody_asked_for_are_left_out(judge, gallery, scenes, clips):
    in_place = [scene.motion == "none" for scene in scenes]
    marks = mark(clips, scenes, judge, gallery)
    still = marks.select([i for i, stays in enumerate(in_place) if stays])
    assert "direction" not in summary(still, {})
    assert summary(still, {})["in place"]["clips"] == sum(in_place)
    stills = summary(mark(clips[:, :, :1], scenes, judge, gallery), {})
    assert stills.keys() == {
        "identity top-1, net",
        "identity top-5, net",
        "identity top-1, gallery",
        "identity top-5, gallery",
        "background",
    }


def test_interval_holds_the_true_share_about_19_times_in_20():
    rng, hits, clips_each = np.random.default_rng(0), 0, 60
    for trial in range(100):
        found = interval((rng.random(clips_each) < 0.3).astype(float), seed=trial)
        hits += found["low"] <= 0.3 <= found["high"]
    assert 85 <= hits <= 100


def test_a_few_clips_that_are_all_right_do_not_prove_that_all_would_be():
    """Wilson's interval for 8 of 8 and 0 of 8, and for 3 of 10, as tables have it."""
    assert interval(np.ones(8)) == {"mean": 1, "low": pytest.approx(0.6756, abs=1e-4), "high": 1, "clips": 8}
    assert interval(np.zeros(8)) == {"mean": 0, "low": 0, "high": pytest.approx(0.3244, abs=1e-4), "clips": 8}
    found = interval(np.array([1.0] * 3 + [0.0] * 7))
    assert (found["low"], found["high"]) == (pytest.approx(0.1078, abs=1e-4), pytest.approx(0.6032, abs=1e-4))
    measured = interval(np.array([0.2, 0.2, 0.2]))
    assert measured["low"] == measured["mean"] == measured["high"]


def test_prompts_end_where_a_grammar_has_no_other_kind(bank):
    for moving, wanted in ((0.0, {"none"}), (1.0, {"left", "right", "up", "down"})):
        made = prompt_set(bank.identities, Grammar(moving=moving), seen=6, unseen=0)
        assert {prompt.scene.motion for prompt in made} <= wanted


def test_combinations_that_few_identities_have_not_are_told(bank):
    one = bank.identities[:1]
    assert min(unit_hash(f"colour/{one[0].name}/{name}") for name in COLOURS) > 1e-4
    with pytest.raises(ConfigError, match=r"held_out: 1e-05 none is held out"):
        prompt_set(one, Grammar(moving=0.0, held_out=1e-5), seen=0, unseen=1)


def test_psnr_of_a_known_error():
    target = torch.zeros(1, 3, 2, 4, 4)
    assert psnr(target + 0.2, target) == pytest.approx(20.0, abs=1e-4)  # a tenth of the range


def test_prompts_alternate_and_depend_on_the_seed_only(bank):
    grammar = Grammar(held_out=0.2)
    few = prompt_set(bank.identities, grammar, seen=4, unseen=2, seed=1)
    more = prompt_set(bank.identities, grammar, seen=6, unseen=2, seed=1)
    assert few[:4] == more[:4]
    assert few[4:] == more[6:]
    assert [prompt.scene.motion == "none" for prompt in more[:6]] == [True, False] * 3
    assert [prompt.unseen for prompt in few] == [False] * 4 + [True] * 2
    assert len({prompt.seed for prompt in more}) == 8
    assert prompt_set(bank.identities, grammar, seen=4, unseen=0, seed=2) != few[:4]


def test_unseen_prompts_are_held_out_from_training(bank):
    from kinema.training.scenes import held_out

    grammar = Grammar(held_out=0.2)
    for prompt in prompt_set(bank.identities, grammar, seen=12, unseen=12, seed=Random(0).randrange(99)):
        assert held_out(prompt.scene, grammar.held_out) == prompt.unseen
