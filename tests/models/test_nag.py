"""Normalized attention guidance and skipped blocks: the formula, and one result by every way of running."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.contracts import AttentionGuidance
from kinema.models import inference
from kinema.models.experts import Experts
from kinema.models.inference import for_inference
from kinema.models.nag import away
from kinema.models.stages import FastStages, PlainStages
from tiny_transformers import TINY, VARIANTS, gap, latents, lively, texts

BY = AttentionGuidance(scale=5.0, tau=1.5, alpha=0.5)


def reads(seed: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


@given(scale=st.floats(1, 20), tau=st.floats(0.1, 10), alpha=st.floats(0, 1))
def test_it_is_the_papers_rule_token_by_token(scale, tau, alpha):
    plus, minus = reads(1), reads(2)
    got = away(plus, minus, AttentionGuidance(scale=scale, tau=tau, alpha=alpha))
    for b in range(2):
        for n in range(4):
            p, m = plus[b, :, n].double().flatten(), minus[b, :, n].double().flatten()
            led = p + (scale - 1) * (p - m)
            ratio = led.abs().sum() / p.abs().sum()
            led = led / ratio * min(float(ratio), tau)
            wanted = alpha * led + (1 - alpha) * p
            torch.testing.assert_close(got[b, :, n].double().flatten(), wanted, rtol=1e-4, atol=1e-5)


def test_nothing_to_lead_away_from_changes_nothing():
    plus = reads(1)
    assert torch.equal(away(plus, reads(2), replace(BY, alpha=0.0)), plus)
    torch.testing.assert_close(away(plus, reads(2), replace(BY, scale=1.0)), plus)
    torch.testing.assert_close(away(plus, plus, BY), plus)
    assert away(torch.zeros_like(plus), torch.zeros_like(plus), BY).eq(0).all()
    assert away(plus.half(), reads(2).half(), BY).dtype == torch.float16


def told(dit, config):
    """Texts led away from others, texts to fewer blocks, plain ones; as one transformer reads them."""
    torch.manual_seed(5)
    plain, other, negative = (texts(config, L=length) for length in (9, 4, 6))
    led = replace(plain, negative=negative, by=BY)
    contexts = (dit.prepare(led), dit.prepare(other).skipping(frozenset({0, 2})), dit.prepare(plain))
    return contexts, (plain, negative)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("variant", ["t2v", "i2v", "pooled"])
def test_every_way_of_running_gives_the_plain_numbers(variant, together, monkeypatch):
    monkeypatch.setattr(inference, "TOGETHER_TOKENS", 10**6 if together else 0)
    config = VARIANTS[variant]
    dit = lively(config)
    contexts, _ = told(dit, config)
    x, time_BT = latents(config), torch.tensor([[0.0, 700.0, 700.0]])
    plain = [dit(x, time_BT, context) for context in contexts]
    assert all(gap(one, other) > 1e-2 for i, one in enumerate(plain) for other in plain[:i])
    fast = for_inference(dit)
    for got, wanted in zip(fast.several(x, time_BT, contexts), plain, strict=True):
        assert gap(got, wanted) <= 1e-5
    for stages in (PlainStages(dit, x, time_BT, contexts, 0), FastStages(fast, x, time_BT, contexts, 0)):
        tokens = stages.blocks(stages.blocks(dict(enumerate(stages.embed())), 0, 1), 1, None)
        for k, wanted in enumerate(plain):
            assert gap(stages.finish(k, tokens[k]), wanted) <= 1e-5


def test_a_skipped_block_is_as_if_it_were_not_there():
    dit = lively(TINY)
    contexts, _ = told(dit, TINY)
    x, time_BT = latents(TINY), torch.full((1, 3), 500.0)
    skipping = dit(x, time_BT, contexts[1])
    less = contexts[1]
    dit.blocks = torch.nn.ModuleList([dit.blocks[1]])
    alone = replace(less, keys=less.keys[1:2], values=less.values[1:2], skipped=frozenset())
    assert torch.equal(skipping, dit(x, time_BT, alone))


def test_prepared_at_once_or_led_later_is_the_same_over_frames_and_experts():
    weights = torch.tensor([[[1.0, 0.0], [0.3, 0.7], [0.0, 1.0]]])
    experts = Experts(lively(TINY, 1), lively(TINY, 2), boundary=0.9)
    torch.manual_seed(5)
    plain, negative = (
        texts(TINY, K=2, weights_BTK=weights),
        texts(TINY, K=2, L=5, weights_BTK=weights.flip(2)),
    )
    later = experts.prepare(plain).led(experts.prepare(negative), BY)
    at_once = experts.prepare(replace(plain, negative=negative, by=BY))
    x, frames = latents(TINY), [1, 2]
    for time in (950.0, 300.0):
        time_BT = torch.full((1, 3), time)
        wanted = experts(x, time_BT, at_once)
        assert torch.equal(experts(x, time_BT, later), wanted)
        assert gap(for_inference(experts).several(x, time_BT, [later])[0], wanted) <= 1e-5
        part = experts(x[:, :, frames], time_BT[:, frames], at_once.at(frames))
        cut = experts.prepare(replace(plain, negative=negative, by=BY).at(frames))
        assert torch.equal(part, experts(x[:, :, frames], time_BT[:, frames], cut))
