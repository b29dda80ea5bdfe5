"""The printed plan: bars stand for the weights that are used, rulers for the frames they begin with."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

import kinema.cli
from kinema.cli.show import bars, duration, lines, ruler, size, tracks
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

BLOCKS = " ▁▂▃▄▅▆▇█"
CARD = read_card("embedded")
TRAVEL = {0: "a rooster", 8: "a penguin", 16: "a snowman"}


def plan(**fields):
    return make_plan(
        Shot(**{"prompt": "a rooster", "size": "64x64", "frames": 17, "seed": 1, **fields}), CARD
    )


def shown(rows, name):
    """What follows `name` in every row of that name."""
    return [row[13:] for row in rows if row.startswith(f"  {name} ")]


def test_bars_are_as_high_as_their_share():
    assert bars([0, 0.5, 1, 2], 1, 1) == " ▄██"
    assert bars([3, 3], 3, 2) == "████"
    assert bars([0, 0], 0, 1) == "  "
    long = bars([i / 199 for i in range(200)], 1, 1)
    assert len(long) == 64
    assert sorted(long) == list(long)


def test_rulers_put_frames_over_their_bars():
    assert ruler([0, 1, 5, 9], 5) == "0    1    5    9"
    tight = ruler([0, *range(1, 200, 4)], 1)
    for number in re.finditer(r"\d+", tight):
        assert int(number[0]) == [0, *range(1, 200, 4)][number.start()]


def test_travelling_prompts_are_drawn_with_the_weights_of_the_plan():
    made = plan(prompt=TRAVEL)
    rows = shown(tracks(made), "prompt")
    assert [row[27:] for row in rows] == ["'a rooster'", "'a penguin'", "'a snowman'"]
    for k, row in enumerate(rows):
        cells = [row[5 * t : 5 * t + 5] for t in range(5)]
        heights = [BLOCKS.index(cell[0]) for cell in cells]
        assert all(len(set(cell)) == 1 for cell in cells)
        assert heights == [round(8 * made.prompts.weights[t][k]) for t in range(5)]
    assert shown(tracks(made), "frame") == ["0    1    5    9    13"]


def test_guidance_over_frames_shows_its_range():
    (row,) = shown(tracks(plan(guidance="0:(8), 16:(0)")), "guidance")
    heights = [BLOCKS.index(block) for block in row[0:25:5]]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 8
    assert row.endswith("0.75 to 8, cfg")
    (row,) = shown(tracks(plan(guidance=4)), "guidance")
    assert row.endswith("█  4, cfg")


def test_negative_prompts_and_weights_are_written_as_users_write_them():
    rows = tracks(plan(prompt="a (red:1.5) fox", negative="text"))
    assert shown(rows, "prompt")[0].endswith("'a (red:1.5) fox'")
    assert shown(rows, "negative")[0].endswith("'text'")
    assert shown(tracks(plan()), "negative") == []


def test_held_pictures_stand_where_they_are_held(here):
    made = plan(keyframes=["a.png@0", "a.png@-1:0.5"])
    first, last = shown(tracks(made), "held")
    assert first.startswith("█████     ")
    assert first.endswith("a.png at frame 0, strength 1")
    assert last.startswith(" " * 20 + "▄▄▄▄▄  ")
    assert last.endswith("a.png at frame 16, strength 0.5")


def test_a_clip_that_is_made_over_shows_how_much_of_it_is_free(here):
    assert shown(tracks(plan()), "source") == []
    made = plan(source={"path": "c.mp4", "strength": 0.5})
    assert shown(tracks(made), "source") == ["c.mp4, strength 0.5"]
    Image.fromarray(np.pad(np.full((16, 32), 255, np.uint8), ((0, 48), (0, 32)))).save(here / "mask.png")
    made = plan(source={"path": "c.mp4", "mask": "mask.png"})
    (row,) = shown(tracks(made), "mask")
    assert row.endswith("mask.png, 12% of the latents are free")
    assert row.startswith("▁" * 25)


def test_sizes_and_lengths_are_the_models():
    text = "\n".join(lines(plan(), CARD))
    assert f"multiples of {CARD.multiple}, lengths 5, 9, 13, 17, ..." in text
    assert "64x64, 17 frames at 8 fps: 2.12 s" in text
    assert "5 frames of 8x8" in text
    assert "seed 1" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (42, "42 s"), (89.9, "90 s"), (90, "2 min"), (5399, "90 min"), (12240, "3.4 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (4.7e7, "47 MB"), (2.84e10, "28.4 GB")]
)
def test_byte_counts(count, text):
    assert size(count) == text


def test_plan_prints_costs_without_weights(no_weights, files, capsys):
    assert kinema.cli.run(["plan", "a rooster", "--size", "64x64", "--frames", "17", "--steps", "10"]) == 0
    text = capsys.readouterr().out
    assert "320 tokens, 20 forwards" in text
    assert re.search(r"time +about [\d.]+ (s|min|h) of sampling on this machine", text)
    assert re.search(r"memory +weights [\d.]+ MB, work space about [\d.]+ MB", text)
    assert files() == set()


def test_a_plan_is_one_event_a_shot_for_programs(no_weights, here, capsys):
    (here / "story.yaml").write_text("seed: 3\nshots: [{prompt: a fox}, {prompt: {0: a fox, 16: a wolf}}]\n")
    assert kinema.cli.run(["plan", "story.yaml", "--frames", "17", "--format", "json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["event"] == "plan"
    assert first["shot"]["prompt"] == "a fox"
    assert first["first_frames"] == [0, 1, 5, 9, 13]
    assert first["tracks"]["prompt"] == [{"text": "a fox", "weights": [1.0] * 5}]
    assert [track["text"] for track in second["tracks"]["prompt"]] == ["a fox", "a wolf"]
    assert sum(track["weights"][2] for track in second["tracks"]["prompt"]) == pytest.approx(1)
    assert first["digest"] != second["digest"]


def test_a_storyboard_shows_every_shot(no_weights, here, capsys):
    (here / "story.yaml").write_text("shots: [{prompt: a fox}, {prompt: a wolf}]\n")
    assert kinema.cli.run(["plan", "story.yaml"]) == 0
    text = capsys.readouterr().out
    assert (
        text.index("shot 1 of 2") < text.index("'a fox'") < text.index("shot 2 of 2") < text.index("'a wolf'")
    )


def test_tracks_are_numbers_that_sum_to_one(no_weights, here, capsys):
    (here / "s.yaml").write_text("seed: 1\nframes: 17\nprompt: {0: a fox, -1: a wolf}\nnegative: text\n")
    assert kinema.cli.run(["plan", "s.yaml", "--tracks", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["frames"] for row in rows] == ["0", "1-4", "5-8", "9-12", "13-16"]
    made = plan(prompt={0: "a fox", -1: "a wolf"}, negative="text")
    for row, weights in zip(rows, made.prompts.weights, strict=True):
        shown = {text["text"]: text["weight"] for text in row["prompts"]}
        assert [shown.get("a fox", 0), shown.get("a wolf", 0)] == list(weights)
        assert row["negatives"] == [{"text": "text", "weight": 1}]
    assert kinema.cli.run(["plan", "s.yaml", "--tracks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"  5-8 +2\.5 +59.38% 'a fox' +40.62% 'a wolf' +100.00% not 'text'", lines[3])


def test_a_preview_needs_no_weights(no_weights, here, files, capsys):
    text = "seed: 1\nframes: 9\nshots: [a fox, {prompt: a wolf, transition: dissolve 4}]\n"
    (here / "s.yaml").write_text(text)
    assert kinema.cli.run(["plan", "s.yaml", "--preview", "--plot", "t.svg"]) == 0
    assert kinema.cli.run(["plan", "s.yaml", "-o", "p.mp4"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "t.svg"
    assert said[1] == "s-preview.png  14 frames at 8 fps, by a stand-in"
    assert files() == {"s.yaml", "t.svg", "s-preview.png", "p.mp4"}
    assert kinema.cli.run(["plan", "s.yaml", "--preview"]) == 0
    assert capsys.readouterr().out.startswith("s-preview-2.png  14 frames")
    assert kinema.cli.run(["plan", "s.yaml", "-o", "s-preview.png"]) == 2
    assert "s-preview.png' exists; choose another name, or add --overwrite" in capsys.readouterr().err
    assert kinema.cli.run(["plan", "s.yaml", "--plot", "x.jpg"]) == 2
    assert "end it in .png or .svg" in capsys.readouterr().err
    assert kinema.cli.run(["plan", "A fox, (big:1.2)!", "--frames", "5", "--preview"]) == 0
    assert capsys.readouterr().out.startswith("a-fox-big-1-2-preview.png  5 frames")


def test_a_storyboard_has_a_schema(capsys):
    assert kinema.cli.run(["schema", "storyboard"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Storyboard"
    assert kinema.cli.run(["schema", "story"]) == 2
    assert "Did you mean 'storyboard'?" in capsys.readouterr().err
