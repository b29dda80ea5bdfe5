"""The page about the shot file: every example on it is read, and the Python on it runs."""

import re
from pathlib import Path

import pytest

from kinema.story.easing import easing
from kinema.story.files import parse_yaml
from kinema.story.shot import Shot
from kinema.story.storyboard import from_mapping

PAGE = (Path(__file__).parents[2] / "docs" / "shot.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def examples():
    for block in YAML:
        lines = block.splitlines()
        if all(line.startswith("guidance:") for line in lines):
            yield from lines
        else:
            yield block


@pytest.mark.parametrize("text", list(examples()))
def test_examples_are_shots(text):
    story = from_mapping(parse_yaml(text))
    for shot in getattr(story, "shots", (story,)):
        assert shot.prompt.sample(121, 24)[1].shape[0] == 121
        if shot.guidance is not None:
            assert shot.guidance.sample(121, 24).shape == (121,)


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope = {}
    exec(compile(block, "docs/shot.md", "exec"), scope)
    assert scope["prompts"] == ("a fox", "a wolf")
    assert scope["weights"].shape == (49, 2)


def test_every_setting_is_on_the_page():
    for name in Shot.names():
        assert f"`{name}`" in PAGE, name


def test_the_easings_on_the_page_exist():
    for shape in ("_quad", "_cubic", "_sine", "_expo", "_back", "_bounce", "_elastic"):
        assert f"`{shape}`" in PAGE
        assert easing(f"in_out{shape}")
