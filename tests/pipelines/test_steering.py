"""`nag` and `skip_layers`: read, checked, acting in every mode that has them, off where they say so."""

from __future__ import annotations

import re

import numpy as np
import pytest

import kinema
from kinema.core.errors import ConfigError
from kinema.diffusion.guidance import COND, SKIP, UNCOND
from kinema.pipelines.cards import read_card
from kinema.pipelines.estimate import estimate
from kinema.pipelines.network import Network
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot


def clip(model, **fields) -> np.ndarray:
    shot = {"prompt": "a red fox", "size": "32x32", "frames": 5, "steps": 4, "seed": 1, **fields}
    return kinema.render(Shot(**shot), model=model).array()


@pytest.fixture(scope="module", params=["embedded", "t2v"])
def model(request, small, wan):
    return kinema.load(str(small if request.param == "embedded" else wan("t2v")))


def test_a_negative_prompt_acts_without_guidance(model):
    plain = clip(model, guidance=1)
    assert np.array_equal(clip(model, guidance=1, negative="a hat"), plain)
    led = clip(model, guidance=1, negative="a hat", nag=8)
    assert not np.array_equal(led, plain)
    assert not np.array_equal(clip(model, guidance=1, negative="a cow", nag=8), led)
    assert np.array_equal(clip(model, guidance=1, negative="a hat", nag={"alpha": 0}), plain)


def test_it_goes_beside_guidance_in_windows_and_frame_by_frame(model):
    long = {
        "frames": 13,
        "windows": {"kind": "fuse", "length": 9, "overlap": 4},
        "negative": {0: "a", -1: "b"},
    }
    for more in ({}, long, {"mode": "frame_by_frame", "frames": 2}):
        plain = clip(model, guidance=3, **more)
        for fields in ({"nag": 8}, {"skip_layers": 1}):
            assert not np.array_equal(clip(model, guidance=3, **more, **fields), plain)


def test_a_skipped_layer_costs_one_forward_where_it_acts(model, monkeypatch):
    asked, own = [], Network.__call__
    monkeypatch.setattr(Network, "__call__", lambda *args: asked.append(args[3]) or own(*args))
    plain = clip(model, guidance=3)
    assert set(asked) == {(COND, UNCOND)}
    asked.clear()
    low = clip(model, guidance=3, skip_layers={"layers": [0], "scale": 2, "interval": [0.6, 1]})
    assert set(asked) == {(COND, UNCOND), (COND, UNCOND, SKIP)}
    shot = {"prompt": "a fox", "size": "32x32", "frames": 5, "steps": 4, "guidance": 3}
    plan = make_plan(
        Shot(**shot, skip_layers={"layers": [0], "scale": 2, "interval": [0.6, 1]}, model=model.card.id),
        model.card,
    )
    assert estimate(plan, model.card).forwards == sum(map(len, asked))
    assert not np.array_equal(low, plain)
    asked.clear()
    assert np.array_equal(clip(model, guidance=3, skip_layers={"layers": [0], "scale": 0}), plain)
    assert set(asked) == {(COND, UNCOND)}
    asked.clear()
    clip(model, guidance=1, skip_layers="1:2")
    assert set(asked) == {(COND, SKIP)}


def test_the_negative_side_may_do_without_at_no_cost(model, monkeypatch):
    asked, own = [], Network.__call__
    monkeypatch.setattr(Network, "__call__", lambda *args: asked.append(args[3]) or own(*args))
    plain, without = clip(model, guidance=3), clip(model, guidance=3, skip_layers="1:negative")
    late = clip(model, guidance=3, skip_layers={"layers": [1], "side": "negative", "interval": [0, 0.01]})
    assert not np.array_equal(without, plain)
    assert np.array_equal(late, plain)
    assert set(asked) == {(COND, UNCOND)}


def test_shortcuts_are_off_beside_skipped_layers(small):
    card = read_card(str(small))
    shot = {"model": card.id, "prompt": "a", "steps": 20, "shortcuts": {"cache": "schedule", "skip": [5]}}
    plan = make_plan(Shot(**shot, skip_layers=1), card)
    assert not plan.sampling.shortcuts.acts
    assert any("guidance by skipped layers" in note for note in plan.notes)
    assert make_plan(Shot(**shot, nag=5), card).sampling.shortcuts.acts


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"nag": 8}, {"nag": {"scale": 8, "tau": 2.5, "alpha": 0.25}}),
        ({"nag": "8"}, {"nag": {"scale": 8.0}}),
        ({"skip_layers": 9}, {"skip_layers": {"layers": [9]}}),
        ({"skip_layers": "9, 3,9"}, {"skip_layers": {"layers": [3, 9], "scale": 1}}),
        ({"skip_layers": "9:2.8"}, {"skip_layers": {"layers": [9], "scale": 2.8}}),
        ({"skip_layers": "9,10: negative"}, {"skip_layers": {"layers": [9, 10], "side": "negative"}}),
    ],
)
def test_short_forms(written, meant):
    one, other = Shot(**written), Shot(**meant)
    assert (one.nag, one.skip_layers) == (other.nag, other.skip_layers)
    assert Shot.from_mapping(one.to_mapping()) == one


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"skip_layers": "nine"}, "names no layers"),
        ({"skip_layers": {"layers": []}}, "layers"),
        ({"skip_layers": {"layers": [1], "interval": [0.9, 0.1]}}, "falls"),
        ({"skip_layers": 2}, "names block 2, and .* has 2; name 0 to 1"),
        ({"skip_layers": "0,1"}, "names all 2 blocks"),
        ({"skip_layers": "1:positive"}, "names no layers"),
        ({"skip_layers": {"layers": [1], "side": "negative", "scale": 2}}, "guidance is the scale"),
        ({"skip_layers": "1:negative", "guidance": 1}, "write side: own"),
        ({"nag": 0.5}, "nag"),
        ({"nag": {"tau": 0}}, "tau"),
        ({"nag": True}, "nag"),
        ({"nag": 5, "negative": {0: "a", 4: "b"}, "blend": "velocity"}, "leave blend: velocity out"),
        ({"nag": 5, "prompt": {0: "a (b:-1)", 4: "c"}, "blend": "velocity"}, "leave blend: velocity out"),
    ],
)
def test_what_cannot_be_is_said(small, fields, words):
    card = read_card(str(small))
    with pytest.raises(ConfigError, match=words):
        make_plan(Shot(**{"model": card.id, "prompt": "a fox", **fields}), card)


@pytest.mark.parametrize("fields", [{"nag": 5}, {"skip_layers": 1}])
def test_other_pipelines_have_no_place_for_them(image_model, foreign, fields):
    for folder, more in ((image_model("sd"), {"mode": "frame_by_frame"}), (foreign("ltx"), {})):
        card = read_card(str(folder))
        with pytest.raises(ConfigError, match="leave it out"):
            make_plan(Shot(model=card.id, prompt="a fox", **more, **fields), card)


def test_the_plan_shows_them(small, capsys):
    from kinema.cli import run

    argv = [
        "plan",
        "a fox",
        "--model",
        str(small),
        "--nag",
        "5",
        "--skip-layers",
        "1:2.5",
        "--negative",
        "a hat",
    ]
    assert run(argv) == 0
    assert "cfg, nag 5, without 1: 2.5" in capsys.readouterr().out


@pytest.mark.parametrize("skip", ["0:2", "1:2", "0:negative"])
def test_streamed_blocks_give_the_same_pixels(wan, skip):
    shot = Shot(
        model=str(wan("t2v")), prompt="a fox", negative="a hat", size="32x32", frames=5, steps=3, seed=1,
        guidance=3, nag=5, skip_layers=skip,
    )  # fmt: skip
    clips = [kinema.render(shot, memory=memory).array() for memory in ("whole", "component", "block")]
    assert np.array_equal(clips[0], clips[1])
    assert np.array_equal(clips[0], clips[2])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"guidance_interval": [0.3, 0.45]}, r"guidance acts in no step.* from 0\.3 to 0\.45 \(.* 1, 0\.5\)"),
        ({"guidance_interval": [0.3, 0.5]}, None),
        ({"steps": 10, "guidance_interval": [0.7, 0.7]}, None),
        ({"guidance_interval": [0.3, 0.45], "guidance": 1}, None),
        ({"guidance_interval": [0.3, 0.45], "guidance": "0:(1), 4:(3)"}, "guidance acts in no step"),
        ({"skip_layers": {"layers": [1], "interval": [0.6, 0.9]}}, "skip_layers acts in no step"),
        ({"source": 0.4, "guidance_interval": [0.5, 1]}, r"guidance acts in no step.*\(they begin at 0\.4\)"),
        ({"source": 0.0, "guidance_interval": [0.5, 1]}, None),
        ({"steps": 20, "guidance_interval": [0.96, 0.99]}, r"begin at 1 to 0\.05"),
    ],
)
def test_guidance_that_no_step_reaches_is_said(small, tmp_path, fields, said):
    """The levels of two steps at shift 1 are 1 and 0.5."""
    if "source" in fields:
        kinema.Clip(np.zeros((5, 64, 64, 3), np.uint8), 8).save(tmp_path / "a.mp4")
        fields = {**fields, "source": {"path": str(tmp_path / "a.mp4"), "strength": fields["source"]}}
    base = {"model": str(small), "prompt": "a fox", "frames": 5, "steps": 2, "shift": 1, "guidance": 3}
    plan = make_plan(Shot(**base | {"grid": "wan-euler"} | fields), read_card(str(small)))
    notes = [note for note in plan.notes if "acts in no step" in note]
    assert len(notes) == (said is not None)
    assert said is None or re.search(said, notes[0])
