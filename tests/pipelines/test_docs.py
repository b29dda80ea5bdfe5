"""The page about Python runs from top to bottom, on a small model in the embedded one's place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

import kinema
from kinema.pipelines import cards

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_every_block_runs(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cards, "EMBEDDED_FOLDER", small)
    for i, name in enumerate(("rooster", "penguin")):
        Image.fromarray(np.full((64, 64, 3), 90 * i, np.uint8)).save(f"{name}.png")
    Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16)).save("middle.png")
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert "frames=10 is not 1 + a multiple of 4; the nearest lengths are 9 and 13" in printed
    assert "denoise 3 of 3" in printed
    assert len(scope["again"]) == 9 + 8
    assert scope["frames"].shape == (9, 64, 64, 3)
    assert kinema.Clip.open("two-shots.mp4").record == scope["again"].record


def test_the_table_says_what_each_checkpoint_does(wan):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if "|" in line
    ]
    told = {row[0]: [cell == "yes" for cell in row[1:]] for row in rows if row[0] in {*KINDS}}
    assert told.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        card = cards.read_card("embedded" if kind is None else str(wan(kind)))
        columns = ("text", "first", "last", "keyframes", "video", "extend")
        assert told[name] == [mode in card.modes for mode in columns], name


KINDS = {
    "embedded": None,
    "Wan 2.1 T2V": "t2v",
    "Wan 2.1 I2V": "i2v",
    "Wan 2.1 FLF2V": "flf2v",
    "Wan 2.2 TI2V-5B": "ti2v",
}
