"""Which forwards a plan's guidance asks for: where a first step is left out, and how many there are."""

from __future__ import annotations

import numpy as np
import pytest

import kinema
from kinema.pipelines.network import Network
from kinema.story.shot import Shot


@pytest.fixture(scope="module")
def model(small):
    return kinema.load(str(small), device="cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "source.mp4"
    pixels = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    kinema.Clip(pixels, 8).save(path)
    return str(path)


@pytest.fixture
def asked(monkeypatch):
    """What every call of the network was asked for, as (step, predictions)."""
    calls, own = [], Network.__call__

    def spied(self, x, step, names):
        calls.append((step.index, len(names)))
        return own(self, x, step, names)

    monkeypatch.setattr(Network, "__call__", spied)
    return calls


def shot(model, **fields):
    return Shot(**{"model": model.card.id, "prompt": "a fox", "seed": 1, "frames": 5, "steps": 4, **fields})


BOTH = [(0, 2), (1, 2), (2, 2), (3, 2)]


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({}, BOTH[1:]),
        ({"steps": 1}, BOTH[:1]),
        ({"guidance": 1}, [(index, 1) for index in range(4)]),
        ({"guidance_interval": [0, 0.9]}, [(0, 1), *BOTH[1:]]),
        ({"solver": "heun", "steps": 3}, [(1, 2), (1, 2), (2, 2)]),
    ],
)
def test_cfg_zero_leaves_out_a_guided_first_step_where_others_follow(model, asked, fields, calls):
    kinema.render(shot(model, guidance_method="cfg-zero", **{"guidance": 3, **fields}), model=model)
    assert asked == calls


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_cfg_zero_takes_every_step_of_a_clip_that_is_made_over(model, asked, source, solver):
    """Latents that stood still while the level fell would keep noise that no step takes away."""
    over = {"source": {"path": source, "strength": 0.6}, "solver": solver, "guidance": 3}
    kinema.render(shot(model, **over), model=model)
    plain = asked.copy()
    asked.clear()
    kinema.render(shot(model, guidance_method="cfg-zero", **over), model=model)
    assert asked == plain
    assert plain[0] == (0, 2)
