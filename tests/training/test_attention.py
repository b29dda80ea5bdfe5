"""Attention a sample at a time: the definition, forwards and backwards."""

from __future__ import annotations

import pytest
import torch

from kinema.models import attention
from kinema.training import attention as training_attention
from kinema.training.attention import LARGE, NAME, attend_by_samples, by_samples

SHAPE = (2, 8, 320, 8)  # B H N E: enough logits for the sample-wise way


def drawn(shape, seed, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return (
        x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    )  # heads inside, as projections give


def both_ways(form, dtype, bias=None):
    q, k, v = (drawn(SHAPE, seed, dtype) for seed in range(3))
    out = form(q, k, v, bias)
    out.backward(drawn(SHAPE, 9, torch.float32).detach().to(out.dtype))
    return [x.detach().double() for x in (out, q.grad, k.grad, v.grad)]


@pytest.mark.parametrize("block", [LARGE // 3, 2**20])  # of a sample's logits, and all of them
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_it_is_attention_and_its_gradients(monkeypatch, dtype, tolerance, block):
    monkeypatch.setattr(training_attention, "BLOCK", block)
    assert SHAPE[1] * SHAPE[2] ** 2 >= LARGE
    true = both_ways(attention.by_definition, torch.float64)
    for found, wanted in zip(both_ways(by_samples, dtype), true, strict=True):
        assert (found - wanted).norm() < tolerance * wanted.norm()


def test_keys_of_another_number():
    q, k, v = (drawn((2, 8, n, 8), seed, torch.float32) for n, seed in ((320, 0), (260, 1), (260, 2)))
    out = by_samples(q, k, v, None)
    torch.testing.assert_close(out, attention.by_definition(q, k, v, None))


def test_biases_are_not_lost():
    bias = torch.zeros(2, 320)
    bias[:, 100:] = -torch.inf
    with_bias = both_ways(by_samples, torch.float32, bias)
    for found, wanted in zip(with_bias, both_ways(attention.by_definition, torch.float32, bias), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_training_takes_it(monkeypatch):
    monkeypatch.setattr(attention, "CHOSEN", {})
    monkeypatch.setattr(attention, "FORMS", dict(attention.FORMS))
    monkeypatch.setattr("kinema.training.attention.CHOSEN", attention.CHOSEN)
    monkeypatch.setattr("kinema.training.attention.FORMS", attention.FORMS)
    attend_by_samples()
    assert attention.CHOSEN == {attention.CPU_HALF: (NAME,)}
    q = drawn(SHAPE, 0, torch.bfloat16)
    assert "SampleAttention" in type(attention.attend(q, q, q).grad_fn).__name__
