"""The evaluation at toy size: an oracle scores full marks, a held frame stays, neighbours do not matter."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import save_file

from kinema.core.errors import GeometryError, ModelError
from kinema.evaluation.contact_sheet import contact_sheet
from kinema.evaluation.prompts import prompt_set
from kinema.evaluation.silhouette import Gallery
from kinema.evaluation.subject import Sampling, Subject, averaged
from kinema.evaluation.suite import Judges, evaluate, text_table
from kinema.models.codec import PatchCodec, PatchCodecConfig
from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.models.text import TextStates
from kinema.training.codec import fit_linear
from kinema.training.data import ClipSource, render
from kinema.training.grammar import Grammar

TINY = {
    "patch_size": [1, 1, 1],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 48,
    "out_channels": 48,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "pooled_dim": 8,
}
QUICK = Sampling(steps=3, batch=4, bf16=False)
GRAMMAR = Grammar(gradient=0, held_out=0.2)


def words(captions):
    """States that depend on the caption only."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in captions]
    states = torch.stack([torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return TextStates(states_KLD=states, mask_KL=torch.ones(len(seeds), 3).bool(), pooled_KD=states.mean(1))


@pytest.fixture(scope="module")
def subject(bank):
    torch.manual_seed(0)
    codec = PatchCodec(PatchCodecConfig(mean_channels=32, deviation_channels=16, width=8, blocks=1, fine=4))
    source = ClipSource(bank, Grammar(), frames=9, fps=8, size=bank.size, seed=0)
    fit_linear(codec, (source.draw(8)[0] for _ in range(6)))
    model = VideoDiT(VideoDiTConfig.from_mapping(TINY)).requires_grad_(False).eval()
    return Subject(model, codec.requires_grad_(False).eval(), words)


@pytest.fixture(scope="module")
def prompts(bank):
    return prompt_set(bank.identities, GRAMMAR, seen=6, unseen=2, seed=0)


def test_a_prompts_clip_does_not_depend_on_its_neighbours(subject, prompts):
    shape = (5, 32, 32)
    alone = subject.clips(prompts[3:4], shape, QUICK)
    among = subject.clips(prompts, shape, QUICK)
    assert among.shape == (8, 3, 5, 32, 32)
    torch.testing.assert_close(among[3:4], alone, atol=1e-4, rtol=0)
    assert not torch.allclose(among[0], among[1], atol=1e-2)


def test_guidance_of_one_ignores_the_empty_prompt(subject, prompts):
    once = Subject(subject.model, subject.codec, lambda texts: words([text or "anything" for text in texts]))
    plain, same = (
        model.clips(prompts[:2], (1, 32, 32), replace(QUICK, guidance=1.0)) for model in (subject, once)
    )
    torch.testing.assert_close(plain, same, atol=1e-4, rtol=0)
    guided = once.clips(prompts[:2], (1, 32, 32), replace(QUICK, guidance=5.0))
    assert not torch.allclose(guided, plain, atol=1e-3)


def test_a_held_first_frame_comes_back_as_the_codec_gives_it(subject, prompts, bank):
    real = render(bank, [prompt.scene for prompt in prompts], frames=5, fps=8, size=bank.size)
    made = subject.clips(prompts, (5, 32, 32), QUICK, first_BCFHW=real[:, :, :1])
    expected = subject.codec.decode(subject.codec.encode(real[:, :, :1]))
    torch.testing.assert_close(made[:, :, :1], expected, atol=1e-5, rtol=0)
    assert not torch.allclose(made[:, :, 1:], expected.expand(-1, -1, 4, -1, -1), atol=1e-2)


def test_clips_that_begin_from_real_ones_are_those_at_level_0_and_noise_at_1(subject, prompts, bank):
    real = render(bank, [prompt.scene for prompt in prompts], frames=5, fps=8, size=bank.size)
    coded = subject.codec.decode(subject.codec.encode(real))
    errors = [
        (subject.clips(prompts, (5, 32, 32), replace(QUICK, level=level), begin_BCFHW=real) - coded)
        .abs()
        .mean()
        for level in (1e-4, 0.3, 0.9)
    ]
    assert errors[0] < 1e-3
    assert errors == sorted(errors)
    noise = subject.clips(prompts, (5, 32, 32), QUICK, begin_BCFHW=real)
    torch.testing.assert_close(noise, subject.clips(prompts, (5, 32, 32), QUICK), atol=1e-5, rtol=0)


def test_lengths_that_do_not_fit_are_refused(subject, prompts):
    with pytest.raises(GeometryError, match="frames=6"):
        subject.clips(prompts, (6, 32, 32), QUICK)


class Oracle:
    """A subject that plays the codec's copy of the real clip."""

    def __init__(self, subject, bank):
        self.codec, self.bank = subject.codec, bank

    def clips(self, prompts, shape_FHW, sampling, first_BCFHW=None, begin_BCFHW=None):
        real = render(self.bank, [p.scene for p in prompts], frames=shape_FHW[0], fps=8, size=self.bank.size)
        return self.codec.decode(self.codec.encode(real))


def test_an_oracle_meets_the_ceiling_and_the_floor_lies_below(subject, prompts, bank, judge):
    judges = Judges(judge, Gallery(bank))
    result = evaluate(Oracle(subject, bank), prompts, bank, judges, QUICK, frames=9, fps=8, held=2)
    table = result.table
    halves = [("model, flat", "model, gradient"), ("model, standing", "model, crossing")]
    assert [name for name in table if name not in sum(halves, ())] == [
        "real", "codec", "model", "model, seen", "model, held out", "floor", "first frame held",
    ]  # fmt: skip
    for half in halves:
        assert sum(table[name]["background"]["clips"] for name in half if name in table) == 8
    assert table["model, crossing"]["direction"]["clips"] == table["model"]["direction"]["clips"]
    assert "direction" not in table["model, standing"]
    assert table["model"] == table["codec"]
    assert table["model"]["background"]["mean"] == table["model"]["direction"]["mean"] == 1
    assert table["floor"]["background"]["mean"] < 0.6
    assert (
        table["floor"]["identity top-1, gallery"]["mean"] < table["model"]["identity top-1, gallery"]["mean"]
    )
    assert table["model, seen"]["background"]["clips"] == 6
    assert table["model, held out"]["background"]["clips"] == 2
    assert result.extra["first frame held: psnr of frame 0"] > 20
    assert result.columns["model"].shape == result.columns["real"].shape


def test_an_untrained_model_scores_near_the_floor(subject, prompts, bank, judge):
    judges = Judges(judge, Gallery(bank))
    table = evaluate(subject, prompts, bank, judges, QUICK, frames=1, fps=8).table
    assert "direction" not in table["model"]
    assert table["real"]["background"]["mean"] == 1
    assert table["model"]["background"]["mean"] <= 0.5


def test_table_and_sheet_show_every_subject(subject, prompts, bank):
    cell = {"mean": 0.5, "low": 0.25, "high": 0.75, "clips": 4}
    text = text_table({"real": {"background": cell}, "model": {"background": cell, "direction": cell}})
    assert text.splitlines()[2:] == [
        "| background | 50 (25 to 75) | 50 (25 to 75) |",
        "| direction | - | 50 (25 to 75) |",
    ]
    clips = torch.zeros(2, 3, 9, 32, 32)
    sheet = contact_sheet({"real": clips - 1, "model": clips + 1}, ["one", "two"], shown=5)
    assert sheet.getpixel((20, 30)) == (0, 0, 0)
    assert sheet.getpixel((5 * 32 + 28, 30)) == (255, 255, 255)


def test_a_checkpoint_gives_its_averaged_weights(subject, tmp_path):
    config, path = tmp_path / "model.yaml", tmp_path / "run.safetensors"
    config.write_text(yaml.safe_dump({"model": TINY}))
    weights = {f"average/{name}": p + 1 for name, p in subject.model.named_parameters()}
    live = {f"model/{name}": p.clone() for name, p in subject.model.named_parameters()}
    save_file({name: tensor.contiguous() for name, tensor in (weights | live).items()}, path)
    found = dict(averaged(path, config).named_parameters())
    for name, p in subject.model.named_parameters():
        torch.testing.assert_close(found[name], p + 1)
    config.write_text(yaml.safe_dump({"model": TINY | {"num_layers": 3}}))
    with pytest.raises(ModelError, match="weights do not fit"):
        averaged(path, config)


def test_many_rows_stand_in_blocks_and_none_is_lost():
    levels = torch.linspace(-1, 1, 30)
    clips = levels.view(30, 1, 1, 1, 1).expand(30, 3, 1, 64, 64)
    sheet = contact_sheet({"real": clips}, [f"prompt {i}" for i in range(30)])
    assert 0.5 < sheet.width / sheet.height < 2
    middles = {
        sheet.getpixel((x, y))[0] for x in range(32, sheet.width, 8) for y in range(46, sheet.height, 7)
    }
    assert {round((float(level) + 1) * 127.5) for level in levels} <= middles
