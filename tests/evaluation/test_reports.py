"""A report is saved whole, and only over an earlier one that may be replaced."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import kinema.cli
from kinema.core.errors import ConfigError, MediaError
from kinema.evaluation.exam import Failure, Report
from kinema.evaluation.examine import Wishes, check_report, sampling_of, save_report
from kinema.pipelines.cards import read_card

WRONG = Report(modes={"travel": 0.5}, failures=[Failure("place", "a fox", torch.zeros(3, 5, 32, 32))])
RIGHT = Report(modes={"travel": 1.0})


def test_the_files_of_a_report_and_of_the_one_that_replaces_it(tmp_path):
    out = tmp_path / "runs/report.json"
    save_report(WRONG, {"model": "m"}, out)
    assert {path.name for path in out.parent.iterdir()} == {"report.json", "report.md", "report.png"}
    found = json.loads(out.read_text())
    assert (found["model"], found["modes"], found["failures"]) == ("m", {"travel": 0.5}, [["place", "a fox"]])
    assert out.with_suffix(".md").read_text().startswith("| factor |")
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(MediaError, match=r"report\.json' exists; .* --overwrite"):
        save_report(RIGHT, {"model": "m"}, out)
    assert json.loads(out.read_text()) == found
    save_report(RIGHT, {"model": "m"}, out, overwrite=True)
    assert {path.name for path in out.parent.iterdir()} == {"report.json", "report.md"}
    assert json.loads(out.read_text())["modes"] == {"travel": 1.0}


def test_a_report_whose_name_is_taken_meanwhile_has_another(tmp_path, monkeypatch):
    out = tmp_path / "report.json"
    monkeypatch.setattr("kinema.evaluation.examine.check_report", lambda *_, **__: None)
    out.write_text("theirs")
    with pytest.raises(MediaError, match=r"has appeared meanwhile .* made here is '.*report-2\.json'"):
        save_report(WRONG, {"model": "m"}, out)
    names = {"report.json", "report-2.json", "report-2.md", "report-2.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert out.read_text() == "theirs"
    assert json.loads((tmp_path / "report-2.json").read_text())["model"] == "m"


@pytest.mark.parametrize("name", ["rep.md", "victim.mp4", "rep", "rep.JSON"])
def test_a_report_is_called_json(name, tmp_path):
    with pytest.raises(ConfigError, match=r"does not end in \.json"):
        check_report(tmp_path / name, overwrite=True)


def test_what_is_no_report_is_left_alone(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(MediaError, match="not a regular file"):
        check_report(tmp_path / "a.json", overwrite=True)
    (tmp_path / "b.md").write_text("mine")
    with pytest.raises(MediaError, match=r"b\.md' exists"):
        check_report(tmp_path / "b.json", overwrite=False)


def test_the_exam_begins_when_its_report_can_be_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []

    def examine(*args: object, **_: object) -> tuple[Report, dict[str, str]]:
        asked.append(args)
        return RIGHT, {"model": "embedded"}

    monkeypatch.setattr("kinema.evaluation.examine.examine", examine)
    (tmp_path / "r.json").write_text("mine")
    assert kinema.cli.run(["evaluate", "--out", "r.json"]) == 2
    assert asked == []
    assert (tmp_path / "r.json").read_text() == "mine"
    assert kinema.cli.run(["evaluate", "--out", "r.json", "--overwrite"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["model"] == "embedded"


def test_clips_are_sampled_at_the_levels_of_the_models_own_shots():
    """Judged on another grid than it is used on, a model would look better or worse than it is."""
    card = read_card("embedded")
    other = replace(card, defaults=replace(card.defaults, grid="diffusers"))
    assert sampling_of(Wishes(), card).grid == card.defaults.grid
    assert sampling_of(Wishes(), other).grid == "diffusers"
