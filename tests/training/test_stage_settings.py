"""What recipes say: those of the repository are read whole, and what cannot be is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml

from kinema.core.errors import ConfigError
from kinema.training.dit import ObjectiveSettings, draw_held
from kinema.training.recipe import read_recipe
from kinema.training.stage_settings import StageSettings

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path for path in (ROOT / "configs").glob("*.yaml") if "stages:" in path.read_text())
STAGE = {
    "steps": 3,
    "optimiser": {"rate": 1e-3},
    "parts": [{"frames": 9, "fps": 8, "batch": 2, "objective": {"odds": {"none": 1, "first": 0.5}}}],
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read(path):
    recipe = read_recipe(path)
    for name, section in recipe["stages"].items():
        found = StageSettings.of(recipe, name)
        assert (found.steps, len(found.parts)) == (section["steps"], len(section["parts"]))
        assert found.optimiser.rate == section["optimiser"].get("rate", 1e-3)
        assert (found.rank is None) == ("additions" not in section and "distil" not in section)


def changed(*place, value):
    section = copy.deepcopy(STAGE)
    inner = section
    for key in place[:-1]:
        inner = inner.setdefault(key, {}) if isinstance(key, str) else inner[key]
    inner[place[-1]] = value
    return {"stages": {"own": section}}


PART = ("parts", 0)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (changed("addition", value={"rank": 2}), "unknown setting of a stage 'addition'.*'additions'"),
        (changed("additions", value={"rnk": 2}), "not a rank"),
        (changed("additions", value={"rank": 0}), "not a rank"),
        (changed("additions", value=None), "not a rank"),
        (changed("steps", value=0), "steps=0 is no whole number"),
        (changed("steps", value="many"), "steps='many'"),
        (changed("parts", value=[]), "no parts"),
        (changed("parts", value=["clips"]), "part: 'clips' is no mapping"),
        (changed("optimiser", "rat", value=1.0), "unknown setting 'rat'.*'rate'"),
        (changed("optimiser", "rate", value="1e-3x"), "rate='1e-3x'"),
        (changed("optimiser", "average", value=2.0), "average=2.0 is outside"),
        (changed("optimiser", "rate", value=float("nan")), "rate=nan"),
        (changed("distil", "step", value=6), "distil: unknown setting 'step'"),
        (changed(*PART, "frame", value=9), "unknown setting 'frame'"),
        (changed(*PART, "frames", value=16), "frames=16 is not 1 \\+ a multiple of 4"),
        (changed(*PART, "fps", value=0), "fps=0"),
        (changed(*PART, "batch", value=0), "batch=0"),
        (changed(*PART, "grammar", value={"movng": 1.0}), "'movng'"),
        (changed(*PART, "grammar", value={"held_out": 0.0}), "held_out differs in a part"),
        (changed(*PART, "objective", value={"odds": {"frist": 1.0}}), "way to hold frames 'frist'"),
        (changed(*PART, "objective", value={"odds": {"none": -1.0}}), "odds of 'none' are -1.0"),
        (changed(*PART, "objective", value={"odds": {"none": 0.0}}), "odds are all 0"),
        (changed(*PART, "objective", value={"text_dropout": 1.5}), "text_dropout=1.5"),
    ],
)
def test_what_cannot_be_is_refused_by_name(recipe, words):
    with pytest.raises(ConfigError, match=f"stage 'own'.*{words}"):
        StageSettings.of(recipe, "own")


@pytest.mark.parametrize(
    ("way", "frames", "least"), [("first", 1, 5), ("continue", 1, 5), ("ends", 1, 9), ("ends", 5, 9)]
)
def test_clips_that_would_be_held_from_end_to_end_are_refused(way, frames, least):
    """Nothing would count in their loss, which would be no number, and so would all weights after it."""
    part = {"frames": frames, "fps": 8, "batch": 1, "objective": {"odds": {"none": 0.5, way: 0.5}}}
    recipe = changed("parts", value=[part])
    with pytest.raises(ConfigError, match=f"odds of {way!r} with frames={frames} .* frames: {least} "):
        StageSettings.of(recipe, "own")
    part["frames"] = least
    assert StageSettings.of(recipe, "own").parts[0].frames == least


def test_a_recipe_without_stages_or_with_others_says_so():
    with pytest.raises(ConfigError, match="no 'stages'"):
        StageSettings.of({}, "own")
    with pytest.raises(ConfigError, match=r"unknown stage .won.\. Did you mean .own."):
        StageSettings.of({"stages": {"own": STAGE}}, "won")
    without = {"stages": {"own": {key: STAGE[key] for key in ("steps", "parts")}}}
    with pytest.raises(ConfigError, match="no 'optimiser'"):
        StageSettings.of(without, "own")


def test_whole_numbers_are_odds_too():
    drawn = {draw_held(ObjectiveSettings(odds={"none": 1, "first": 1}), rng(i)) for i in range(20)}
    assert drawn == {"none", "first"}


def rng(seed):
    return torch.Generator().manual_seed(seed)


def test_broken_recipes_are_told_in_one_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    for text in (b"steps: [1,\n - 2: 3\n}", b"name: ch\xe9ri\n"):
        path.write_bytes(text)
        with pytest.raises(ConfigError, match="is not readable YAML") as caught:
            read_recipe(path)
        assert "\n" not in str(caught.value)
    path.write_text(yaml.safe_dump(STAGE))
    assert read_recipe(path) == STAGE
