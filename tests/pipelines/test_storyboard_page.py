"""The page about storyboards: every one on it is read, and the first is as long as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kinema
from kinema.pipelines import cards
from kinema.pipelines.job import make_job
from kinema.story.files import parse_yaml
from kinema.story.storyboard import Storyboard, from_mapping

PAGE = (Path(__file__).parents[2] / "docs" / "storyboards.md").read_text(encoding="utf-8")
BOARDS = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "shots:" in block]


@pytest.mark.parametrize("text", BOARDS)
def test_every_storyboard_is_read_and_read_back(text):
    board = from_mapping(parse_yaml(text))
    assert isinstance(board, Storyboard)
    assert from_mapping(board.to_mapping()) == board


def test_the_first_one_is_planned():
    job = make_job(from_mapping(parse_yaml(BOARDS[0])))
    assert [join.kind for join in job.joins] == ["fade", "dissolve", "match", "cut"]
    assert job.length == 25 + 25 + 25 + 16 - 8 - 1


def test_the_python_on_it_runs(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cards, "EMBEDDED_FOLDER", small)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "docs/storyboards.md", "exec"), {"kinema": kinema})
    assert kinema.Clip.open("story.mp4").array().shape[0] == 2 * 9 - 4
