"""The page about the camera: its examples are read, its tables are complete, its Python runs."""

import re
from pathlib import Path

from kinema.story.camera import _USUAL, _WORDS, MOVES, Camera, read_moves
from kinema.story.files import parse_yaml
from kinema.story.shot import Shot

PAGE = (Path(__file__).parents[2] / "docs" / "camera.md").read_text(encoding="utf-8")


def test_examples_are_cameras():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        camera = Shot.from_mapping(parse_yaml(block)).camera
        assert camera.sample(61, 24)


def test_every_setting_is_on_the_page():
    for name in Camera.model_fields:
        assert f"`{name}" in PAGE, name
    assert set(MOVES) <= set(Camera.model_fields)


def test_the_words_on_the_page_are_the_words():
    said = dict(re.findall(r"`(\w+) ([\w|]+) [\d.]+`", PAGE))
    assert {verb: set(ways.split("|")) for verb, ways in said.items()} == {
        verb: set(ways) for verb, ways in _WORDS.items()
    }
    for verb, amount in re.findall(r"`(\w+) [\w|]+ ([\d.]+)`", PAGE):
        assert float(amount) == _USUAL[verb]
    assert read_moves("zoom in 1.3, pan left")


def test_python_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope = {}
    exec(compile(block, "docs/camera.md", "exec"), scope)
    assert scope["picture"].shape == (1, 3, 48, 64)
    assert scope["at_once"].shape == scope["matrix"].shape == (3, 3)
