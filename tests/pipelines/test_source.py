"""Changes to a request that was read from a file: they replace what they name, and nothing else."""

from __future__ import annotations

import pytest

from kinema.core.errors import ConfigError
from kinema.pipelines.source import read_request


@pytest.fixture
def changed(tmp_path):
    def read(text, **changes):
        path = tmp_path / "shot.yaml"
        path.write_text(text)
        return read_request(path, changes=changes)

    return read


REDRAWN = "{prompt: a fox, mode: frame_by_frame, redraw: {strength: 0.4, cadence: 3, %s}}"


def test_one_redraw_setting_leaves_the_others(changed):
    redraw = changed(REDRAWN % "seed: iter, seed_every: 2", redraw={"strength": 0.3}).redraw
    assert redraw.to_mapping() == {"strength": 0.3, "cadence": 3, "seed_every": 2}


@pytest.mark.parametrize(
    ("written", "rule"), [("seed: travel, seeds: {0: 7, 8: 9}", "fixed"), ("seed_every: 2", "random")]
)
def test_another_rule_for_the_seeds_has_no_use_for_the_old_ones(changed, written, rule):
    redraw = changed(REDRAWN % written, redraw={"seed": rule}).redraw
    assert redraw.to_mapping() == {"strength": 0.4, "cadence": 3, "seed": rule}
    assert changed(REDRAWN % "seed: travel, seeds: {0: 7}", redraw={"seed": "schedule"}).redraw.seeds
    with pytest.raises(ConfigError, match="seeds is not used by seed: fixed"):
        changed(REDRAWN % "seed: fixed", redraw={"seeds": 7})


def test_the_dialect_of_the_file_is_that_of_what_is_changed(changed):
    text = "{prompt: a fox, dialect: deforum, mode: frame_by_frame, redraw: {noise: '0:(0.1)', cadence: 2}}"
    redraw = changed(text, redraw={"strength": "0:(0.5), 8:(1/2)"}).redraw
    assert (redraw.strength.dialect, redraw.noise.dialect) == ("deforum", "deforum")


def test_a_control_keeps_what_is_not_said(changed):
    text = "{prompt: a fox, control: {path: edges.png, end: 0.5}}"
    control = changed(text, control={"strength": 0.5}).control
    assert control.path.endswith("edges.png")
    assert (control.end, control.strength.constant) == (0.5, 0.5)
    assert changed(text, control={"path": "depth.png"}).control.end == 0.5
    with pytest.raises(ConfigError, match=r"control\.strength needs control\.path"):
        changed("prompt: a fox", control={"strength": "0.5"})


def test_settings_of_a_control_are_for_the_shots_that_have_one(changed):
    text = "shots: [{control: {path: a.png, end: 0.5}}, {prompt: b}, {control: {path: c.png}}]"
    first, second, third = changed(text, control={"strength": 0.5}, seed=3).shots
    assert (first.control.strength.constant, first.control.end, third.control.strength.constant) == (0.5,) * 3
    assert second.control is None
    assert {shot.seed for shot in (first, second, third)} == {3}
    everywhere = changed(text, control={"path": "b.png", "strength": 0.5}).shots
    assert [shot.control.path for shot in everywhere] == ["b.png"] * 3
    with pytest.raises(ConfigError, match=r"control\.strength needs control\.path"):
        changed("shots: [a, b]", control={"strength": 0.5})


def test_options_of_another_pipeline_keep_each_other(changed):
    shot = changed("{prompt: a fox, options: {a: 1, b: 2}}", options={"b": 3})
    assert dict(shot.options) == {"a": 1, "b": 3}


def test_every_shot_of_a_storyboard_keeps_its_own(changed):
    text = "{mode: frame_by_frame, shots: [{prompt: a, redraw: {cadence: 2}}, {prompt: b}]}"
    first, second = changed(text, redraw={"strength": 0.3}).shots
    assert first.redraw.to_mapping() == {"strength": 0.3, "cadence": 2}
    assert second.redraw.to_mapping() == {"strength": 0.3}
