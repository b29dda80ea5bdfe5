"""The settings of frame-by-frame mode: what may run over frames, and what excludes what."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.story.files import parse_yaml
from kinema.story.redraw import RANGES, NameTrack, Redraw, check_range
from kinema.story.shot import Shot
from kinema.story.storyboard import from_mapping, load
from kinema.story.tracks import Schedule


def test_it_survives_the_way_through_a_file():
    written = {
        "strength": "0:(0.5), 10:(0.2)",
        "cadence": 2,
        "solver": {"0": "euler", "50%": "heun"},
        "seed": "travel",
        "seeds": {"0": 7, "2s": 9},
        "noise": {"0": 0.05, "1s": {"value": 0, "ease": "in_out"}},
    }
    shot = Shot(prompt="a fox", mode="frame_by_frame", redraw=written)
    again = Shot.from_mapping(json.loads(json.dumps(shot.to_mapping())))
    assert again == shot
    assert again.redraw.noise.sample(9, 8)[8] == 0


@pytest.mark.parametrize("name", sorted(RANGES))
def test_a_number_out_of_range_is_refused_when_written(name):
    low, high = RANGES[name]
    asked = {"seed": "schedule"} if name == "seeds" else {}
    for wrong in (low - 1, high * 1.5 + 1):
        with pytest.raises(ConfigError, match=rf"{name}=.* write {low:g} to {high:g}".replace("+", r"\+")):
            Redraw(**asked, **{name: wrong})


def test_a_schedule_out_of_range_names_the_frame():
    values = Schedule("0:(0.2), 10:(1.2)").sample(11, 8)
    with pytest.raises(ConfigError, match=r"redraw.strength is 1.1 at frame 9"):
        check_range("strength", values)
    check_range("strength", np.clip(values, 0, 1))


def test_every_schedule_has_a_range_and_every_range_a_schedule():
    tracks = {n for n, f in Redraw.model_fields.items() if "Schedule" in str(f.annotation)}
    assert tracks == set(RANGES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": "travel"}, "seed: travel needs seeds"),
        ({"seeds": {0: 7}}, "seeds is not used by seed: iter"),
        ({"seed": "fixed", "seed_every": 2}, "seed_every is not used by seed: fixed"),
        ({"mask_feather": 2}, "mask_feather does nothing without a mask"),
        ({"colour": "off", "colour_window": 5}, "colour_window does nothing without colour"),
        ({"sharpen_radius": 2}, "sharpen_radius does nothing without sharpen"),
        ({"strength_schedule": "0:(0.65)"}, "kinema's is 1 - Deforum's"),
        ({"solver": {0: 3}}, "3.* is not a name"),
        ({"colour": "histogramm"}, "Did you mean 'histogram'"),
    ],
)
def test_what_contradicts_itself_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Redraw(**wrong)


def test_names_hold_from_key_to_key():
    assert NameTrack({0: "euler", 3: "heun"}).sample(5, 8) == ("euler", "euler", "euler", "heun", "heun")
    assert NameTrack("euler").sample(2, 8) == ("euler", "euler")
    with pytest.raises(ConfigError, match="9 is past the end"):
        NameTrack({0: "euler", 9: "heun"}).sample(5, 8)


def test_redraw_belongs_to_its_mode():
    with pytest.raises(ConfigError, match="redraw belongs to mode: frame_by_frame"):
        Shot(prompt="a fox", redraw={"strength": 0.5})


def test_paths_are_relative_to_the_shot_file(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "prompt: a fox\nmode: frame_by_frame\nredraw: {mask: m.png, colour_from: c.png}\n"
    )
    (tmp_path / "b.yaml").write_text("prompt: a fox\nmode: frame_by_frame\nredraw: {mask: m.png}\n")
    shots = [load(tmp_path / name) for name in ("a.yaml", "b.yaml")]
    mask, reference = str(tmp_path / "m.png"), str(tmp_path / "c.png")
    assert (shots[0].redraw.mask, shots[0].redraw.colour_from) == (mask, reference)
    assert (shots[1].redraw.mask, shots[1].redraw.colour_from) == (mask, "first")
    assert set(shots[0].redraw.files) == {mask, reference}


PAGE = (Path(__file__).parents[2] / "docs" / "frame-by-frame.md").read_text(encoding="utf-8")


def test_every_setting_is_on_its_page():
    for name in Redraw.model_fields:
        assert f"`{name}`" in PAGE, name


def test_the_examples_on_the_page_are_shots():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    shots = [from_mapping(parse_yaml(block)) for block in blocks]
    assert [shot.redraw.cadence.constant for shot in shots if shot.redraw is not None] == [2]
    for line in re.findall(r"`(seed: travel)`, `(seeds: [^`]*)`", PAGE):
        assert Redraw.from_mapping(parse_yaml("\n".join(line))).seed == "travel"
