"""Processes that share a run: the same weights as one process over the same batches, to the last bit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinema.core.errors import ConfigError
from kinema.core.runtime import generator
from kinema.training.loop import OptimiserSettings, Trainer
from kinema.training.ranks import ALONE, Ranks

MATRICES = ("0.weight", "1.weight", "2.weight")
SETTINGS = OptimiserSettings(rate=1e-2, matrix_rate=2e-2, warmup=3, average=0.8)
STEPS, STOP = 8, 5


def trainer(ranks):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 4))
    return Trainer(model, MATRICES, SETTINGS, steps=STEPS, ranks=ranks)


def loss(model, batch):
    x = torch.randn(16, 4, generator=generator(3, f"batch {batch}"))
    return (model(x) - x).square().mean()


def alone(until):
    """One process whose every step is the mean over both batches."""
    run = trainer(ALONE)
    while run.step < until:
        run.update((loss(run.model, 2 * run.step) + loss(run.model, 2 * run.step + 1)) / 2)
    return run


def together(folder: Path, start: Path | None):
    """One of two processes, as torchrun would start it: steps to the end, with a checkpoint on the way."""
    torch.set_num_threads(1)
    ranks = Ranks.from_environment(torch.device("cpu"))
    index, run = ranks.index, trainer(ranks)
    if start:
        run.load(start)
    while run.step < STEPS:
        run.update(loss(run.model, ranks.batch(run.step)))
        if run.step == STOP:
            run.save(folder / "stop.safetensors")
    assert ranks.told(7 + index) == 7
    alone = [torch.tensor([float(index)])]  # fewer tensors than processes: the first has it
    ranks.exchange(alone)
    ranks.exchange([])
    assert alone[0].tolist() == [0.0]
    assert ranks.total(torch.ones(2)).tolist() == [2, 2]
    run.save(folder / "end.safetensors")
    save_file(run.model.state_dict(), folder / f"rank-{index}.safetensors")
    ranks.leave()


def run_two(folder: Path, start: Path | None = None):
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    line = [sys.executable, __file__, str(folder), *([str(start)] if start else [])]
    both = [subprocess.Popen(line, env=shared | {"RANK": str(index)}) for index in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    return [load_file(folder / f"rank-{index}.safetensors") for index in range(2)]


def equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks") / "whole"
    return folder, run_two(folder)


def test_two_processes_are_one_that_takes_both_batches(shared):
    _, (first, second) = shared
    equal(first, second)
    whole = alone(STEPS).model.state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
    half = trainer(ALONE)
    half.update(loss(half.model, 0))
    other = alone(1)
    assert not torch.equal(half.model[0].bias, other.model[0].bias)  # the second batch matters


def test_a_shared_run_resumes_bit_for_bit(shared, tmp_path):
    folder, (whole, _) = shared
    for resumed in run_two(tmp_path / "resumed", folder / "stop.safetensors"):
        equal(whole, resumed)


def test_one_process_goes_on_with_what_two_wrote(shared):
    folder, (whole, _) = shared
    run = trainer(ALONE)
    run.load(folder / "stop.safetensors")
    while run.step < STEPS:
        run.update((loss(run.model, 2 * run.step) + loss(run.model, 2 * run.step + 1)) / 2)
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(whole[name], value, rtol=1e-4, atol=1e-5)


def test_without_torchrun_a_process_is_alone():
    assert Ranks.from_environment(torch.device("cpu"), {}) == ALONE
    assert (ALONE.batch(7), ALONE.told(3)) == (7, 3)
    assert [Ranks(1, 3).batch(step) for step in range(3)] == [1, 4, 7]


def test_several_processes_are_for_cpus():
    with pytest.raises(ConfigError, match="start one process"):
        Ranks.from_environment(torch.device("cuda"), {"WORLD_SIZE": "2", "RANK": "0"})


if __name__ == "__main__":
    together(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    os._exit(0)  # all is written; gloo's threads now and then abort an interpreter that takes itself apart
