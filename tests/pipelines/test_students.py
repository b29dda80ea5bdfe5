"""`speed: distilled`: the student that comes with a model, its sampler, and what it cannot be asked for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import kinema
import kinema.cli
from checkpoints import save_student
from kinema.core.errors import ConfigError, ModelError
from kinema.diffusion.guidance import COND, UNCOND
from kinema.pipelines.cards import read_card
from kinema.pipelines.network import Network
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

WEIGHTS = "student/pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def taught(small, tmp_path_factory):
    """The folder of a small model with a student."""
    return save_student(shutil.copytree(small, tmp_path_factory.mktemp("taught") / "model"))


@pytest.fixture
def card(taught):
    return read_card(str(taught))


def asked(card, **fields):
    return Shot(**{"model": card.id, "prompt": "a fox", "seed": 1, "speed": "distilled", **fields})


def plan_of(card, **fields):
    return make_plan(asked(card, **fields), card)


@pytest.mark.parametrize("more", [{}, {"keyframes": ["first"]}, {"frames": 1}])
def test_it_is_the_model_with_the_additions_and_the_sampler_written_by_hand(card, taught, tmp_path, more):
    import imageio.v3 as iio

    if "keyframes" in more:
        iio.imwrite(tmp_path / "first.png", np.full((64, 64, 3), 200, np.uint8))
        more = {"keyframes": [str(tmp_path / "first.png")]}
    model = kinema.load(card.id)
    by_hand = {
        "steps": 2,
        "solver": "euler",
        "grid": "wan-euler",
        "shift": 2.0,
        "guidance": 1,
        "speed": "exact",
    }
    lora = {"path": str(taught / WEIGHTS), "merge": True}
    clips = [
        np.asarray(kinema.render(asked(card, **more, **fields), model=model).frames)
        for fields in ({}, {**by_hand, "loras": [lora]}, by_hand)
    ]
    assert np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


def test_each_step_is_one_call_of_the_transformer(card, monkeypatch):
    calls, own = [], Network.__call__
    monkeypatch.setattr(Network, "__call__", lambda *args: calls.append(args[3]) or own(*args))
    kinema.render(asked(card))
    assert calls == [(COND,)] * 2


@pytest.fixture(scope="module")
def half_taught(taught, tmp_path_factory):
    """A student that learned not all of the guidance."""
    folder = shutil.copytree(taught, tmp_path_factory.mktemp("half") / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["student"] |= {"guidance": 1.5, "guidance_interval": [0.6, 0.9]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return read_card(str(folder))


def test_what_a_student_did_not_learn_of_the_guidance_is_added_at_its_noise_levels(half_taught, monkeypatch):
    """Its levels are 1 and 0.667."""
    calls, own = [], Network.__call__
    monkeypatch.setattr(Network, "__call__", lambda *args: calls.append(args[3]) or own(*args))
    kinema.render(asked(half_taught))
    assert [sorted(names) for names in calls] == [[COND], sorted([COND, UNCOND])]
    plan = plan_of(half_taught)
    assert (set(plan.sampling.guidance), plan.sampling.interval) == ({1.5}, (0.6, 0.9))
    assert any("guidance 1.5 at noise levels 0.6 to 0.9" in note for note in plan.notes)
    again = make_plan(Shot.from_mapping(plan.shot), half_taught)
    assert again.digest == plan.digest
    assert plan_of(half_taught, guidance_interval=(0, 1)).sampling.interval == (0, 1), "as it was written"


def test_its_guidance_may_be_left_off_and_is_where_frames_are_held(half_taught, tmp_path):
    import imageio.v3 as iio

    iio.imwrite(tmp_path / "first.png", np.full((64, 64, 3), 200, np.uint8))
    held = plan_of(half_taught, keyframes=[str(tmp_path / "first.png")])
    for plan in (held, plan_of(half_taught, guidance=1)):
        assert set(plan.sampling.guidance) == {1.0}
        assert any("without guidance" in note for note in plan.notes)
    with pytest.raises(ConfigError, match=r"guidance 1.5, or 1 for none"):
        plan_of(half_taught, guidance=3)


def test_a_negative_prompt_acts_with_its_guidance(half_taught):
    assert not any("negative" in note for note in plan_of(half_taught, negative="a hat").notes)
    assert any("negative" in note for note in plan_of(half_taught, negative="a hat", guidance=1).notes)


def test_a_record_makes_the_same_clip_and_names_no_file_of_this_machine(card):
    plan = plan_of(card)
    assert plan.shot["speed"] == "distilled"
    assert not plan.shot.get("loras")
    again = make_plan(Shot.from_mapping(plan.shot), card)
    assert again.digest == plan.digest


def test_a_students_own_additions_come_before_the_users(card, taught, tmp_path):
    shutil.copy(taught / WEIGHTS, tmp_path / "style.safetensors")
    plan = plan_of(card, loras=[f"{tmp_path}/style.safetensors:0.5"])
    assert [(lora.merge, lora.scale) for lora in plan.loras] == [(True, (1.0,)), (False, (0.5,))]


def test_a_negative_prompt_is_said_not_to_act(card):
    assert not any("negative" in note for note in plan_of(card).notes)
    assert any("negative prompt does not act" in note for note in plan_of(card, negative="a hat").notes)
    assert not any("negative" in note for note in plan_of(card, negative="a hat", nag=8).notes)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 5}, "steps 2, not 5"),
        ({"solver": "unipc"}, "solver euler, not unipc"),
        ({"shift": 1.5}, "shift 2.0, not 1.5"),
        ({"guidance": 3}, "at guidance 1 alone"),
        ({"guidance": "0:(1), 8:(2)"}, "at guidance 1 alone"),
        ({"shortcuts": {"cache": "first-block"}}, "leave shortcuts or"),
    ],
)
def test_what_it_was_not_taught_is_refused(card, fields, words):
    with pytest.raises(ConfigError, match=words):
        plan_of(card, **fields)


def test_a_model_without_one_says_what_to_do(small, wan):
    for folder in (small, wan("t2v")):
        with pytest.raises(ConfigError, match="comes with a student"):
            plan_of(read_card(str(folder)))


def test_the_card_is_told(card, small, capsys):
    assert kinema.cli.run(["models", card.id]) == 0
    words = "2 steps of euler, grid wan-euler, shift 2, no guidance (--speed distilled)"
    assert words in capsys.readouterr().out
    assert kinema.cli.run(["models", str(small)]) == 0
    assert "distilled" not in capsys.readouterr().out


def test_frames_drawn_one_by_one_are_exact(card):
    plan = plan_of(card, mode="frame_by_frame", frames=3)
    assert plan.shot["speed"] == "exact"
    assert not plan.loras
    assert any("speed distilled is off" in note for note in plan.notes)


@pytest.mark.parametrize(
    "student",
    [
        {"steps": 0},
        {"steps": "6"},
        {"shift": -1},
        {"weights": "/etc/passwd"},
        [],
        {"guidance": 0.5},
        {"guidance": "3x"},
        {"guidance_interval": [0.9, 0.1]},
        {"guidance_interval": 3},
    ],
)
def test_a_damaged_entry_is_one_line(taught, tmp_path, student):
    folder = shutil.copytree(taught, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["student"] = {**index["student"], **student} if isinstance(student, dict) else student
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError) as raised:
        read_card(str(folder))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named_before_weights_load(taught, tmp_path):
    folder = shutil.copytree(taught, tmp_path / "model")
    (folder / WEIGHTS).unlink()
    with pytest.raises(kinema.KinemaError, match="pytorch_lora_weights"):
        plan_of(read_card(str(folder)))
