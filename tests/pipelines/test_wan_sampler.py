"""A Wan checkpoint is sampled with the scheduler that it brings, as diffusers' pipeline samples it."""

from __future__ import annotations

import json
import shutil

import diffusers
import numpy as np
import pytest
import torch

import kinema
from kinema.cli import run
from kinema.core.errors import ModelError
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.pipelines.wan_sampler import CLASSES
from kinema.story.shot import Shot

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
BOUND = 1e-4


@pytest.fixture
def brings(wan, tmp_path):
    """A checkpoint with this scheduler, as diffusers saves it, but for these entries."""

    def folder(scheduler, without=(), **entries):
        path = shutil.copytree(wan("t2v"), tmp_path / "wan", dirs_exist_ok=True)
        scheduler.save_pretrained(path / "scheduler")
        written = path / "scheduler" / "scheduler_config.json"
        config = json.loads(written.read_text()) | entries
        written.write_text(json.dumps({k: v for k, v in config.items() if k not in without}))
        index = json.loads((path / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", config["_class_name"]]
        (path / "model_index.json").write_text(json.dumps(index))
        return path

    return folder


def sampler(folder):
    d = read_card(str(folder)).defaults
    return d.solver, d.grid, d.shift


SCHEDULERS = {
    "euler": (lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0), (), "diffusers-euler", 5.0),
    "euler, none said": (diffusers.FlowMatchEulerDiscreteScheduler, ("shift",), "diffusers-euler", 1.0),
    "heun": (lambda: diffusers.FlowMatchHeunDiscreteScheduler(shift=4.0), (), "diffusers-euler", 4.0),
    "unipc": (lambda: diffusers.UniPCMultistepScheduler(**FLOW, flow_shift=5.0), (), "diffusers", 5.0),
    "unipc, none said": (
        lambda: diffusers.UniPCMultistepScheduler(**FLOW),
        ("flow_shift",),
        "diffusers",
        1.0,
    ),
    "dpm++2m": (
        lambda: diffusers.DPMSolverMultistepScheduler(**FLOW, flow_shift=4.0),
        (),
        "diffusers-dpm++",
        4.0,
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_clip_is_that_of_wan_pipeline(brings, name):
    make, without, grid, shift = SCHEDULERS[name]
    folder = brings(make(), without)
    solver = name.partition(",")[0]
    assert sampler(folder) == (solver, grid, shift)
    latents = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    call = {
        "prompt": "a red fox",
        "negative_prompt": "the dog",
        "num_inference_steps": 4,
        "guidance_scale": 4.0,
    }
    call |= {"num_frames": 5, "height": 32, "width": 32, "latents": latents}
    theirs = diffusers.WanPipeline.from_pretrained(folder)
    expected = theirs(**call, output_type="np").frames[0]
    found = kinema.KinemaPipeline.from_pretrained(folder)(**call).frames[0]
    assert np.abs(found - expected).max() < BOUND
    other = diffusers.WanPipeline.from_pretrained(folder)
    other.scheduler = diffusers.UniPCMultistepScheduler(**FLOW, flow_shift=3.0)
    usual = other(**call, output_type="np").frames[0]
    assert np.abs(usual - expected).max() > 5 * BOUND  # else any scheduler would do


def plan(folder, **fields):
    return make_plan(Shot(model=str(folder), prompt="a fox", **fields), read_card(str(folder)))


def about(notes):
    return [note for note in notes if note.startswith("the scheduler of")]


def test_matching_diffusers_is_matching_its_scheduler(brings):
    folder = brings(diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0))
    s = plan(folder, match="diffusers").sampling
    assert (s.solver, s.grid, s.shift) == ("euler", "diffusers-euler", 7.0)
    s = plan(folder, match="diffusers", solver="unipc").sampling
    assert (s.solver, s.grid, s.shift) == ("unipc", "diffusers", 7.0)
    s = plan(folder, match="wan").sampling
    assert (s.solver, s.grid, s.shift) == ("unipc", "wan", 5.0)


def test_a_scheduler_that_is_no_solver_here_is_noted_with_what_is_taken_instead(brings, capsys):
    folder = brings(diffusers.FlowMatchLCMScheduler(shift=8.0))
    assert sampler(folder) == ("unipc", "diffusers", 8.0)
    (note,) = about(plan(folder).notes)
    assert "FlowMatchLCMScheduler" in note
    assert "unipc and shift 8;" in note
    assert about(plan(folder, shift=5.0).notes)
    assert not about(plan(folder, solver="lcm", shift=5.0).notes)
    assert not about(plan(folder, match="wan").notes)
    assert run(["models", str(folder)]) == 0
    assert "FlowMatchLCMScheduler" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scheduler", "entries", "said"),
    [
        ("UniPCMultistepScheduler", {"use_karras_sigmas": True}, "use_karras_sigmas=True"),
        ("UniPCMultistepScheduler", {"solver_order": 3, "use_flow_sigmas": False}, "use_flow_sigmas=False"),
        ("UniPCMultistepScheduler", {"disable_corrector": [0, 1]}, "disable_corrector=[0, 1]"),
        ("UniPCMultistepScheduler", {"predict_x0": False}, "predict_x0=False"),
        ("UniPCMultistepScheduler", {"prediction_type": "epsilon"}, "prediction_type=epsilon"),
        ("DPMSolverMultistepScheduler", {"thresholding": True}, "thresholding=True"),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "stochastic_sampling=True"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type"),
    ],
)
def test_settings_that_its_solver_does_not_have_are_noted(brings, scheduler, entries, said):
    base = FLOW if "Multistep" in scheduler else {}
    folder = brings(getattr(diffusers, scheduler)(**base))
    assert not about(plan(folder).notes)
    (note,) = about(plan(brings(getattr(diffusers, scheduler)(**base), **entries)).notes)
    assert said in note
    if not entries.get("use_flow_sigmas", True):  # which is also what a file without it means
        (note,) = about(plan(brings(diffusers.UniPCMultistepScheduler(), ("use_flow_sigmas",))).notes)
        assert said in note


def test_a_shift_that_is_no_number_is_one_line(brings):
    folder = brings(diffusers.FlowMatchEulerDiscreteScheduler(), shift="much")
    with pytest.raises(ModelError, match="much") as caught:
        read_card(str(folder))
    assert "\n" not in str(caught.value)


def test_without_a_scheduler_it_is_wans_usual_one(wan, tmp_path):
    folder = shutil.copytree(wan("t2v"), tmp_path / "wan")
    shutil.rmtree(folder / "scheduler")
    assert sampler(folder) == ("unipc", "diffusers", 3.0)


def test_settings_without_a_meaning_here_are_those_of_diffusers_by_default():
    """What a file does not say is diffusers' default, and must be what our solver does."""
    for name, known in CLASSES.items():
        config = getattr(diffusers, name)().config
        for setting, ours in known.runs.items():
            if setting in config and setting not in ("use_flow_sigmas", "prediction_type"):
                assert bool(config[setting]) == bool(ours), (name, setting)
                assert not ours or config[setting] == ours, (name, setting)
