"""Which forwards a plan's guidance asks for: where a first step is left out, and how many there are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import kinema
from kinema.pipelines.estimate import estimate
from kinema.pipelines.network import Network
from kinema.pipelines.planning import make_plan
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


# The plan's count


LONG = {"frames": 33, "windows": {"kind": "fuse", "length": 9, "overlap": 4}, "steps": 2}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"guidance": 1},
        {"guidance_method": "cfg-zero"},
        {"guidance_method": "cfg-zero", "solver": "heun"},
        {"guidance_interval": [0.5, 0.8], "solver": "heun"},
        {"source": 0.3, "steps": 10},
        {"source": 0.0},
        {"source": 0.6, "guidance_method": "cfg-zero", "guidance_interval": [0, 0.4], "steps": 10},
        {"keyframes": "@4:0.4", "guidance_interval": [0.2, 0.7]},
        {"extend": True, "frames": 8, "guidance_interval": [0, 0.7], "skip_layers": "1:2"},
        LONG,
        {**LONG, "steps": 4, "guidance_interval": [0.5, 0.9], "windows": "continue"},
        {**LONG, "prompt": {0: "a", 16: "b"}, "negative": {0: "c", -1: "d"}, "blend": "velocity"},
    ],
)
def test_the_plan_counts_the_forwards_that_are_run(model, source, tmp_path, monkeypatch, fields):
    ran, own = [], Network.ask

    def counted(self, x, step, names, forwards):
        return own(self, x, step, names, lambda *given: ran.append(len(given[2])) or forwards(*given))

    monkeypatch.setattr(Network, "ask", counted)
    if "source" in fields:
        fields = {**fields, "source": {"path": source, "strength": fields["source"]}}
    if "extend" in fields:
        fields = {**fields, "extend": source, "fps": 8}
    if "keyframes" in fields:
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.png")
        fields = {**fields, "keyframes": [f"{tmp_path / 'a.png'}{fields['keyframes']}"]}
    plan = make_plan(shot(model, **{"guidance": 3, **fields}), model.card)
    kinema.render(shot(model, **{"guidance": 3, **fields}), model=model)
    assert estimate(plan, model.card).forwards == sum(ran)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"guidance_method": "cfg-zero"},
        {"guidance_interval": [0.3, 0.5]},
        {"solver": "heun", "guidance": "0:(3), 2:(1)"},
        {"skip_layers": "1:2", "guidance_interval": [0, 0.4]},
        {"prompt": {0: "a", 2: "b"}, "blend": "velocity"},
    ],
)
def test_of_frames_that_are_drawn_one_by_one_too(model, monkeypatch, fields):
    ran, own = [], Network.ask

    def counted(self, x, step, names, forwards):
        return own(self, x, step, names, lambda *given: ran.append(len(given[2])) or forwards(*given))

    monkeypatch.setattr(Network, "ask", counted)
    redraw = {"mode": "frame_by_frame", "redraw": {"strength": 0.6}, "frames": 3, "guidance": 3}
    drawn = shot(model, **{**redraw, **fields})
    plan = make_plan(drawn, model.card)
    kinema.render(drawn, model=model).array()
    assert estimate(plan, model.card).forwards == sum(ran)
