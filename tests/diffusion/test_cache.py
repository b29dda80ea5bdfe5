"""Step caches and reused guidance: what is computed, what is carried on, what a resumed run remembers."""

import json

import pytest
import safetensors.torch
import torch
from flows import free, mixed, noise

from kinema.core.errors import ConfigError
from kinema.diffusion.cache import CacheRule, StepCache
from kinema.diffusion.carry import LASTING, Carry
from kinema.diffusion.flow import sigmas
from kinema.diffusion.guidance import ClassifierFree, Guided
from kinema.diffusion.reuse import Reused
from kinema.diffusion.sampler import SamplerState, sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.state import pack, unpack
from kinema.diffusion.step import Step

STEPS = 8


class Stages:
    """Three blocks: tokens grow by 1, then by what `rest` says; the velocity is the tokens."""

    def __init__(self, texts=1, rest=10.0, front=1.0, transformer=0):
        self.texts, self.rest, self.front, self.transformer = texts, rest, front, transformer
        self.ran = []

    def embed(self):
        return [torch.full((1, 4, 2), float(k)) for k in range(self.texts)]

    def blocks(self, x, first, last):
        for k in x:
            self.ran.append((k, first, last))
        add = self.front if last == 1 else self.rest + (self.front if first == 0 else 0)
        return {k: tokens + add for k, tokens in x.items()}

    def finish(self, number, x):
        return x[0, 0, 0]


def step(index, sigma=None, moving=2, stage=0):
    level = 1 - index / STEPS if sigma is None else sigma
    sigma_BT = torch.tensor([[level] * moving + [0.0] * (2 - moving)])
    return Step(index, STEPS, stage, sigma_BT)


def ask(cache, stages, at, keys=("cond.0",)):
    stages.ran.clear()
    found = cache(stages, at, list(keys))
    return [float(v) for v in found], [k for k, first, _ in stages.ran if first == cache.rule.front]


def test_a_skipped_step_adds_the_residual_of_the_last_computed_one_to_its_own_tokens():
    cache = StepCache(CacheRule(skips=frozenset({3}), order=0, warmup=1), Carry())
    assert ask(cache, Stages(2, rest=10), step(2), ("cond.0", "uncond.0")) == ([11.0, 12.0], [0, 1])
    assert ask(cache, Stages(2, rest=99), step(3), ("cond.0", "uncond.0")) == ([11.0, 12.0], [])
    assert ask(cache, Stages(2, rest=20), step(4), ("cond.0", "uncond.0")) == ([21.0, 22.0], [0, 1])
    assert cache.carry.counts == (0, 2, 0)


def test_order_1_carries_a_residual_that_moves_with_the_level_on():
    cache = StepCache(CacheRule(skips=frozenset({4, 5}), warmup=1), Carry())
    for index in (2, 3, 4, 5):
        level = 1 - index / STEPS
        (found,), ran = ask(cache, Stages(rest=7 + 3 * level), step(index))
        assert found == pytest.approx(8 + 3 * level)
        assert bool(ran) == (index < 4)


def test_the_ends_are_computed_whatever_the_schedule_says():
    cache = StepCache(CacheRule(skips=frozenset(range(STEPS)), warmup=2, final=1), Carry())
    ran = [bool(ask(cache, Stages(), step(index))[1]) for index in range(STEPS)]
    assert ran == [True, True, False, False, False, False, False, True]


def test_a_row_of_skipped_steps_ends_even_where_the_first_block_does_not_change():
    rule = CacheRule(kind="first-block", threshold=0.5, most=2, warmup=2, final=1)
    cache = StepCache(rule, Carry())
    ran = [bool(ask(cache, Stages(), step(index))[1]) for index in range(STEPS)]
    assert ran == [True, True, False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("stages", "at", "key"),
    [
        (Stages(transformer=1), step(3), "cond.0"),
        (Stages(), step(3, moving=1), "cond.0"),
        (Stages(), step(3), "uncond.0"),
        (Stages(), step(3, stage=1), "cond.0"),
    ],
    ids=["another transformer", "other frames move", "another side", "another stage"],
)
def test_a_memory_of_something_else_is_not_used(stages, at, key):
    cache = StepCache(CacheRule(skips=frozenset({3}), warmup=1), Carry())
    ask(cache, Stages(), step(2))
    assert ask(cache, stages, at, (key,))[1] == [0]


def test_the_first_block_says_whether_the_rest_is_computed():
    cache = StepCache(CacheRule(kind="first-block", threshold=0.1, order=0, warmup=1), Carry())
    assert ask(cache, Stages(front=1.0, rest=10), step(2)) == ([11.0], [0])
    assert ask(cache, Stages(front=1.05, rest=99), step(3)) == ([pytest.approx(11.05)], [])
    assert ask(cache, Stages(front=1.15, rest=20), step(4)) == ([pytest.approx(21.15)], [0])  # from step 2


def test_frames_that_are_held_do_not_count_in_the_change():
    cache = StepCache(CacheRule(kind="first-block", threshold=0.1, order=0, warmup=1), Carry())

    class Halves(Stages):
        def blocks(self, x, first, last):
            out = super().blocks(x, first, last)
            if last == 1:  # only the second frame's tokens move, and it is held
                out = {
                    k: tokens + torch.tensor([0, 0, self.rest, self.rest])[None, :, None]
                    for k, tokens in out.items()
                }
            return out

    ask(cache, Halves(rest=0.0), step(2, moving=1))
    assert ask(cache, Halves(rest=50.0), step(3, moving=1))[1] == []


def test_a_residual_that_is_not_finite_is_forgotten():
    cache = StepCache(CacheRule(skips=frozenset({3}), warmup=1), Carry())
    ask(cache, Stages(rest=torch.inf), step(2))
    assert ask(cache, Stages(), step(3))[1] == [0]


def test_rules_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="order=2"):
        CacheRule(order=2)
    with pytest.raises(ConfigError, match="threshold=0"):
        CacheRule(threshold=0)


# Guidance


def sides(x, step, names):
    velocity = mixed(x, step)
    return {name: velocity * {"cond": 1.2, "uncond": 1.0}[name] for name in names}


def guided(carry, steps, asked=None):
    def predict(x, step, names):
        if asked is not None:
            asked.append((step.index, names))
        return sides(x, step, names)

    return Guided(predict, Reused(ClassifierFree(scale=3.0), frozenset(steps), carry))


def test_reused_steps_ask_for_one_side_and_act_along_the_last_difference():
    asked, carry = [], Carry()
    velocity, x = guided(carry, {2, 3}, asked), noise(2)
    found = {index: velocity(x + index, step(index)) for index in (1, 2, 3, 4)}
    assert asked == [(1, ("cond", "uncond")), (2, ("cond",)), (3, ("cond",)), (4, ("cond", "uncond"))]
    difference = 0.2 * mixed(x + 1, step(1))
    expected = 1.2 * mixed(x + 3, step(3)) + 2 * difference
    torch.testing.assert_close(found[3], expected)
    torch.testing.assert_close(found[4], 1.6 * mixed(x + 4, step(4)))
    assert carry.counts == (8, 0, 2)


def test_the_first_step_has_nothing_to_reuse():
    asked = []
    guided(Carry(), range(STEPS), asked)(noise(2), step(0))
    assert asked == [(0, ("cond", "uncond"))]


def test_a_difference_of_another_transformer_is_not_reused():
    """Where two share the noise levels, the second one's first step computes its own."""
    asked, carry = [], Carry()

    def predict(x, step, names):
        asked.append((step.index, names))
        return sides(x, step, names)

    rule = Reused(
        ClassifierFree(scale=3.0), frozenset({2, 3, 4, 5}), carry, transformer=lambda at: at.index > 3
    )
    velocity = Guided(predict, rule)
    for index in (1, 2, 3, 4, 5):
        velocity(noise(2), step(index))
    assert [names for _, names in asked] == [
        ("cond", "uncond"),
        ("cond",),
        ("cond",),
        ("cond", "uncond"),
        ("cond",),
    ]


def test_nothing_is_kept_that_no_step_will_reuse():
    carry = Carry()
    guided(carry, ())(noise(2), step(1))
    assert not any(name.startswith("guidance") for name in carry.tensors)


@pytest.mark.parametrize("later", [2 + LASTING + 1, 0], ids=["moved on", "next turn"])
def test_a_window_that_comes_no_more_is_forgotten(later):
    """Else a long clip, of very many windows, is remembered whole."""
    carry = Carry()
    cache = StepCache(CacheRule(skips=frozenset({3, 4}), order=0), carry)
    reused = [Reused(ClassifierFree(scale=3.0), frozenset({7}), carry, window) for window in "ab"]
    ask(cache, Stages(), step(2), ("a/cond.0",))
    Guided(sides, reused[0])(noise(2), step(2))
    assert ask(cache, Stages(), step(3), ("b/cond.0",))[1], "b's first is computed"
    assert not ask(cache, Stages(), step(4), ("a/cond.0",))[1], "a's is carried on"
    kept = {name for name in carry.tensors if "/a/" in name}
    assert {"cache/a/cond.0/0/residual", "guidance/a/0/0"} <= kept
    later = later and later + 2
    ask(cache, Stages(), step(later), ("b/cond.0",))
    Guided(sides, reused[1])(noise(2), step(later))
    assert not [name for name in carry.tensors if "/a/" in name]
    assert "guidance/b/0/0" in carry.tensors or later > 7


# A run that is cut off


def test_a_resumed_run_decides_and_ends_as_the_whole_one(tmp_path):
    x, grid, reuse = noise(), free(sigmas(STEPS, 2.0), noise()), {2, 3, 5, 6}
    carry, states = Carry(), []
    kept = lambda s: states.append(SamplerState(s.index, s.x_BCTYX, s.solver, carried=dict(carry.tensors)))  # noqa: E731
    whole = sample(guided(carry, reuse), x, grid, solver("unipc"), on_state=kept)
    tensors, facts = pack(states[2], solver("unipc"))
    copies = safetensors.torch.load(safetensors.torch.save({k: t.contiguous() for k, t in tensors.items()}))
    state = unpack(copies, json.loads(json.dumps(facts)), solver("unipc"))
    asked, again = [], Carry(dict(state.carried))
    ended = sample(
        guided(again, reuse, asked),
        state.x_BCTYX,
        grid,
        solver("unipc"),
        start=state.index,
        state=state.solver,
    )
    assert asked[0] == (3, ("cond",))
    assert torch.equal(ended, whole)
    assert again.counts == carry.counts
