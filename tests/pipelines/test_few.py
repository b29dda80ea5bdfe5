"""`speed: few`: the sampler of few steps that a model was measured with."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import kinema
import kinema.cli
from kinema.core.errors import ConfigError, ModelError
from kinema.diffusion.guidance import COND, UNCOND
from kinema.evaluation.examine import Wishes, sampling_of
from kinema.evaluation.subject import Sampling
from kinema.pipelines.cards import read_card
from kinema.pipelines.network import Network
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

FEW = {"steps": 3, "solver": "euler", "grid": "wan-euler", "shift": 2.0, "guidance_interval": [0.6, 1.0]}


def with_few(small, folder, **values):
    """A copy of the small model that names a sampler of few steps."""
    made = shutil.copytree(small, folder)
    index = json.loads((made / "model_index.json").read_text())
    index.pop("student", None)
    index["few"] = {**FEW, **values}
    (made / "model_index.json").write_text(json.dumps(index))
    return made


@pytest.fixture(scope="module")
def card(small, tmp_path_factory):
    return read_card(str(with_few(small, tmp_path_factory.mktemp("few") / "model")))


def asked(card, **fields):
    return Shot(**{"model": card.id, "prompt": "a fox", "seed": 1, "speed": "few", **fields})


def plan_of(card, **fields):
    return make_plan(asked(card, **fields), card)


def test_it_is_its_sampler_written_by_hand(card):
    model = kinema.load(card.id)
    by_hand = {**FEW, "guidance_interval": (0.6, 1.0), "speed": "exact"}
    clips = [
        np.asarray(kinema.render(asked(card, **fields), model=model).frames)
        for fields in ({}, by_hand, {**by_hand, "shift": 1.0})
    ]
    assert np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


def test_below_its_noise_levels_a_step_is_one_call(card, monkeypatch):
    """The levels are 1, 0.8 and 0.5."""
    calls, own = [], Network.__call__
    monkeypatch.setattr(Network, "__call__", lambda *args: calls.append(sorted(args[3])) or own(*args))
    kinema.render(asked(card))
    both = sorted([COND, UNCOND])
    assert calls == [both, both, [COND]]


def test_it_is_told_and_its_record_makes_the_same_clip(card):
    plan = plan_of(card)
    assert any("few: 3 steps of euler, guidance at noise levels 0.6 to 1." in note for note in plan.notes)
    assert plan.shot["speed"] == "few"
    assert make_plan(Shot.from_mapping(plan.shot), card).digest == plan.digest


def test_what_the_shot_says_itself_stands(card):
    sampling = plan_of(card, steps=4, shift=1.5, guidance_interval=(0.7, 0.9), guidance=2).sampling
    assert (sampling.steps, sampling.interval, set(sampling.guidance)) == (4, (0.7, 0.9), {2.0})
    assert sampling.shift == 1.5
    assert sampling.solver == "euler"
    everywhere = plan_of(card, guidance_interval=(0, 1))
    assert everywhere.sampling.interval == (0, 1)
    assert any("guidance at noise levels 0 to 1." in note for note in everywhere.notes)
    assert make_plan(Shot.from_mapping(everywhere.shot), card).digest == everywhere.digest
    kept = asked(card, guidance_interval=(0, 1)).to_mapping()  # of a queue, a saved file, a killed render
    assert make_plan(Shot.from_mapping(kept), card).digest == everywhere.digest


def test_without_guidance_none_is_told(card, tmp_path):
    import imageio.v3 as iio

    iio.imwrite(tmp_path / "first.png", np.full((64, 64, 3), 200, np.uint8))
    for fields in ({"guidance": 1}, {"keyframes": [str(tmp_path / "first.png")]}):
        plan = plan_of(card, **fields)
        assert set(plan.sampling.guidance) == {1.0}
        assert any(note == "few: 3 steps of euler." for note in plan.notes)


def test_of_a_clip_that_is_made_over_the_steps_that_are_done_are_told(card, tmp_path):
    """The levels are 1, 0.8 and 0.5."""
    kinema.Clip(np.zeros((5, 64, 64, 3), np.uint8), 8).save(tmp_path / "a.mp4")
    for strength, said in ((0.7, "2 of the 3 steps are done: those below strength 0.7."), (1, None)):
        notes = plan_of(card, source={"path": str(tmp_path / "a.mp4"), "strength": strength}).notes
        assert [note for note in notes if "steps are done" in note] == ([] if said is None else [said])


def test_what_cannot_be_is_one_line(card, small, wan):
    for folder in (small, wan("t2v")):
        with pytest.raises(ConfigError, match="measured in few steps"):
            plan_of(read_card(str(folder)))
    with pytest.raises(ConfigError, match="each of which counts"):
        plan_of(card, shortcuts={"cache": "first-block"})


def test_frames_drawn_one_by_one_are_exact(card):
    plan = plan_of(card, mode="frame_by_frame", frames=3)
    assert plan.shot["speed"] == "exact"
    assert any("speed few is off" in note for note in plan.notes)


def test_the_card_is_told(card, capsys):
    assert kinema.cli.run(["models", card.id]) == 0
    assert "3 steps of euler, grid wan-euler, shift 2, guidance" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"shift": "x"}, {"guidance_interval": [0.9, 0.1]}, {"more": 1}]
)
def test_a_damaged_entry_is_one_line(small, tmp_path, wrong):
    with pytest.raises(ModelError) as raised:
        read_card(str(with_few(small, tmp_path / "model", **wrong)))
    assert "\n" not in str(raised.value)


def test_it_is_judged_as_it_is_rendered(card):
    found = sampling_of(Wishes(speed="few"), card)
    assert isinstance(found, Sampling)
    plan = plan_of(card)
    assert (found.steps, found.shift, found.solver) == (3, plan.sampling.shift, plan.sampling.solver)
    assert found.interval == plan.sampling.interval == (0.6, 1.0)
    assert {found.guidance} == set(plan.sampling.guidance)
    assert sampling_of(Wishes(), card).steps == card.defaults.steps
    with pytest.raises(ConfigError, match="cannot be judged"):
        Wishes(speed="near")
