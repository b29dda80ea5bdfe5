"""`--speed` beside a clip that kinema made: its record is resolved, and has what its own speed has chosen."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import kinema
from checkpoints import save_student
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.pipelines.source import read_request
from kinema.pipelines.speed.calibration import Calibration, Conditions, Measured, store
from kinema.story.shortcuts import Shortcuts
from kinema.story.shot import Shot

SPEEDS = ("exact", "near", "few", "distilled")
CUTS = Shortcuts.make(cache="schedule", skip=[5, 7])
FEW = {"steps": 3, "solver": "euler", "grid": "wan-euler", "shift": 2.0, "guidance_interval": [0.6, 1.0]}
STUDENT = {**FEW, "steps": 4, "guidance": 1.5, "guidance_interval": [0.7, 0.9]}


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """A model with every speed; near is 18 of 20 steps with shortcuts."""
    made = save_student(shutil.copytree(small, tmp_path_factory.mktemp("speeds") / "model"))
    index = json.loads((made / "model_index.json").read_text())
    index["defaults"]["steps"] = 20  # near leaves nothing out of fewer than 12
    (made / "model_index.json").write_text(json.dumps({**index, "few": FEW, "student": STUDENT}))
    return made


@pytest.fixture
def card(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "cache"))
    card = read_card(str(folder))
    d = card.defaults
    conditions = Conditions(
        steps=d.steps, solver=d.solver, grid=d.grid, shift=d.shift, method="cfg", interval=(0.0, 1.0),
        guidance=3.0, width=64, height=64, frames=9,
    )  # fmt: skip
    near = Measured(steps=d.steps - 2, shortcuts=CUTS, psnr=37.0, low=35.5, worst=35.2, forwards=27)
    store(card, Calibration(conditions=conditions, forwards=40, clips=12, tiers={"near": near}))
    return card


def asked(card, **fields):
    return make_plan(Shot(**{"model": card.id, "prompt": "a fox", "seed": 1, "frames": 5, **fields}), card)


def record_of(plan, path):
    record = kinema.Record(shot=plan.shot)
    return kinema.Clip(np.zeros((1, 8, 8, 3), np.uint8), 8, record).save(path, overwrite=True)


def changed(card, tmp_path, changes, **fields):
    """The plan of a clip's record with changes."""
    clip = record_of(asked(card, **fields), tmp_path / "made.png")
    return make_plan(read_request(clip, changes=changes), card)


@pytest.mark.parametrize("before", SPEEDS)
@pytest.mark.parametrize("after", SPEEDS)
def test_the_clip_is_the_one_that_has_this_speed_from_the_start(card, tmp_path, before, after):
    plan = changed(card, tmp_path, {"speed": after}, speed=before)
    assert plan.sampling == asked(card, speed=after).sampling
    assert plan.shot == asked(card, speed=after).shot


def test_what_differs_from_the_speeds_own_choice_was_written_and_stands(card, tmp_path):
    plan = changed(card, tmp_path, {"speed": "few"}, steps=7, guidance_interval=(0.2, 0.8), guidance=4)
    assert (plan.sampling.steps, plan.sampling.interval) == (7, (0.2, 0.8))
    assert set(plan.sampling.guidance) == {4.0}
    assert (plan.sampling.solver, plan.sampling.shift) == ("euler", 2.0)
    plan = changed(card, tmp_path, {"speed": "exact"}, speed="few", steps=7)
    assert (plan.sampling.steps, plan.sampling.shift) == (7, card.defaults.shift)


def test_what_is_said_beside_the_speed_counts(card, tmp_path):
    plan = changed(card, tmp_path, {"speed": "few", "steps": "5", "shift": "1.5"})
    assert (plan.sampling.steps, plan.sampling.shift, plan.sampling.solver) == (5, 1.5, "euler")


def test_without_another_speed_a_record_stays_to_the_letter(card, tmp_path):
    for changes in ({}, {"seed": 2}, {"speed": "near"}):
        plan = changed(card, tmp_path, changes, speed="near")
        assert plan.sampling.shortcuts == CUTS
        assert plan.sampling.steps == card.defaults.steps - 2


def test_each_shot_of_a_storyboard_changes(card, tmp_path):
    shots = [asked(card, speed=speed).shot for speed in ("exact", "few")]
    record = kinema.Record(shot={"shots": shots})
    clip = kinema.Clip(np.zeros((1, 8, 8, 3), np.uint8), 8, record).save(tmp_path / "board.png")
    board = read_request(clip, changes={"speed": "few"})
    assert {make_plan(shot, card).digest for shot in board.shots} == {asked(card, speed="few").digest}


def test_of_a_shot_file_the_steps_are_those_that_were_written(card, tmp_path):
    path = tmp_path / "shot.yaml"
    path.write_text(f"{{prompt: a fox, model: {card.id}, frames: 5, steps: {card.defaults.steps}}}")
    plan = make_plan(read_request(path, changes={"speed": "few"}), card)
    assert plan.sampling.steps == card.defaults.steps
