"""The README's own words, run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from kinema.cli import run

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def block(name: str) -> str:
    """The fenced block after <!-- command: NAME -->, which the project's check runs on a fresh machine."""
    match = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", TEXT, re.DOTALL)
    assert match, name
    return match[1]


def test_the_two_commands_are_one_line_each():
    assert block("clip").startswith("pip install")
    assert "\n" not in block("clip")
    assert block("tests").endswith("&& pytest -n 2 --dist loadfile")
    assert "\n" not in block("tests")


def test_every_command_of_the_table_is_a_legal_plan(tmp_path, monkeypatch):
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    monkeypatch.chdir(tmp_path)
    for name, source in (
        ("a.png", "penguin.png"),
        ("b.png", "snowman.png"),
        ("mask.png", "snowman-depth.png"),
    ):
        (tmp_path / name).write_bytes((ROOT / "samples/inputs" / source).read_bytes())
    (tmp_path / "clip.mp4").write_bytes((ROOT / "samples/clips/rooster.mp4").read_bytes())
    commands = re.findall(r"`kinema ([^`]+)`", TEXT)
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command)
        dry = ["--dry-run"] if words[0] not in ("inspect", "plan", "doctor") else []
        assert run([*words, *dry]) == 0, command


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code
    exec(compile(code[1], "README.md", "exec"), {})
    assert (tmp_path / "penguin.mp4").stat().st_size > 1000
    assert (tmp_path / "travel.mp4").stat().st_size > 1000


def test_every_linked_page_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
