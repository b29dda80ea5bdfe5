"""The page about the commands: what it shows is what is printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import kinema
import kinema.cli
from kinema.core.contracts import Record
from kinema.io.clip import Clip

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
SESSION = re.findall(r"^\$ (kinema .*)\n((?:(?!\$ |```).*\n)*)", PAGE, re.MULTILINE)
MACHINE = (
    "needs ",
    "work ",
    "time ",
    "memory ",
    "sampling ",
)  # rows that depend on the machine or on the model's defaults


DEFORUM = {
    "max_frames": 24,
    "W": 64,
    "H": 64,
    "fps": 8,
    "prompts": {"0": "a fox", "12": "a penguin"},
    "zoom": "0: (1.02)",
    "strength_schedule": "0: (0.6)",
}
STYLE = {
    f"diffusion_model.blocks.{block}.self_attn.{layer}.lora_{half}.weight": torch.full(shape, 0.01)
    for block in (0, 1)
    for layer in ("q", "v")
    for half, shape in (("down", (4, 256)), ("up", (256, 4)))
}


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """The pictures that the page uses, and grey frames in place of the model's."""
    for name in ("penguin.png", "snowman.png"):
        shutil.copy(ROOT / "samples" / "inputs" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    cut_off("fox.mp4")
    (tmp_path / "deforum.txt").write_text(json.dumps(DEFORUM))
    save_file(STYLE, tmp_path / "style.safetensors")

    def stream(job, **_):
        frames = [np.full((job.height, job.width, 3), 90, dtype=np.uint8)] * job.frames
        return Clip(iter(frames), Fraction(job.fps), Record(job.shot), size=(job.width, job.height))

    monkeypatch.setattr("kinema.pipelines.run.stream", stream)


class Enough(Exception):
    """Stops a render."""


def cut_off(out: str) -> None:
    """A render that was stopped while it was decoded."""

    def stop(event: kinema.Progress) -> None:
        if event.phase == "decode":
            raise Enough

    with pytest.raises(Enough):
        kinema.render(kinema.Shot(prompt="a fox", seed=7, steps=1), out=out, on_progress=stop)


def test_every_verb_is_shown_and_prints_what_the_page_says(workshop, capsys):
    verbs = {shlex.split(line)[1] for line, _ in SESSION}
    for line, shown in SESSION:
        assert kinema.cli.run(shlex.split(line)[1:]) == 0, line
        printed = capsys.readouterr()
        if "plan" in line:
            rows = [row for row in shown.splitlines() if not row.strip().startswith(MACHINE)]
            assert all(row in printed.out.splitlines() for row in rows)
        else:
            assert (printed.err + printed.out).startswith(shown.rstrip("\n"))
    kinema.cli.run(["--help"])
    listed = re.findall(r"^  ([a-z]+)  ", capsys.readouterr().out.split("Make a file:")[1], re.MULTILINE)
    # these take minutes or run until they are stopped, and have pages of their own
    assert verbs == set(listed) - {"calibrate", "evaluate", "serve", "studio", "worker"}
