"""The net's frozen file, its statistics and its verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import kinema
from kinema.core.errors import ConfigError, GeometryError, ModelError
from kinema.evaluation.identity import IdentityJudge, IdentityNet, IdentityNetConfig, ranks, settle
from kinema.training.data import ClipSource
from kinema.training.grammar import Grammar

SHIPPED = Path(kinema.__file__).parent / "evaluation/judges/identity-64.safetensors"


@pytest.fixture
def frames(bank):
    source = ClipSource(bank, Grammar(moving=0, gradient=0), frames=3, fps=8, size=bank.size, seed=9)
    clips, _, scenes = source.draw(20)
    return clips, [scene.identity.name for scene in scenes]


def test_judge_knows_its_sprites_and_sums_over_frames(judge, frames):
    clips, names = frames
    assert (judge.ranks(clips, names) == 0).float().mean() >= 0.9
    single = [judge.log_probabilities(clips[:, :, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(judge.log_probabilities(clips), sum(single) / 3)


def test_file_keeps_the_verdicts_and_the_facts(judge, frames, tmp_path):
    clips, _ = frames
    judge.save(tmp_path / "judge.safetensors", data_sha256="ab", minutes=1.5)
    again = IdentityJudge.load(tmp_path / "judge.safetensors")
    assert again.names == judge.names
    assert (again.facts["data_sha256"], again.facts["minutes"]) == ("ab", 1.5)
    before, after = judge.log_probabilities(clips), again.log_probabilities(clips)
    torch.testing.assert_close(after, before, atol=0.05, rtol=0)  # half-precision weights


def test_a_changed_judge_is_refused(judge, tmp_path):
    path = tmp_path / "judge.safetensors"
    judge.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not the frozen"):
        IdentityJudge.load(path)
    with pytest.raises(ModelError, match=r"train_judge\.py"):
        IdentityJudge.load(tmp_path / "nobody.safetensors")


def test_description_names_every_class_in_order(judge, tmp_path):
    judge.save(tmp_path / "judge.safetensors")
    assert json.loads((tmp_path / "judge.json").read_text())["classes"] == list(judge.names)


def test_unknown_names_and_wrong_sizes_are_refused(judge):
    with pytest.raises(ConfigError, match="Did you mean 'square'"):
        judge.index("sqare")
    with pytest.raises(GeometryError, match="resize to 32x32"):
        judge.log_probabilities(torch.zeros(1, 3, 1, 64, 64))


def test_rank_counts_those_who_score_higher():
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    assert ranks(scores, [1, 2]).tolist() == [0, 2]


def test_settling_makes_evaluation_agree_with_training_statistics():
    torch.manual_seed(0)
    net = IdentityNet(IdentityNetConfig(classes=3, size=16, widths=(4, 4, 8, 8)))
    batch = torch.rand(64, 3, 16, 16) - 0.3
    net.train()
    expected = net(batch).detach()
    for norm in (module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.fill_(5.0)
    settle(net, [batch, batch])
    assert not net.training
    torch.testing.assert_close(net(batch).detach(), expected, atol=0.05, rtol=0.05)


def test_the_full_size_has_about_a_million_parameters():
    net = IdentityNet(IdentityNetConfig(classes=1673))
    assert 0.8e6 < sum(p.numel() for p in net.parameters()) < 1.2e6


def test_the_shipped_judge_is_the_frozen_one_and_knows_1673_identities():
    judge = IdentityJudge.load(SHIPPED)
    assert len(judge.names) == len(set(judge.names)) == 1673
    assert judge.facts["fresh_undamaged"]["top1"] > 0.9
    assert judge.log_probabilities(torch.zeros(1, 3, 2, 64, 64)).exp().sum() == pytest.approx(1, abs=1e-3)
