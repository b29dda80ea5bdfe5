"""Speed tiers: what was measured is used on that model and under those settings only, and is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import kinema
from kinema.core.errors import ConfigError
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.pipelines.speed import measure
from kinema.pipelines.speed.calibration import (
    TARGETS,
    Calibration,
    Conditions,
    Measured,
    calibrations,
    fingerprint,
    forwards,
    store,
)
from kinema.pipelines.speed.measure import Family, calibrate, confirmed, lowest_tenth, psnr, search
from kinema.pipelines.stopwatch import Stopwatch
from kinema.story.shortcuts import Shortcuts
from kinema.story.shot import Shot

CUTS = Shortcuts.make(cache="schedule", skip=[5, 7], reuse=[5, 6, 7])


@pytest.fixture
def card(small, tmp_path, monkeypatch):
    """A model that was measured with 20 steps: near is 16 of them with shortcuts, fast is nothing."""
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "cache"))
    card = read_card(str(small))
    d = card.defaults
    conditions = Conditions(
        steps=20, solver=d.solver, grid=d.grid, shift=d.shift, method="cfg", interval=(0.0, 1.0),
        guidance=3.0, width=64, height=64, frames=9,
    )  # fmt: skip
    near = Measured(steps=16, shortcuts=CUTS, psnr=37.0, low=35.5, worst=35.2, forwards=27)
    store(card, Calibration(conditions=conditions, forwards=40, clips=12, tiers={"near": near}))
    return card


def plan_of(card, **fields):
    return make_plan(Shot(**{"model": card.id, "prompt": "a fox", "seed": 1, "steps": 20, **fields}), card)


def test_a_tier_sets_steps_and_shortcuts_and_says_what_to_expect(card):
    plan = plan_of(card, speed="near")
    assert plan.sampling.steps == 16
    assert plan.sampling.shortcuts == CUTS
    assert (plan.tier.forwards, plan.tier.possible) == (27, 40)
    assert (
        "near: 16 steps in place of 20, 2 steps carried on from those before, guidance reused in 1; 27 of 40 "
        "forwards, 37.0 dB from exact expected (lowest tenth 35.5, lowest 35.2)." in plan.notes
    )
    assert plan_of(card).sampling.steps == 20
    assert plan_of(card).tier is None


@pytest.fixture
def over(tmp_path):
    path = tmp_path / "source.mp4"
    kinema.Clip(np.zeros((9, 64, 64, 3), np.uint8), 8).save(path)
    return lambda strength: {"source": {"path": str(path), "strength": strength}}


def test_of_a_clip_that_is_made_over_the_steps_below_its_strength_count(card, over):
    """At shift 1 the levels are 1, 0.95, ...: of 20 steps 15 begin at 0.75 or below, of the tier's 16 12."""
    plan = plan_of(card, speed="near", **over(0.75))
    assert (plan.tier.steps, plan.tier.possible, plan.tier.forwards) == (15, 30, forwards(CUTS, 12))
    assert any("near: 12 steps in place of 15, 2 steps carried on" in note for note in plan.notes)
    assert any(f"; {forwards(CUTS, 12)} of 30 forwards" in note for note in plan.notes)
    assert plan_of(card, speed="near", **over(1)).tier == plan_of(card, speed="near").tier
    few = plan_of(card, speed="near", **over(0.4))
    assert few.tier is None
    assert any("speed near is off: 8 steps are too few" in note for note in few.notes)


def test_a_record_makes_the_same_run_again_whatever_was_measured_since(card):
    plan = plan_of(card, speed="near")
    assert plan.shot["speed"] == "near"
    store(card, replace(next(calibrations(card)), tiers={}))
    again = make_plan(Shot.from_mapping(plan.shot), card)
    assert (again.sampling, again.prompts) == (plan.sampling, plan.prompts)


def test_a_tier_that_nothing_reached_is_exact_and_says_so(card):
    plan = plan_of(card, speed="fast")
    assert plan.sampling.steps == 20
    assert plan.sampling.shortcuts is None
    assert any("so the clip is exact" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 30}, r"measured with steps 20 and this shot has 30.*--steps 30"),
        ({"solver": "euler"}, r"with solver unipc and this shot has euler.*--solver euler"),
        ({"shift": 5}, r"with shift 1\.0 and this shot has 5\.0"),
        ({"guidance_interval": [0.2, 1]}, "interval"),
        ({"guidance_method": "apg"}, "method"),
    ],
)
def test_other_settings_than_measured_are_refused_with_the_command_that_measures(card, fields, said):
    with pytest.raises(ConfigError, match=said):
        plan_of(card, speed="near", **fields)


def test_a_model_that_was_not_measured_is_refused_with_the_command(wan):
    with pytest.raises(ConfigError, match=r"measured on each model.*run: kinema calibrate /"):
        plan_of(read_card(str(wan("t2v"))), speed="near")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"solver": "lcm"}, "draws fresh noise"),
        ({"steps": 8}, "8 steps are too few"),
        ({"mode": "frame_by_frame"}, "drawn one by one"),
    ],
)
def test_where_a_tier_means_nothing_it_is_off_and_said(card, fields, why):
    plan = plan_of(card, speed="near", **fields)
    assert plan.tier is None
    assert plan.sampling.shortcuts is None
    assert any("speed near is off" in note and why in note for note in plan.notes)


def test_a_lora_for_few_steps_turns_it_off(card):
    from kinema.pipelines.speed.tiers import unsafe

    for name, off in (
        ("Wan21_T2V_lightx2v_cfg_step_distill_lora.safetensors", True),
        ("style.safetensors", False),
    ):
        shot = Shot(prompt="a", steps=20, speed="near", loras=[{"path": f"loras/{name}"}])
        assert (unsafe(shot, card) is not None) == off


def test_what_lies_beyond_the_measurement_is_said(card):
    plan = plan_of(card, speed="near", guidance=6, frames=17)
    assert any("measured with guidance 3, 9 frames; here it may be larger" in note for note in plan.notes)


def test_another_model_has_another_fingerprint(card, tmp_path):
    shutil.copytree(card.folder, tmp_path / "other")
    assert fingerprint(read_card(str(tmp_path / "other"))) == fingerprint(card)
    weights = tmp_path / "other" / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    other = read_card(str(tmp_path / "other"))
    assert fingerprint(other) != fingerprint(card)
    assert list(calibrations(other)) == []


def test_a_damaged_measurement_is_as_none(card, tmp_path):
    for text in ("{", "[]", '{"format": 1, "calibrations": [{}]}'):
        next((tmp_path / "cache" / "speed").glob("*.json")).write_text(text)
        assert list(calibrations(card)) == []


# The embedded model's own


def test_the_packaged_tiers_are_of_the_packaged_weights_and_reach_their_targets():
    found = next(calibrations(read_card("embedded")), None)
    assert found is not None, "the weights have changed: run scripts/bench/calibrate_speed.py --packaged"
    assert found.clips >= 12
    for name in TARGETS:
        tier = found.tiers[name]
        assert tier.reaches(name)
        assert tier.forwards < found.forwards
        assert forwards(tier.shortcuts, tier.steps) == tier.forwards
    assert found.tiers["fast"].forwards < found.tiers["near"].forwards


@pytest.mark.parametrize("tier", TARGETS)
def test_a_packaged_tier_is_as_near_as_it_says(tier):
    model = kinema.load("embedded", device="cpu")
    shot = Shot(prompt="a duck on a blue background", seed=5, device="cpu", frames=9)
    exact = kinema.render(shot, model=model).array()
    found = kinema.render(shot.with_(speed=tier), model=model).array()
    assert not np.array_equal(found, exact)
    assert psnr(found, exact) > TARGETS[tier] - 3  # a prompt, a seed and a length that were not measured


# Measuring


def test_near_asks_every_clip_and_fast_nine_tenths():
    measured = Measured(steps=9, shortcuts=CUTS, psnr=40, low=36, worst=27, forwards=9)
    assert measured.reaches("fast")
    assert not measured.reaches("near")


def test_distances():
    black, grey = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 51, np.uint8)
    assert psnr(black, black) == 100
    assert psnr(black, grey) == pytest.approx(20 * np.log10(255 / 51))
    assert lowest_tenth([30.0, 20.0, 40.0]) == 20
    assert lowest_tenth([float(n) for n in range(12)]) == 1
    assert forwards(CUTS, 20) == 2 * 18 - 1
    assert forwards(CUTS, 20, guided=False) == 18
    assert forwards(Shortcuts.make(cache="schedule", skip=range(20)), 20) == 2 * 3  # the ends


def fake_bench(quality, guided=True):
    """A bench whose clips are as near as a formula says."""

    def measured(steps, cuts, clips):
        run = forwards(cuts, steps, guided=guided)
        value = quality(run, clips)
        return Measured(steps=steps, shortcuts=cuts, psnr=value, low=value, worst=value, forwards=run)

    return SimpleNamespace(measured=measured, shots=[Shot(prompt="a", steps=20)] * 12, guided=guided)


def test_a_search_finds_the_fewest_computed_steps_that_are_near_enough():
    family = Family(20, 1, [0.1] * 20, [1 - j / 20 for j in range(21)])
    tried: dict = {}
    search(fake_bench(lambda run, _: 10 + run), family, "near", 2, tried)
    best = min((m for m in tried.values() if m.low >= 35), key=lambda m: m.forwards)
    assert best.forwards == 26  # the first even number from 25 on
    assert len(tried) <= 5  # bisected


def test_the_cheapest_is_confirmed_on_all_clips_or_the_next_is_taken():
    tried = {
        str(n): Measured(steps=n, shortcuts=Shortcuts.make(), psnr=36, low=36, worst=36, forwards=2 * n)
        for n in (6, 9, 14)
    }
    bench = fake_bench(lambda run, clips: 36.0 if run > 12 else 34.0)
    assert confirmed(bench, "near", tried).forwards == 18
    assert confirmed(fake_bench(lambda run, clips: 30.0), "near", tried) is None


def test_without_guidance_a_step_is_one_forward():
    tried = {
        str(n): Measured(steps=n, shortcuts=Shortcuts.make(), psnr=36, low=36, worst=36, forwards=n)
        for n in (14, 20, 30)
    }
    bench = fake_bench(lambda run, clips: 36.0 if run > 14 else 34.0, guided=False)
    assert confirmed(bench, "near", tried) is None, "20 of 20 forwards save nothing"


def test_a_family_is_searched_only_if_it_can_save():
    def family(steps: int, keep: int) -> Family:
        return Family(steps, keep, [0.1] * steps, [1 - j / steps for j in range(steps + 1)])

    assert family(20, 1).saves(40, True)
    assert family(20, 1).saves(20, False)
    assert not family(20, 2).saves(20, False), "there is nothing to reuse"
    assert family(5, 2).saves(10, True)
    assert not family(5, 1).saves(10, True)


@pytest.mark.parametrize("steps", [4, 5])
def test_settings_that_leave_nothing_to_be_saved_are_refused(small, steps):
    model = kinema.load(str(small), device="cpu")
    shot = Shot(model=model.card.id, steps=steps, frames=5, size="64x64", guidance=1)
    with pytest.raises(ConfigError, match="leave nothing to be saved"):
        calibrate(shot, ["a fox"], model)


def test_a_small_model_without_guidance_is_measured_by_its_own_forwards(small):
    model = kinema.load(str(small), device="cpu")
    shot = Shot(model=model.card.id, steps=8, frames=5, size="64x64", seed=0, guidance=1, device="cpu")
    found = calibrate(shot, ["a fox"], model, probes=1, kinds=((1.0, 1), (1.0, 2)))
    assert found.forwards == 8
    assert all(m.forwards == 8 - len(m.shortcuts.skip) and not m.shortcuts.reuse for m in found.others)
    assert all(tier.forwards < 8 for tier in found.tiers.values())


def test_skipped_steps_of_a_family_with_reuse_ask_for_neither_side():
    family = Family(20, 2, [0.1] * 20, [1 - j / 20 for j in range(21)])
    cuts = family.member(14)
    assert set(cuts.skip) < set(cuts.reuse)
    computed = [j for j in range(4, 20) if j not in cuts.skip]
    assert len(set(cuts.reuse) & set(computed)) == len(computed) // 2
    assert min(cuts.reuse) >= 2


def test_a_small_model_is_measured_whole(small, monkeypatch):
    monkeypatch.setattr(measure, "FAMILIES", ((1.0, 1), (0.5, 1)))
    monkeypatch.setattr(measure, "THRESHOLDS", {"first-block": (5.0,), "magnitude": (0.3,)})
    model = kinema.load(str(small), device="cpu")
    said: list[str] = []
    shot = Shot(model=model.card.id, steps=12, frames=5, size="64x64", seed=0, device="cpu")
    found = calibrate(shot, ["a fox", "an owl"], model, probes=1, published=True, say=said.append)
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert (found.forwards, found.clips, found.conditions.steps) == (24, 2, 12)
    assert {m.steps for m in found.others} == {6, 12}
    assert len(said) >= len(found.others)
    for name, tier in found.tiers.items():
        assert tier.reaches(name)
    assert any(m.shortcuts.cache == "first-block" and m.forwards < 24 for m in found.others)


def test_time_belongs_to_the_phase_that_it_led_to():
    from kinema.core.contracts import Progress

    ticks = iter([0.0, 1.0, 3.0, 3.5, 7.0])
    seen = []
    watch = Stopwatch(seen.append, clock=lambda: next(ticks))
    for phase in ("load", "denoise", "denoise", "decode"):
        watch(Progress(phase, 1, 1))
    assert watch.seconds == {"load": 1.0, "denoise": 2.5, "decode": 3.5}
    assert len(seen) == 4
