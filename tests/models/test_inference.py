"""The transformer made ready for inference: the numbers of the plain one, and of diffusers."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from kinema.models import inference, linears
from kinema.models.condense import condense, merged
from kinema.models.dit import Conditioning, Context, VideoDiT, VideoDiTConfig
from kinema.models.experts import Experts
from kinema.models.inference import InferenceDiT, OneByOne, for_inference
from kinema.models.lora import Worn, fit, shapes_of, wearing
from kinema.models.lora_file import read_lora
from tiny_transformers import TINY, VARIANTS, gap, latents, lively, texts

TIMES = {
    "one level": [[700.0, 700.0, 700.0]],
    "held frame": [[0.0, 700.0, 700.0]],
    "every frame its own": [[10.0, 300.0, 900.0]],
}


def sides(dit: VideoDiT, config: dict, **given: int) -> tuple[Context, ...]:
    """Two texts of different lengths, one of them with hidden and weighted tokens."""
    bias = torch.zeros(given.get("batch", 1), given.get("K", 1), 9)
    bias[..., -1], bias[..., 2] = -torch.inf, 0.5
    return (
        dit.prepare(texts(config, **given, bias_BKL=bias)),
        dit.prepare(texts(config, **given, L=4)),
    )


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_plain_transformer(variant, times, copies):
    config, time_BT = VARIANTS[variant], torch.tensor(TIMES[times])
    dit = lively(config)
    x, contexts = latents(config), sides(dit, config)
    fast = for_inference(dit, copies=copies, timesteps=[700.0, 300.0])
    assert isinstance(fast, InferenceDiT)
    for got, context in zip(fast.several(x, time_BT, contexts), contexts, strict=True):
        assert gap(got, dit(x, time_BT, context)) <= 1e-5


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("variant", ["t2v", "pooled", "skip"])
def test_batches_of_texts_and_clips_keep_to_themselves(variant, together, monkeypatch):
    monkeypatch.setattr(inference, "TOGETHER_TOKENS", 10**6 if together else 0)
    config = VARIANTS[variant]
    dit = lively(config)
    x, time_BT = latents(config, 2), torch.tensor([[700.0, 500.0, 700.0], [0.0, 20.0, 900.0]])
    contexts = sides(dit, config, batch=2)
    for got, context in zip(for_inference(dit).several(x, time_BT, contexts), contexts, strict=True):
        assert gap(got, dit(x, time_BT, context)) <= 1e-5


@pytest.mark.parametrize("together", [True, False])
def test_prompts_mixed_over_frames(together, monkeypatch):
    monkeypatch.setattr(inference, "TOGETHER_TOKENS", 10**6 if together else 0)
    weights = torch.tensor([[[1.0, 0.0], [0.3, 0.7], [0.0, 1.0]]])
    for config in (TINY, VARIANTS["pooled"], VARIANTS["skip"]):
        dit = lively(config)
        travel = dit.prepare(replace(texts(config, K=2), weights_BTK=weights))
        contexts = (travel, dit.prepare(texts(config, L=3)))
        x, time_BT = latents(config), torch.full((1, 3), 400.0)
        for got, context in zip(for_inference(dit).several(x, time_BT, contexts), contexts, strict=True):
            assert gap(got, dit(x, time_BT, context)) <= 1e-5


@pytest.mark.parametrize("variant", ["t2v", "i2v"])
def test_equals_diffusers_on_texts_padded_to_512(variant):
    from diffusers import WanTransformer3DModel

    config = VARIANTS[variant]
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(**config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
    ours = VideoDiT(VideoDiTConfig.from_mapping(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    fast = for_inference(ours)
    assert isinstance(fast, InferenceDiT)
    x, image = latents(config), torch.randn(1, 7, 32) if variant == "i2v" else None
    padded = torch.cat([torch.randn(1, 11, 32), torch.zeros(1, 501, 32)], dim=1)
    empty = torch.cat([torch.randn(1, 1, 32), torch.zeros(1, 511, 32)], dim=1)
    contexts = [
        fast.prepare(Conditioning(states_BKLD=states[:, None], image_BND=image)) for states in (padded, empty)
    ]
    assert [c.keys[0].shape[3] for c in contexts] == [12, 2]
    got = fast.several(x, torch.full((1, 3), 321.0), contexts)
    with torch.no_grad():
        for states, v in zip((padded, empty), got, strict=True):
            expected = theirs(x, torch.tensor([321.0]), states, image).sample
            assert gap(v, expected) <= 1e-5


def test_blocks_can_be_run_in_parts():
    dit = lively(TINY)
    x, time_BT, contexts = latents(TINY), torch.full((1, 3), 400.0), sides(dit, TINY)
    fast = for_inference(dit)
    tokens_BND, tokens = fast.embed(x, time_BT, contexts)
    first = fast.trunk(tokens_BND, tokens, contexts, stop=1)
    assert first.shape[0] == 2
    out = fast.unembed(fast.trunk(first, tokens, contexts, start=1), tokens)
    assert torch.equal(out, torch.cat(fast.several(x, time_BT, contexts)))


def test_without_onednn_the_numbers_stay(monkeypatch):
    dit = lively(TINY)
    x, time_BT, contexts = latents(TINY), torch.full((1, 3), 400.0), sides(dit, TINY)
    monkeypatch.setattr(linears, "onednn_works", lambda dtype: False)
    for got, context in zip(for_inference(dit).several(x, time_BT, contexts), contexts, strict=True):
        assert gap(got, dit(x, time_BT, context)) <= 1e-5


def test_onednn_that_computes_wrong_is_not_used(monkeypatch):
    linears.onednn_works.cache_clear()
    monkeypatch.setattr(linears.Product, "__call__", lambda self, x, gelu=False: x.new_zeros(2, 5, 16))
    assert not linears.onednn_works(torch.float32)
    linears.onednn_works.cache_clear()


def test_half_precision_is_no_further_off_than_the_plain_transformer():
    exact = lively(TINY)
    half = lively(TINY)
    for name, p in half.named_parameters():
        if not any(part in name for part in ("time_embedder", "scale_shift_table", "norm2")):
            p.data = p.data.bfloat16()
    x, time_BT = latents(TINY), torch.full((1, 3), 400.0)
    given = texts(TINY)
    truth = exact(x, time_BT, exact.prepare(given))
    fast = for_inference(half)
    assert isinstance(fast, InferenceDiT)
    plain = half(x, time_BT, half.prepare(given)).float()
    got = fast(x, time_BT, fast.prepare(given)).float()
    assert gap(got, truth) < 0.1
    assert (got - truth).square().mean() <= (plain - truth).square().mean()


def lora(folder, merge: bool, scale: tuple[float, ...]):
    """Every kind of layer that a LoRA may change, inside and outside the blocks."""
    from safetensors.torch import save_file

    torch.manual_seed(3)
    dit = lively(TINY)
    names = [n for n, m in dit.named_modules() if isinstance(m, torch.nn.Linear)]
    state = {}
    for name in names:
        D_out, D_in = dit.get_submodule(name).weight.shape
        state[f"transformer.{name}.lora_A.weight"] = 0.1 * torch.randn(2, D_in)
        state[f"transformer.{name}.lora_B.weight"] = 0.1 * torch.randn(D_out, 2)
    save_file(state, folder / "lora.safetensors")
    fitted = fit(read_lora(str(folder / "lora.safetensors")), shapes_of(dit))
    return dit, wearing(dit, [Worn(fitted, scale)], merge=merge)


@pytest.mark.parametrize(("merge", "scale"), [(True, (0.7,)), (False, (0.7,)), (False, (0.0, 0.5, 1.0))])
def test_loras_on_and_off_again(tmp_path, merge, scale):
    dit, worn = lora(tmp_path, merge, scale)
    given, x, time_BT = texts(TINY), latents(TINY), torch.tensor([[0.0, 400.0, 400.0]])
    bare = dit(x, time_BT, dit.prepare(given))
    for dressed, wearing_now in ((True, worn), (False, nullcontext())):
        with wearing_now:
            context = dit.prepare(given)
            expected = dit(x, time_BT, context)
            assert gap(for_inference(dit).several(x, time_BT, [context])[0], expected) <= 1e-5
            assert (gap(expected, bare) > 1e-2) == dressed


def test_two_experts_share_the_levels():
    high, low = lively(TINY, 1), lively(TINY, 2)
    both = Experts(high, low, boundary=0.5)
    x, contexts = latents(TINY), [both.prepare(texts(TINY)), both.prepare(texts(TINY, L=3))]
    fast = for_inference(both)
    for level in (900.0, 100.0):
        time_BT = torch.tensor([[0.0, level, level]])
        for got, context in zip(fast.several(x, time_BT, contexts), contexts, strict=True):
            assert gap(got, both(x, time_BT, context)) <= 1e-5


def test_what_somebody_hooked_is_asked_as_it_is():
    dit = lively(TINY)
    dit.blocks[1].register_forward_pre_hook(lambda module, inputs: None)
    assert isinstance(for_inference(dit), OneByOne)


def test_preparing_leaves_the_transformer_alone():
    dit = lively(TINY)
    before = {name: (p.data_ptr(), p.clone()) for name, p in dit.state_dict(keep_vars=True).items()}
    for_inference(dit, timesteps=[1.0]).several(
        latents(TINY), torch.full((1, 3), 1.0), [dit.prepare(texts(TINY))]
    )
    after = dit.state_dict(keep_vars=True)
    assert all(after[n].data_ptr() == at and torch.equal(after[n], was) for n, (at, was) in before.items())
    dit.requires_grad_(True)
    out = dit(latents(TINY), torch.full((1, 3), 1.0), dit.prepare(texts(TINY)))
    out.square().mean().backward()
    assert all(p.grad is not None for p in dit.blocks.parameters())


def test_large_weights_are_shared(monkeypatch):
    dit = lively(TINY)
    monkeypatch.setattr(inference, "COPIED_BYTES", 0)
    fast = for_inference(dit)
    assert isinstance(fast, InferenceDiT)
    block = fast.blocks[0]
    assert block.up.weight.data_ptr() == dit.blocks[0].ffn.net[0].proj.weight.data_ptr()
    assert isinstance(block.qkv, linears.Apart)


def test_merged_rows_give_the_same_attention():
    from kinema.models.attention import attend

    torch.manual_seed(0)
    states = torch.randn(1, 2, 20, 8)
    states[:, 0, 6:], states[:, 1, 11:] = 0.0, states[:, 1, 11:12].clone()
    bias = torch.zeros(1, 2, 20)
    bias[:, 0, 15:], bias[:, 1, 12:] = -torch.inf, 0.3
    fewer, weights = merged(states, bias)
    assert fewer.shape[2] == 12
    q = torch.randn(1, 1, 5, 8)
    for k in range(2):
        whole = attend(q, states[:, k, None], states[:, k, None], bias[:, k])
        few = attend(q, fewer[:, k, None], fewer[:, k, None], weights[:, k])
        assert gap(whole, few) <= 1e-6


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [2, 33, 507])
def test_merged_rows_keep_their_weight_in_half_precision(half, count):
    states = torch.cat([torch.randn(1, 1, 5, 8), torch.zeros(1, 1, count, 8)], dim=2)
    _, bias = merged(states, None, half=half)
    assert torch.equal(bias[..., :5], torch.zeros(1, 1, 5))
    assert bias[0, 0, 5:].to(half).double().exp().sum() == pytest.approx(count, rel=2e-3)


def test_texts_without_padding_stay_as_they_are():
    given = texts(TINY)
    same = condense(given)
    assert torch.equal(same.states_BKLD, given.states_BKLD)
    assert same.bias_BKL is None


@pytest.mark.slow  # seconds of tracing
def test_one_graph_serves_all_blocks_and_prompts():
    import torch._dynamo
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counters = [CompileCounter(), CompileCounter()]
    dit = lively(TINY)
    fast = InferenceDiT(dit, compiled=True)
    fast.mix = torch.compile(inference.FastBlock.mix, backend=counters[0], fullgraph=True)
    fast.finish = torch.compile(inference.FastBlock.finish, backend=counters[1], fullgraph=True)
    x, time_BT = latents(TINY), torch.full((1, 3), 400.0)
    bias = torch.zeros(1, 1, 1)
    for L in (9, 5, 17):
        context = dit.prepare(texts(TINY, L=L, bias_BKL=bias.expand(1, 1, L)))
        assert gap(fast(x, time_BT, context), dit(x, time_BT, context)) <= 1e-5
    assert [c.frame_count for c in counters] == [1, 1]
    torch._dynamo.reset()
