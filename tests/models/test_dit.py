"""The transformer against diffusers' Wan class, and against itself where it can do more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny_transformers
from kinema.core.errors import ModelError
from kinema.models.dit import Conditioning, VideoDiT, VideoDiTConfig
from kinema.pipelines.model import precision
from tiny_transformers import IMAGE

TINY = tiny_transformers.TINY | {"num_layers": 2}
VARIANTS = {
    "wan2.1-t2v": TINY,
    "wan2.1-i2v": TINY | IMAGE,
    "wan2.1-flf2v": TINY | IMAGE | {"pos_embed_seq_len": 14},
    "wan2.2-ti2v": TINY | {"in_channels": 48, "out_channels": 48},
}


def pair(config: dict) -> tuple[torch.nn.Module, VideoDiT]:
    """diffusers' model with random weights (norms and tables too), and ours with the same."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    theirs = WanTransformer3DModel(**config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
    ours = VideoDiT(VideoDiTConfig.from_mapping(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def tiny(**changes: object) -> VideoDiT:
    torch.manual_seed(1)
    return VideoDiT(VideoDiTConfig.from_mapping(TINY | changes)).eval().requires_grad_(False)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_diffusers(variant):
    config = VARIANTS[variant]
    theirs, ours = pair(config)
    x, text = torch.randn(2, config["in_channels"], 3, 8, 6), torch.randn(2, 512, 32)
    images = {"wan2.1-i2v": torch.randn(2, 7, 32), "wan2.1-flf2v": torch.randn(2, 14, 32)}.get(variant)
    # diffusers takes first and last image as two samples, ours as one row of tokens
    given = images.view(4, 7, 32) if variant == "wan2.1-flf2v" else images
    with torch.no_grad():
        expected = theirs(x, torch.tensor([500.0, 20.0]), text, given).sample
        context = ours.prepare(Conditioning(states_BKLD=text[:, None], image_BND=images))
        got = ours(x, torch.tensor([[500.0] * 3, [20.0] * 3]), context)
    assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("variant", ["wan2.1-i2v", "wan2.1-flf2v"])
def test_image_tokens_in_half_precision_equal_diffusers(variant, dtype):
    """Both keep the norms in fp32; CUDA's layer norm, unlike the CPU's, takes no two types at once."""
    theirs, ours = (model.condition_embedder.image_embedder for model in pair(VARIANTS[variant]))
    for model in (theirs, ours):
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(precision(f"image_embedder.{name}", dtype))
    met = []
    for norm in (ours.norm1, ours.norm2):
        norm.register_forward_pre_hook(lambda layer, x: met.append((x[0].dtype, layer.weight.dtype)))
    images = torch.randn(2, 14, 32).to(dtype)
    with torch.no_grad():
        expected = theirs(images.view(4, 7, 32) if variant == "wan2.1-flf2v" else images)
        assert torch.equal(ours(images), expected)
    assert met == [(torch.float32, torch.float32)] * 2


def test_per_frame_time_equals_diffusers_per_token_time():
    theirs, ours = pair(VARIANTS["wan2.2-ti2v"])
    x, text = torch.randn(2, 48, 3, 8, 6), torch.randn(2, 512, 32)
    time_BT = torch.tensor([[0.0, 500.0, 300.0], [0.0, 20.0, 999.0]])
    with torch.no_grad():
        expected = theirs(x, time_BT.repeat_interleave(12, dim=1), text).sample
        got = ours(x, time_BT, ours.prepare(Conditioning(states_BKLD=text[:, None])))
    assert (got - expected).abs().max() <= 1e-5


def test_one_padding_row_with_the_log_of_its_count_stands_for_all():
    model = tiny()
    x, real = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 5, 32)
    padded = torch.cat([real, torch.zeros(1, 507, 32)], dim=1)
    short = torch.cat([real, torch.zeros(1, 1, 32)], dim=1)
    bias = torch.tensor([[[0.0] * 5 + [torch.tensor(507.0).log()]]])
    time = torch.full((1, 2), 700.0)
    whole = model(x, time, model.prepare(Conditioning(states_BKLD=padded[:, None])))
    cheap = model(x, time, model.prepare(Conditioning(states_BKLD=short[:, None], bias_BKL=bias)))
    assert (whole - cheap).abs().max() <= 1e-5


def prompts(weights: Tensor | None, states: Tensor) -> Conditioning:
    return Conditioning(states_BKLD=states, weights_BTK=weights)


def test_equal_prompts_mix_to_themselves():
    model, x, time = tiny(), torch.randn(1, 16, 3, 4, 4), torch.full((1, 3), 400.0)
    states = torch.randn(1, 1, 6, 32)
    weights = torch.tensor([[[1.0, 0.0], [0.3, 0.7], [0.0, 1.0]]])
    alone = model(x, time, model.prepare(prompts(None, states)))
    mixed = model(x, time, model.prepare(prompts(weights, states.expand(1, 2, 6, 32))))
    assert (alone - mixed).abs().max() <= 1e-5


def test_a_prompt_without_weight_leaves_no_trace():
    model, x, time = tiny(), torch.randn(1, 16, 3, 4, 4), torch.full((1, 3), 400.0)
    states = torch.randn(1, 2, 6, 32)
    weights = torch.tensor([[[1.0, 0.0]] * 3])
    alone = model(x, time, model.prepare(prompts(None, states[:, :1])))
    poisoned = torch.cat([states[:, :1], torch.full((1, 1, 6, 32), float("nan"))], dim=1)
    assert (alone - model(x, time, model.prepare(prompts(weights, poisoned)))).abs().max() <= 1e-5


def test_each_frame_reads_its_own_prompt():
    model, x, time = tiny(num_layers=1), torch.randn(1, 16, 2, 4, 4), torch.full((1, 2), 400.0)
    states = torch.randn(1, 3, 6, 32)

    def run(last: int) -> Tensor:
        weights = torch.zeros(1, 2, 3)
        weights[0, 0, 0] = weights[0, 1, last] = 1
        return model(x, time, model.prepare(prompts(weights, states)))

    one, two = run(1), run(2)
    # with one block, text reaches other frames only through later self-attention, of which there is none
    assert torch.equal(one[:, :, 0], two[:, :, 0])
    assert not torch.allclose(one[:, :, 1], two[:, :, 1])


def test_pooled_text_reaches_the_output_and_mixes_by_weight():
    model, x, time = tiny(pooled_dim=8), torch.randn(1, 16, 2, 4, 4), torch.full((1, 2), 400.0)
    states, pooled = torch.randn(1, 2, 6, 32), torch.randn(1, 2, 8)

    def run(weights: list[list[float]]) -> Tensor:
        given = Conditioning(states_BKLD=states, weights_BTK=torch.tensor([weights]), pooled_BKD=pooled)
        return model(x, time, model.prepare(given))

    assert not torch.allclose(run([[1, 0], [1, 0]]), run([[0, 1], [0, 1]]))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (TINY | {"qk_norm": "layer_norm"}, "qk_norm"),
        (TINY | {"mystery": 3}, "mystery"),
        (TINY | {"patch_size": (2, 2, 2)}, "patch_size"),
    ],
)
def test_refuses_architectures_it_does_not_have(config, words):
    with pytest.raises(ModelError, match=words):
        VideoDiTConfig.from_mapping(config)
