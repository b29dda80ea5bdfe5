"""Guidance rules: their formulas, their identities, and the forwards they save."""

from dataclasses import replace

import pytest
import torch
from flows import at, noise
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.diffusion.guidance import AdaptiveProjected, CFGZero, ClassifierFree, Guided, SkipLayer

C, U, K = noise(seed=1), noise(seed=2), noise(seed=3)
PAIR = {"cond": C, "uncond": U}
RULES = [ClassifierFree, lambda **o: CFGZero(zero_steps=0, **o), AdaptiveProjected]
LEVELS = torch.tensor([[0.9, 0.5, 0.1]])
EQUAL = torch.full((1, 3), 0.9)
STEP = at(3, 10, LEVELS)


def dot(first, second):
    return (first.double() * second.double()).sum()


@given(st.floats(0, 12), st.integers(0, 99))
def test_classifier_free_is_the_extrapolation(scale, seed):
    c, u = noise(seed=seed), noise(seed=seed + 100)
    v = ClassifierFree(scale=scale).combine({"cond": c, "uncond": u}, STEP)
    torch.testing.assert_close(v, u + scale * (c - u), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_scale_one_is_the_prompt_alone_and_costs_one_forward(rule):
    assert rule(scale=1.0).plan(STEP) == ("cond",)
    assert torch.equal(rule(scale=1.0).combine({"cond": C}, STEP), C)
    assert torch.equal(rule(scale=1.0).combine(PAIR, STEP), C)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_frames_at_scale_one_get_the_prompt_alone(rule, rescale):
    scale_BT = torch.tensor([[1.0, 4.0, 1.0]])
    guidance = rule(scale=scale_BT, rescale=rescale)
    v = guidance.combine(PAIR, STEP)
    assert guidance.plan(STEP) == ("cond", "uncond")
    assert torch.equal(v[:, :, [0, 2]], C[:, :, [0, 2]])
    assert not torch.allclose(v[:, :, 1], C[:, :, 1])


def test_scale_may_change_over_steps_and_frames():
    scale_SBT = torch.ones(10, 1, 3)
    scale_SBT[4, 0, 1] = 3.0
    guidance = ClassifierFree(scale=scale_SBT)
    assert [len(guidance.plan(at(i, 10, LEVELS))) for i in (3, 4, 5)] == [1, 2, 1]
    v = guidance.combine(PAIR, at(4, 10, LEVELS))
    torch.testing.assert_close(v[:, :, 1], U[:, :, 1] + 3 * (C - U)[:, :, 1])


def test_the_interval_is_judged_frame_by_frame():
    guidance = ClassifierFree(scale=4.0, interval=(0.3, 0.9))
    v = guidance.combine(PAIR, STEP)
    torch.testing.assert_close(v[:, :, :2], (U + 4 * (C - U))[:, :, :2])
    assert torch.equal(v[:, :, 2], C[:, :, 2])
    assert guidance.plan(at(0, 10, torch.full((1, 3), 0.95))) == ("cond",)


@pytest.mark.parametrize("rule", RULES)
def test_a_held_frame_asks_for_no_forward(rule):
    """Its level, 0, is inside every interval that begins there; what it is given is thrown away."""
    held, guidance = torch.tensor([[0, 0.95, 0.95]]), rule(scale=4.0, interval=(0.0, 0.8))
    assert guidance.plan(at(1, 10, held)) == ("cond",)
    assert SkipLayer(base=guidance, interval=(0.0, 0.8)).plan(at(1, 10, held)) == ("cond",)
    later = at(5, 10, torch.tensor([[0, 0.95, 0.5]]))
    assert SkipLayer(base=guidance, interval=(0.0, 0.8)).plan(later) == ("cond", "uncond", "skip")
    alone, both = guidance.combine({"cond": C}, at(1, 10, held)), guidance.combine(PAIR, at(1, 10, held))
    assert torch.equal(alone[:, :, 1:], both[:, :, 1:])
    assert guidance.plan(at(1, 10, torch.zeros(1, 3))) == ("cond", "uncond"), "none moves"


@pytest.mark.parametrize("rescale", [0.0, 0.7])
@pytest.mark.parametrize("rule", [*RULES, lambda **o: AdaptiveProjected(norm_limit=2.0, **o)])
def test_what_is_predicted_for_held_frames_decides_nothing(rule, rescale):
    """The others get what they would get alone, in a batch whose entries hold different frames."""
    levels = torch.tensor([[0, 0.9, 0.5], [0.9, 0.5, 0.1]])
    c, u = torch.cat([C, K]), torch.cat([U, C])
    c[0, :, 0], u[0, :, 0] = 40 * K[0, :, 0], 30.0
    guidance = rule(scale=4.0, rescale=rescale)
    v = guidance.combine({"cond": c, "uncond": u}, at(3, 10, levels))
    alone = guidance.combine({"cond": c[:1, :, 1:], "uncond": u[:1, :, 1:]}, at(3, 10, levels[:1, 1:]))
    torch.testing.assert_close(v[:1, :, 1:], alone, atol=1e-5, rtol=1e-5)
    free = guidance.combine({"cond": c[1:], "uncond": u[1:]}, at(3, 10, levels[1:]))
    torch.testing.assert_close(v[1:], free, atol=1e-5, rtol=1e-5)


def test_rescale_zero_changes_nothing_and_one_restores_the_deviation():
    plain = ClassifierFree(scale=7.0).combine(PAIR, STEP)
    full = ClassifierFree(scale=7.0, rescale=1.0).combine(PAIR, STEP)
    half = ClassifierFree(scale=7.0, rescale=0.5).combine(PAIR, STEP)
    assert full.std().item() == pytest.approx(C.std().item(), rel=1e-5)
    assert plain.std() > half.std() > full.std()
    torch.testing.assert_close(full / plain, (full / plain).mean().expand_as(full))


def test_rescale_is_the_papers_blend():
    plain = ClassifierFree(scale=7.0).combine(PAIR, STEP)
    deviation = [x.std(dim=[1, 2, 3, 4], keepdim=True) for x in (C, plain)]
    theirs = 0.7 * plain * (deviation[0] / deviation[1]) + 0.3 * plain
    torch.testing.assert_close(ClassifierFree(scale=7.0, rescale=0.7).combine(PAIR, STEP), theirs)


def test_cfg_zero_star_is_its_formula():
    fit = (dot(C, U) / dot(U, U)).float()
    v = CFGZero(scale=5.0, zero_steps=0).combine(PAIR, STEP)
    torch.testing.assert_close(v, fit * U + 5 * (C - fit * U), atol=1e-5, rtol=1e-5)


def test_cfg_zero_star_ignores_the_size_of_the_negative_prediction():
    rule = CFGZero(scale=5.0, zero_steps=0)
    bigger = rule.combine({"cond": C, "uncond": 3 * U}, STEP)
    torch.testing.assert_close(bigger, rule.combine(PAIR, STEP), atol=1e-5, rtol=1e-4)


def test_cfg_zero_star_fits_each_batch_entry_alone():
    c, u = torch.cat([C, K]), torch.cat([U, C])
    step = at(3, 10, LEVELS.expand(2, 3))
    rule = CFGZero(scale=3.0)
    both = rule.combine({"cond": c, "uncond": u}, step)
    torch.testing.assert_close(both[1:], rule.combine({"cond": K, "uncond": C}, STEP))


def test_zero_steps_run_no_forward_at_all():
    asked = []

    def predict(x, step, names):
        asked.append((step.index, names))
        return PAIR

    guided = Guided(predict, CFGZero(scale=5.0, zero_steps=2))
    assert all(torch.equal(guided(C, at(i, 5, EQUAL)), torch.zeros_like(C)) for i in (0, 1))
    guided(C, at(2, 5, EQUAL))
    assert asked == [(2, ("cond", "uncond"))]


def test_zero_steps_are_guided_steps_before_others():
    first = at(0, 2, EQUAL)
    assert CFGZero(scale=5.0).plan(first) == ()
    assert CFGZero(scale=5.0).plan(at(0, 1, EQUAL)) == ("cond", "uncond"), "nothing would take the noise away"
    assert CFGZero(scale=1.0).plan(first) == ("cond",), "without guidance it is no rule at all"
    assert CFGZero(scale=5.0, interval=(0, 0.05)).plan(first) == ("cond",)


def test_only_guided_frames_that_begin_in_noise_stand_still():
    """A keyframe of little strength begins below the others, and a frame at scale 1 is not guided."""
    first = at(0, 10, torch.tensor([[1.0, 1.0, 0.9]]))
    rule = CFGZero(scale=torch.tensor([[5.0, 1.0, 5.0]]))
    assert rule.plan(first) == ("cond", "uncond")
    v, plain = rule.combine(PAIR, first), replace(rule, zero_steps=0).combine(PAIR, first)
    assert torch.equal(v[:, :, 0], torch.zeros_like(C[:, :, 0]))
    assert torch.equal(v[:, :, 1], C[:, :, 1])
    assert torch.equal(v[:, :, 2], plain[:, :, 2])
    assert CFGZero(scale=torch.tensor([[5.0, 1.0, 1.0]])).plan(first) == ("cond",), "what stands asks nothing"
    away = SkipLayer(base=rule).combine({**PAIR, "skip": K}, first)
    assert torch.equal(away[:, :, 0], v[:, :, 0]), "what stands is not led away either"
    assert not torch.equal(away[:, :, 2], v[:, :, 2])


@pytest.mark.parametrize("scale", [0.5, 3.0, 9.0])
def test_apg_with_eta_one_and_no_clip_is_plain_guidance(scale):
    plain = ClassifierFree(scale=scale).combine(PAIR, STEP)
    torch.testing.assert_close(
        AdaptiveProjected(scale=scale, eta=1.0).combine(PAIR, STEP), plain, atol=1e-5, rtol=0
    )


def test_apg_adds_nothing_along_the_prompts_prediction():
    v = AdaptiveProjected(scale=8.0).combine(PAIR, STEP)
    assert dot(v - C, C).item() == pytest.approx(0, abs=1e-3)
    assert dot(v - C, v - C) > 1
    parallel = {"cond": C, "uncond": 0.4 * C}
    torch.testing.assert_close(AdaptiveProjected(scale=8.0).combine(parallel, STEP), C, atol=1e-5, rtol=0)


@pytest.mark.parametrize("limit", [0.5, 4.0, 1e6])
def test_apg_clips_the_direction_not_the_result(limit):
    v = AdaptiveProjected(scale=3.0, eta=1.0, norm_limit=limit).combine(PAIR, STEP)
    free = (C - U).norm().item()
    assert ((v - C).norm() / 2).item() == pytest.approx(min(limit, free), rel=1e-4)


def test_skip_layer_pushes_away_from_the_weaker_network_inside_its_interval():
    rule = SkipLayer(base=ClassifierFree(scale=4.0), scale=2.0, interval=(0.4, 1.0))
    assert rule.plan(STEP) == ("cond", "uncond", "skip")
    v = rule.combine({**PAIR, "skip": K}, STEP)
    plain = ClassifierFree(scale=4.0).combine(PAIR, STEP)
    torch.testing.assert_close(v[:, :, :2], (plain + 2 * (C - K))[:, :, :2])
    assert torch.equal(v[:, :, 2], plain[:, :, 2])
    assert rule.plan(at(9, 10, torch.full((1, 3), 0.2))) == ("cond", "uncond")
    assert SkipLayer(base=CFGZero()).plan(at(0, 10, EQUAL)) == ()


@pytest.mark.parametrize("options", [{"interval": (0.8, 0.2)}, {"interval": (0, 2)}, {"rescale": 1.5}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="in 0"):
        ClassifierFree(**options)
