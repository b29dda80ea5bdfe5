"""The embedded model draws what it drew: to the bit where the golden frames were made, near elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import make

GOLDEN = json.loads(make.INDEX.read_text("utf-8"))
HOW = "run python tests/golden/make.py, look at the pictures, and commit them"


def distance(one, other):
    """Mean and largest difference of frames, of 255."""
    gap = abs(one.astype(int) - other.astype(int))
    return gap.mean(), gap.max()


@pytest.fixture(scope="module")
def drawn():
    return [make.frames(entry["shot"]) for entry in GOLDEN["shots"]]


def test_the_golden_frames_are_of_these_weights_and_shots():
    assert GOLDEN["weights"] == make.weights(), f"the embedded model is another: {HOW}"
    shots = json.loads(json.dumps(make.SHOTS))
    assert [entry["shot"] for entry in GOLDEN["shots"]] == shots, HOW


@pytest.mark.parametrize("index", range(len(GOLDEN["shots"])))
def test_frames_are_the_golden_ones(drawn, index):
    entry = GOLDEN["shots"][index]
    golden = make.read(index, entry["frames"])
    assert make.digest(golden) == entry["sha256"]  # picture and index belong together
    if GOLDEN["made on"] == make.machine():
        assert make.digest(drawn[index]) == entry["sha256"], HOW
    mean, most = distance(drawn[index], golden)
    assert mean < 0.5, HOW
    assert most <= 16, HOW


def test_another_process_draws_the_same_bytes(drawn):
    code = "import make; print(make.digest(make.frames(make.SHOTS[2])))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(make.HERE), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True
    )
    assert result.stdout.split()[-1] == make.digest(drawn[2])


def test_a_second_run_and_other_renders_in_between_change_nothing(drawn):
    torch.rand(7)
    np.random.default_rng().random()
    assert np.array_equal(make.frames(make.SHOTS[2]), drawn[2])


def test_two_threads_differ_by_rounding_at_most(drawn):
    import kinema

    torch.set_num_threads(2)
    try:
        shot = kinema.Shot.from_mapping({**make.SHOTS[0], "device": "cpu"})
        mean, most = distance(kinema.render(shot).array(), drawn[0])
    finally:
        torch.set_num_threads(1)
    assert mean < 0.02
    assert most <= 2


def test_a_file_has_the_same_bytes_twice(tmp_path):
    import kinema

    for name in ("a.mp4", "b.mp4"):
        kinema.render(kinema.Shot.from_mapping(make.SHOTS[2] | {"frames": 5, "steps": 1})).save(
            tmp_path / name
        )
    assert Path(tmp_path / "a.mp4").read_bytes() == Path(tmp_path / "b.mp4").read_bytes()
