"""What a run leaves: shards small enough to be sent, curves, and a schedule that ends with its time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kinema.core.errors import ModelError
from kinema.training import shards
from kinema.training.curves import draw_curves, read_curves, smoothed
from kinema.training.loop import OptimiserSettings, Trainer
from kinema.training.pace import Pace, planned
from kinema.training.shards import load_shards, save_shards


def test_shards_come_back_whole_and_small(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LIMIT", 100)
    tensors = {f"w{i}": torch.randn(5, 4) for i in range(7)}  # 40 bytes each in float16
    assert save_shards(tensors, tmp_path, "video", step=12) == 4
    found, facts = load_shards(tmp_path, "video")
    assert facts == {"step": 12}
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.half().float())
    assert save_shards({"w0": tensors["w0"]}, tmp_path, "video") == 1
    assert load_shards(tmp_path, "video")[0].keys() == {"w0"}  # the old shards are gone


def test_missing_and_damaged_shards_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LIMIT", 50)
    save_shards({f"w{i}": torch.randn(5, 4) for i in range(3)}, tmp_path, "video")
    (tmp_path / "video-2.safetensors").unlink()
    with pytest.raises(ModelError, match="2 shards of 'video', and not all"):
        load_shards(tmp_path, "video")
    (tmp_path / "video-3.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a shard"):
        load_shards(tmp_path, "video")


def test_curves_are_read_by_stage_and_part_and_drawn(tmp_path):
    log = tmp_path / "metrics.jsonl"
    lines = [{"stage": "video", "step": s, "loss": [1 / s, 2 / s]} for s in range(20, 400, 20)]
    lines += [{"step": 5, "loss": 0.5}, {"step": 6, "loss": float("nan")}]
    log.write_text("\n".join(map(json.dumps, lines)))
    curves = read_curves(log)
    assert curves["video 0"][0] == (20, 0.05)
    assert curves["video 1"][-1] == (380, 2 / 380)
    assert curves["run"] == [(5, 0.5)]
    draw_curves(log, tmp_path / "curves.png")
    inked = (np.asarray(Image.open(tmp_path / "curves.png")) < 120).any(axis=2).mean()
    assert 0.002 < inked < 0.2
    draw_curves(tmp_path / "none.jsonl", tmp_path / "empty.png")


def test_smoothing_begins_at_the_first_value_and_follows():
    values = smoothed([(i, 1.0 if i < 50 else 3.0) for i in range(150)])
    assert values[0][1] == values[40][1] == pytest.approx(1.0)
    assert values[60][1] == pytest.approx(3 - 2 * 0.9**11, abs=0.01)


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def trainer():
    return Trainer(nn.Linear(2, 2), (), OptimiserSettings(), steps=10)


@pytest.mark.parametrize("each", [0.5, 2.0])
def test_a_planned_run_ends_with_its_time(monkeypatch, each):
    clock = Clock()
    monkeypatch.setattr("kinema.training.pace.time", clock)
    pace, run = Pace(minutes=5, plan=20), trainer()
    clock.now += 60  # compiling
    while not pace.over():
        clock.now += each
        run.step += 1
        pace.stepped(run)
    assert run.steps - run.step == pytest.approx(15 * 60 / each, rel=0.02)


def test_without_a_plan_the_length_is_the_recipes(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("kinema.training.pace.time", clock)
    pace, run = Pace(minutes=1), trainer()
    for _ in range(100):
        clock.now += 0.1
        pace.stepped(run)
    assert run.steps == 10
    assert not pace.over()
    clock.now += 60
    assert pace.over()
    assert planned(7, -3.0, 0.1) == 8  # what is late ends with the next step
