"""The spiral film: its parts state facts, and a quick one is made from beginning to end."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "samples" / "spiral.py"


@pytest.fixture(scope="module")
def spiral():
    spec = spec_from_file_location("spiral", SCRIPT)
    module = module_from_spec(spec)
    sys.modules["spiral"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scene(spiral):
    return spiral.scene(spiral.QUICK)


def test_data_lies_on_the_arms_of_its_labels_and_covers_them(spiral):
    labels = torch.arange(1800) % 3
    points = spiral.spiral(labels, torch.Generator().manual_seed(0))
    close, covered = spiral.score(points, labels)
    assert close > 0.97
    assert covered > 0.9
    assert points.std().item() == pytest.approx(1, abs=0.1)
    assert spiral.score(points, (labels + 1) % 3)[0] < 0.4


def test_the_score_notices_a_half_empty_arm(spiral):
    labels = torch.arange(1800) % 3
    half = spiral.on_arm(0.8 + 0.2 * torch.rand(1800), labels)
    close, covered = spiral.score(half, labels)
    assert close == 1
    assert covered < 0.5


def test_six_ways_start_from_the_same_noise(spiral, scene):
    assert [way.title.split(",")[0] for way in scene.ways] == ["DDPM", "DDIM", "Flow matching"] * 2
    for way, road in zip(scene.ways, scene.roads, strict=True):
        assert road.shape == (len(way.sigmas), spiral.QUICK.points, 2)
        torch.testing.assert_close(road[0], scene.noise_N2, atol=1e-4, rtol=0)
        assert bool(torch.isfinite(road).all())
    assert not torch.equal(scene.roads[2][-1], scene.roads[5][-1])  # guidance moved something


def test_the_forward_process_ends_at_the_noise_the_way_back_starts_from(scene):
    for way in scene.ways:
        torch.testing.assert_close(way.noised(scene.clean_N2, scene.noise_N2, 0.0), scene.clean_N2)
        torch.testing.assert_close(way.noised(scene.clean_N2, scene.noise_N2, 1.0), scene.noise_N2)


def test_the_drawn_field_is_the_one_the_points_follow(scene):
    """A tiny step of the deterministic flow moves a point along its arrow, on either path."""
    for way in (scene.ways[1], scene.ways[2]):
        before, after = way.sigmas[2:4].double()
        point = scene.roads[scene.ways.index(way)][2]
        field = way.field(point, scene.labels_N, float(before))
        step = scene.roads[scene.ways.index(way)][3] - point
        along = torch.nn.functional.cosine_similarity(field, step.float())
        assert along.median() > 0.9, (way.title, float(before - after))


def test_training_teaches_the_label(spiral):
    net = spiral.train(spiral.Settings(train_steps=150, batch=256, width=48), None)
    way = spiral.Way("", net, None, "euler", spiral.flow.sigmas(8, 1.0), 1.0)
    labels = torch.arange(150) % 3
    ended = way.run(torch.randn(150, 2, generator=torch.Generator().manual_seed(1)), labels, 0)[-1]
    assert spiral.score(ended, labels)[0] > spiral.score(ended, (labels + 1) % 3)[0]


def test_the_same_seed_makes_the_same_film(spiral, scene):
    assert np.array_equal(spiral.scene(spiral.QUICK).back(0.6), scene.back(0.6))


@pytest.mark.slow
def test_the_script_makes_a_film(tmp_path, spiral):
    out = tmp_path / "spiral.mp4"
    subprocess.run([sys.executable, SCRIPT, "-o", out, "--quick"], check=True, capture_output=True)
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    quick = spiral.QUICK
    assert len(frames) == pytest.approx(sum(quick.seconds) * quick.fps, abs=1)
    assert frames[0].shape == (720, 1280, 3)
    moved = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    assert max(moved[:-2]) > 0.5  # it moves,
    assert moved[-1] < 0.2  # and then rests
