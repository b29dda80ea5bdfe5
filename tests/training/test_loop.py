"""Training runs: a resumed run is the run that was never interrupted; rates and averages are as said."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from kinema.core.errors import MediaError, ModelError, NumericError
from kinema.core.runtime import generator
from kinema.training.loop import Log, OptimiserSettings, Trainer, entries

MATRICES = ("1.weight", "3.weight")
SETTINGS = OptimiserSettings(rate=1e-2, matrix_rate=2e-2, warmup=3, decay=0.5, average=0.8)


def small(seed=0, hidden=6):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.LayerNorm(4), nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2), nn.BatchNorm1d(2)
    )


def trainer(seed=0, steps=8, settings=SETTINGS, **shape):
    return Trainer(small(seed, **shape), MATRICES, settings, steps=steps)


def move(run, until):
    """Steps whose data depends on the step alone."""
    while run.step < until:
        rng = generator(3, f"step {run.step}")
        x, y = torch.randn(16, 4, generator=rng), torch.randn(16, 2, generator=rng)
        run.update((run.model(x) - y).square().mean())
    return run


def equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop", [1, 5])
def test_resumed_equals_uninterrupted_to_the_last_bit(tmp_path, stop):
    whole = move(trainer(), 8)
    move(trainer(), stop).save(tmp_path / "run.safetensors")
    resumed = trainer(seed=99)
    resumed.load(tmp_path / "run.safetensors")
    assert resumed.step == stop
    move(resumed, 8)
    equal(whole.model.state_dict(), resumed.model.state_dict())
    equal(whole.average, resumed.average)


def test_a_checkpoint_needs_its_moments_to_resume(tmp_path):
    """The test above would pass with any optimiser without memory; these have one."""
    whole = move(trainer(), 8)
    move(trainer(), 5).save(tmp_path / "run.safetensors")
    forgetful = trainer()
    forgetful._restore = lambda tensors: None
    forgetful.load(tmp_path / "run.safetensors")
    move(forgetful, 8)
    assert not torch.equal(whole.model[1].weight, forgetful.model[1].weight)
    assert not torch.equal(whole.model[1].bias, forgetful.model[1].bias)


def test_a_new_run_starts_from_the_averages(tmp_path):
    first = move(trainer(), 5)
    first.save(tmp_path / "run.safetensors")
    second = trainer(seed=99)
    second.load(tmp_path / "run.safetensors", moments=False)
    assert second.step == 0
    for name, p in second.model.named_parameters():
        assert torch.equal(p, first.average[name])
        assert torch.equal(second.average[name], first.average[name])
    assert not torch.equal(second.model[1].weight, first.model[1].weight)


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("No space left on device (os error 28)")],
)
def test_an_interrupted_save_keeps_the_checkpoint_before(tmp_path, monkeypatch, error):
    path = tmp_path / "run.safetensors"
    run = move(trainer(), 2)
    run.save(path)
    before = path.read_bytes()

    def full(tensors, name, metadata):
        name.write_bytes(b"half")
        raise error

    monkeypatch.setattr("kinema.training.files.save_file", full)
    with pytest.raises(MediaError, match=r"cannot write .*run\.safetensors.*No space.*make room"):
        move(run, 3).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]  # half a file would keep the disk full


@pytest.mark.parametrize("moments", [True, False])
def test_another_models_checkpoint_is_refused_whole(tmp_path, moments):
    move(trainer(hidden=5), 1).save(tmp_path / "run.safetensors")
    run = trainer()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(ModelError, match=r"run\.safetensors does not fit this model: 3 weights differ"):
        run.load(tmp_path / "run.safetensors", moments=moments)
    equal(before, run.model.state_dict())


def test_a_new_run_does_not_begin_with_a_part_of_a_model(tmp_path):
    """Averages of a shallower model are all known to a deeper one, whose other blocks would stay random."""
    shallow = Trainer(nn.Sequential(nn.Linear(4, 6)), (), SETTINGS, steps=8)
    shallow.update(shallow.model(torch.ones(1, 4)).sum())
    shallow.save(tmp_path / "run.safetensors")
    deep = Trainer(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), (), SETTINGS, steps=8)
    with pytest.raises(ModelError, match=r"does not fit this model: 2 weights differ, '1\.weight' first"):
        deep.load(tmp_path / "run.safetensors", moments=False)


def test_weights_that_are_no_numbers_do_not_replace_those_that_were(tmp_path):
    path, run = tmp_path / "run.safetensors", move(trainer(), 2)
    run.save(path)
    before = path.read_bytes()
    run.update(run.model(torch.full((4, 4), float("nan"))).sum())
    with pytest.raises(NumericError, match=r"step 3: .*run\.safetensors keeps those of an earlier step"):
        run.save(path)
    assert path.read_bytes() == before


def test_what_is_no_checkpoint_is_told_from_a_damaged_one(tmp_path):
    run, path = trainer(), tmp_path / "run.safetensors"
    with pytest.raises(ModelError, match="there is no checkpoint"):
        run.load(path)
    save_file({"transformer.x.lora_A.weight": torch.ones(2)}, path)
    with pytest.raises(ModelError, match="is no checkpoint of a training run"):
        run.load(path, moments=False)
    move(trainer(), 1).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match="is damaged"):
        run.load(path)


def test_a_checkpoint_says_which_run_it_is_of(tmp_path):
    facts = {"data": "ab12", "seed": 7}
    run = Trainer(small(), MATRICES, SETTINGS, steps=8, facts=facts)
    move(run, 2).save(tmp_path / "run.safetensors")
    assert trainer().load(tmp_path / "run.safetensors") == facts | {"step": 2}


def test_a_log_goes_on_where_the_checkpoint_was(tmp_path):
    """A killed run has reported steps that it takes again, and may have been stopped within a line."""
    log = Log(tmp_path)
    for step in (20, 40):
        log.write(stage="image", step=step, loss=0.5)
    for step in (20, 40, 60):
        log.write(stage="video", step=step, loss=1.0)
    with log.path.open("a") as file:
        file.write('{"stage": "video", "st')
    assert len(entries(log.path)) == 5
    log.go_on(40, "video")
    log.write(stage="video", step=60, loss=2.0)
    found = [(e["stage"], e["step"], e["loss"]) for e in map(json.loads, log.path.read_text().splitlines())]
    images, videos = [("image", 20, 0.5), ("image", 40, 0.5)], [("video", 20, 1.0), ("video", 40, 1.0)]
    assert found == [*images, *videos, ("video", 60, 2.0)]
    log.go_on(0, "video")
    assert [e["stage"] for e in entries(log.path)] == ["image", "image"]


def test_rates_rise_hold_and_fall():
    settings = OptimiserSettings(warmup=10, decay=0.4)
    factors = [settings.factor(step, 100) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert set(factors[10:61]) == {1.0}
    assert factors[60:100] == pytest.approx([max(0.01, (100 - i) / 40) for i in range(60, 100)])
    assert factors[100] == 0.01


def test_each_step_uses_its_share_of_both_rates():
    run = trainer(steps=8)
    for step in range(8):
        move(run, step + 1)
        rates = [group["lr"] for opt in run.optimisers for group in opt.param_groups]
        share = SETTINGS.factor(step, 8)
        assert rates == pytest.approx([1e-2 * share, 2e-2 * share])


def test_matrices_go_to_muon_and_nothing_else():
    adam, muon = trainer().optimisers
    assert isinstance(adam, torch.optim.AdamW)
    assert isinstance(muon, torch.optim.Muon)
    model = small()
    shapes = [p.shape for p in muon.param_groups[0]["params"]]
    assert shapes == [model[1].weight.shape, model[3].weight.shape]
    total = len(list(model.parameters()))
    assert len(adam.param_groups[0]["params"]) == total - 2


def test_the_average_follows_slowly_but_not_from_the_start():
    """After n steps the decay is min(average, (1 + n) / (10 + n))."""
    run = trainer()
    expected = run.model[1].weight.detach().clone()
    for step in range(1, 7):
        move(run, step)
        decay = min(SETTINGS.average, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * run.model[1].weight.detach()
        torch.testing.assert_close(run.average["1.weight"], expected)


def test_gradients_are_clipped_and_their_norm_told():
    one, ten = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)
    settings = OptimiserSettings(clip=1.0, warmup=1, decay=0.0)
    for model, scale in ((one, 2.0), (ten, 20.0)):
        nn.init.ones_(model.weight)
        run = Trainer(model, (), settings, steps=9)
        norm = run.update(scale * model.weight.sum())
        assert norm == pytest.approx(scale * 3**0.5)
        state = run.optimisers[0].state[model.weight]
        assert state["exp_avg"].norm() == pytest.approx(0.1, rel=1e-4)  # (1 - beta1) * clip, either way


def test_the_log_is_appended_line_by_line(tmp_path):
    Log(tmp_path / "run").write(step=1, loss=0.5, stage="image")
    Log(tmp_path / "run").write(step=2, loss=0.25, stage="image")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "loss": 0.5, "stage": "image"}, {"step": 2, "loss": 0.25, "stage": "image"}]
