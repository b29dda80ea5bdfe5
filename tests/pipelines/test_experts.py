"""Two transformers that share the noise levels (Wan 2.2 A14B): runs equal diffusers', each with its scale."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import kinema
from checkpoints import BOUNDARY
from kinema.core.errors import ConfigError, ModelError
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

CALL = {
    "prompt": "a red fox in the snow",
    "negative_prompt": "the dog",
    "num_inference_steps": 6,
    "num_frames": 5,
    "height": 32,
    "width": 32,
}
BOUND = 1e-4


def latents() -> torch.Tensor:
    return torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(5))


def run(pipeline, **given) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(**CALL, latents=latents(), output_type="np", **given).frames[0]


@pytest.fixture(scope="module")
def ours(wan):
    return kinema.KinemaPipeline.from_pretrained(wan("two-experts"))


@pytest.fixture(scope="module")
def theirs(wan):
    import diffusers

    return diffusers.WanPipeline.from_pretrained(wan("two-experts"))


@pytest.mark.parametrize(
    "scales",
    [(4.0, 2.0), (4.0, None), (1.0, 3.0), (3.0, 1.0), (0.0, 3.0), (0.5, None)],
    ids=["both", "one", "low only", "high only", "none and low", "below 1"],
)
def test_each_expert_works_on_its_side_of_the_boundary(ours, theirs, scales):
    given = {"guidance_scale": scales[0], "guidance_scale_2": scales[1]}
    assert np.abs(run(ours, **given) - run(theirs, **given)).max() < BOUND


def test_both_experts_matter(ours, wan):
    plain = run(ours, guidance_scale=3.0)
    once = kinema.KinemaPipeline.from_pretrained(wan("two-experts"))
    once.model.dit.low.proj_out.weight.data.mul_(0.5)
    assert np.abs(run(once, guidance_scale=3.0) - plain).max() > 100 * BOUND
    once.model.dit.low.load_state_dict(ours.model.dit.low.state_dict())
    once.model.dit.high.proj_out.weight.data.mul_(0.5)
    assert np.abs(run(once, guidance_scale=3.0) - plain).max() > 100 * BOUND


def test_a_lora_of_both_transformers_is_for_both(ours, wan, tmp_path):
    """As diffusers saves the pair: keys of `transformer` and of `transformer_2` in one file."""
    g = torch.Generator().manual_seed(1)
    halves = {"lora_A": (3, 48), "lora_B": (48, 3)}
    high, low = (
        {f"{part}.blocks.0.attn1.to_q.{h}.weight": torch.randn(s, generator=g) for h, s in halves.items()}
        for part in ("transformer", "transformer_2")
    )
    files = {"pair": high | low, "high": high, "low": low}
    files["low, unnamed"] = {key.replace("_2.", "."): tensor for key, tensor in low.items()}
    paths = {name: tmp_path / f"{name}.safetensors" for name in files}
    for name, tensors in files.items():
        save_file(tensors, paths[name])

    def worn(*loaded: tuple[str, bool]) -> np.ndarray:
        for name, second in loaded:
            ours.load_lora_weights(paths[name], load_into_transformer_2=second)
        try:
            return run(ours)
        finally:
            ours.unload_lora_weights()

    pair, plain = worn(("pair", False)), run(ours)
    assert np.abs(pair - plain).max() > BOUND
    assert np.array_equal(worn(("pair", True)), pair)
    assert np.array_equal(worn(("high", False), ("low, unnamed", True)), pair)
    assert np.array_equal(worn(("high", False), ("low", False)), pair)
    assert not np.array_equal(worn(("high", False)), pair)
    one = kinema.KinemaPipeline.from_pretrained(wan("t2v"))
    with pytest.raises(
        ConfigError, match=r"pair\.safetensors has keys of two transformers, and 2 of 4 would"
    ):
        one.load_lora_weights(paths["pair"])
    assert one.get_list_adapters() == {"transformer": []}


def test_pictures_by_two_experts_equal_wan_pipeline(wan):
    import diffusers

    noise = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC)
    folder = wan("two-experts-i2v")
    given = {"image": picture, "guidance_scale": 3.5, "guidance_scale_2": 2.5}
    expected = run(diffusers.WanImageToVideoPipeline.from_pretrained(folder), **given)
    assert np.abs(run(kinema.KinemaPipeline.from_pretrained(folder), **given) - expected).max() < BOUND


def test_the_plan_knows_both_scales_before_weights_are_read(wan):
    card = read_card(str(wan("two-experts")))
    assert card.boundary == BOUNDARY
    plan = make_plan(
        Shot(model=card.id, prompt="a", size="32x32", frames=5, guidance_low="0:(1), 4:(3)"), card
    )
    assert plan.sampling.guidance == (4.0, 4.0)
    assert plan.sampling.guidance_low == (1.0, pytest.approx(np.mean([1.5, 2.0, 2.5, 3.0])))
    assert plan.shot["guidance_low"] is not None
    assert make_plan(Shot(model=card.id, size="32x32", frames=5), card).sampling.guidance_low == (3.0, 3.0)


def test_a_second_scale_needs_a_second_transformer():
    with pytest.raises(ConfigError, match="guidance_low is for models of two transformers"):
        make_plan(Shot(guidance_low=2), read_card("embedded"))


def test_two_experts_without_a_boundary_are_refused(wan, tmp_path):
    folder = shutil.copytree(wan("two-experts"), tmp_path / "wan")
    index = json.loads((folder / "model_index.json").read_text())
    for wrong in (None, 1.5, "0.9", True):
        (folder / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": wrong}))
        with pytest.raises(ModelError, match="boundary_ratio"):
            read_card(str(folder))
