"""Verbs ask for the shot that their words mean, and what they write can be looked at and made again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import kinema.cli
from kinema.cli.make import free_name, slug
from kinema.core.contracts import Record
from kinema.io.clip import Clip
from kinema.io.record import read_record, record_text

FAST = ("--steps", "1", "--frames", "5", "--size", "64x64")


def asked(capsys, *argv):
    """The resolved shot of a dry run."""
    assert kinema.cli.run([*argv, "--dry-run", "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)["shot"]


def test_generate(no_weights, files, capsys):
    shot = asked(capsys, "generate", "a fox", "-n", "text", "--seconds", "2", "-s", "7", "--solver", "heun")
    assert (shot["prompt"], shot["negative"], shot["seed"], shot["solver"]) == ("a fox", "text", 7, "heun")
    assert shot["frames"] == 17
    assert files() == set()


def test_animate_holds_the_first_frame(no_weights, here, capsys):
    shot = asked(capsys, "animate", "a.png", "it waves")
    assert [(key["image"], key["frame"]) for key in shot["keyframes"]] == [("a.png", 0)]
    assert shot["prompt"] == "it waves"
    assert asked(capsys, "animate", "a.png")["prompt"] == ""


def test_keyframes_take_places_strengths_and_the_prompt_anywhere(no_weights, here, capsys):
    for argv in (
        ["a fox", "a.png@0", "a.png@1s:0.7", "a.png@-1"],
        ["a.png@0", "a.png@1s:0.7", "a.png@-1", "a fox"],
    ):
        shot = asked(capsys, "keyframes", *argv, "--frames", "17")
        held = [(key["frame"], key.get("strength", 1)) for key in shot["keyframes"]]
        assert held == [(0, 1), ("1s", 0.7), (-1, 1)]
        assert shot["prompt"] == "a fox"


def test_travel_keeps_places_and_easing(no_weights, here, capsys):
    argv = ("travel", "0: a rooster", "50%:a penguin, it: waves", "2s : a snowman", "--ease", "hold")
    shot = asked(capsys, *argv, "--frames", "17")
    prompts = {key: value for key, value in shot["prompt"].items() if key != "ease"}
    assert prompts == {"0": "a rooster", "50%": "a penguin, it: waves", "2s": "a snowman"}
    assert shot["prompt"]["ease"] == "hold"


def test_travel_takes_every_place_that_a_shot_file_takes(no_weights, here, capsys):
    argv = ("travel", "0..2: a rooster", "max_f/2: a fox", "-3..-1: a snowman", "--frames", "17")
    prompts = asked(capsys, *argv)["prompt"]
    assert prompts == {"0..2": "a rooster", "max_f/2": "a fox", "-3..-1": "a snowman", "ease": "linear"}
    assert asked(capsys, "travel", "0: a rooster", "-1: a moon")["prompt"]["-1"] == "a moon"


def test_keyframes_take_every_place(no_weights, here, capsys):
    shot = asked(capsys, "keyframes", "a.png@0", "a.png@max_f:0.5", "a fox", "--frames", "17")
    assert [(key["frame"], key["strength"]) for key in shot["keyframes"]] == [(0, 1.0), (-1, 0.5)]


def test_restyle_takes_the_clip_and_its_length(no_weights, here, capsys):
    shot = asked(capsys, "restyle", "c.mp4", "a fox", "--strength", "0.25")
    assert {"path": "c.mp4", "strength": 0.25}.items() <= shot["source"].items()
    assert shot["frames"] == 9
    assert asked(capsys, "restyle", "c.mp4", "a fox")["source"]["strength"] == 0.6
    Image.new("L", (64, 64), 255).save(here / "white.png")
    mask = ("--mask", "white.png", "--mask-feather", "2")
    painted = asked(capsys, "restyle", "c.mp4", "a fox", *mask)["source"]
    expected = {"mask": "white.png", "mask_feather": 2.0, "mask_invert": False, "strength": 1.0}
    assert painted == {"path": "c.mp4", **expected}


def test_extend_counts_new_frames(no_weights, here, capsys):
    shot = asked(capsys, "extend", "c.mp4", "a fox", "--frames", "8", "--context", "1")
    assert (shot["extend"]["path"], shot["extend"]["context"], shot["frames"]) == ("c.mp4", 1, 8)


def test_render_takes_options_over_the_files(no_weights, here, capsys):
    (here / "fox.yaml").write_text("prompt: a fox\nseed: 1\nseconds: 2\n")
    shot = asked(capsys, "render", "fox.yaml", "--seed", "2", "--frames", "9")
    assert (shot["prompt"], shot["seed"], shot["frames"]) == ("a fox", 2, 9)


def test_a_drawn_seed_differs_and_is_told(no_weights, here, capsys):
    seeds = {asked(capsys, "generate", "a fox")["seed"] for _ in range(4)}
    assert len(seeds) == 4


def test_a_clip_is_named_after_its_words_and_made_again_byte_for_byte(files, here, capsys):
    assert kinema.cli.run(["generate", "A fox, running!", *FAST, "--seed", "5"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "a-fox-running-s5.mp4  5 frames at 8 fps, 64x64, seed 5\n"
    assert printed.err == ""
    assert kinema.cli.run(["render", "a-fox-running-s5.mp4"]) == 0
    assert files() == {"a-fox-running-s5.mp4", "a-fox-running-s5-again-s5.mp4"}
    one, again = (here / name for name in sorted(files(), key=len))
    assert one.read_bytes() == again.read_bytes()
    assert Clip.open(one).array().shape == (5, 64, 64, 3)
    capsys.readouterr()
    assert kinema.cli.run(["inspect", str(one)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["shot"]["prompt"] == "A fox, running!"
    assert record["shot"]["seed"] == 5
    assert record["model"]["id"] == "embedded"


def test_json_ends_with_where_the_result_is(files, here, capsys):
    argv = ["generate", "a fox", *FAST[:2], "--frames", "1", "-o", "x.png", "--format", "json", "--sidecar"]
    assert kinema.cli.run(argv) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["event"] for event in events} == {"progress", "done"}
    assert [e["phase"] for e in events[:-1]] == sorted(
        [e["phase"] for e in events[:-1]], key=["load", "text", "denoise", "decode"].index
    )
    assert events[-1]["path"] == "x.png"
    assert events[-1]["frames"] == 1
    record = read_record(here / "x.png")
    assert record is not None
    assert record.shot["seed"] == events[-1]["seed"]
    assert files() == {"x.png", "x.png.json"}
    assert json.loads((here / "x.png.json").read_text())["shot"] == dict(record.shot)


def test_a_clip_is_made_again_from_its_sidecar(files, here, monkeypatch):
    (here / "x.mp4.json").write_text(record_text(Record({"prompt": "a fox", "frames": 5, "seed": 3})))
    stand_in(monkeypatch, grey(5))
    assert kinema.cli.run(["render", "x.mp4.json", "--no-state"]) == 0
    assert files() == {"x.mp4.json", "x-s3.mp4"}


def test_a_sidecar_replaces_records_only(no_weights, here, capsys):
    argv = ["generate", "a fox", *FAST, "--sidecar", "--overwrite", "--dry-run", "-o"]
    (here / "x.mp4.json").write_text('{"prompt": "mine"}')
    assert kinema.cli.run([*argv, "x.mp4"]) == 2
    assert "'x.mp4.json' is no record of kinema's; move it away" in capsys.readouterr().err
    assert kinema.cli.run([*argv, "new/%04d.png"]) == 0


def stand_in(monkeypatch, frames: Iterator[np.ndarray]) -> None:
    """Render these frames in place of the model's."""

    def stream(job: object, **_: object) -> Clip:
        return Clip(frames, Fraction(8), size=(64, 64))

    monkeypatch.setattr("kinema.pipelines.run.stream", stream)


def grey(count: int) -> Iterator[np.ndarray]:
    for _ in range(count):
        yield np.full((64, 64, 3), 90, dtype=np.uint8)


def test_overwrite_replaces(files, here, monkeypatch, capsys):
    (here / "x.mp4").write_text("old")
    stand_in(monkeypatch, grey(5))
    assert kinema.cli.run(["generate", "a fox", *FAST, "-o", "x.mp4", "--overwrite"]) == 0
    assert (here / "x.mp4").stat().st_size > 500


def test_quiet_is_silent(files, here, monkeypatch, capsys):
    stand_in(monkeypatch, grey(5))
    assert kinema.cli.run(["generate", "a fox", *FAST, "-q", "-o", "x.webm"]) == 0
    assert capsys.readouterr() == ("", "")
    assert files() == {"x.webm"}


def test_no_record_is_asked_for(here, monkeypatch, capsys):
    seen = {}

    def stream(job: object, **options: object) -> Clip:
        seen.update(options)
        return Clip(grey(5), Fraction(8), size=(64, 64))

    monkeypatch.setattr("kinema.pipelines.run.stream", stream)
    for flags, keep in (([], True), (["--no-record"], False)):
        assert kinema.cli.run(["generate", "a fox", *FAST, "-q", *flags]) == 0
        assert seen["keep_record"] is keep


@pytest.mark.parametrize("option", ["--length-fit", "--fit-length"])
def test_notes_say_what_was_rounded(option, here, monkeypatch, capsys):
    stand_in(monkeypatch, grey(7))
    argv = ["generate", "a fox", "--frames", "7", option, "--size", "64x64", "-o", "x.mp4"]
    assert kinema.cli.run(argv) == 0
    assert capsys.readouterr().err == "note: 9 frames are made and 7 kept.\n"


def test_ctrl_c_leaves_nothing(files, here, monkeypatch, capsys):
    def interrupted() -> Iterator[np.ndarray]:
        yield from grey(3)
        raise KeyboardInterrupt

    stand_in(monkeypatch, interrupted())
    assert kinema.cli.run(["generate", "a fox", *FAST, "-o", "x.mp4", "--sidecar"]) == 130
    printed = capsys.readouterr()
    assert printed.err.strip() == "interrupted; nothing was written."
    assert printed.out == ""
    assert files() == set()


def test_a_reader_that_leaves_ends_it_quietly(here):
    command = [sys.executable, "-c", "import kinema.cli; kinema.cli.main()", "schema"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert done.returncode == kinema.cli.BROKEN_PIPE
    assert done.stderr == ""


def test_doctor_finds_a_sound_installation(capsys):
    assert kinema.cli.run(["doctor"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert {row.split()[1] for row in rows} >= {
        "kinema",
        "packages",
        "device",
        "ffmpeg",
        "model",
        "attention",
    }
    assert all(row.startswith("ok ") for row in rows)


def test_doctor_reports_a_kernel_that_computes_wrong(monkeypatch, capsys, request):
    from kinema.models import attention, selftest

    request.addfinalizer(selftest._trials.cache_clear)
    wrong = dict.fromkeys(attention.FORMS, lambda q, k, v, bias: q * 0)
    monkeypatch.setattr(attention, "FORMS", wrong)
    selftest._trials.cache_clear()
    monkeypatch.setattr("kinema.cli.doctor._embedded", lambda: ("model", "left out", True))
    assert kinema.cli.run(["doctor"]) == 2
    rows = [row for row in capsys.readouterr().out.splitlines() if " attention " in row]
    assert rows
    assert all(row.startswith("BAD") for row in rows)


SIZES = {"num_attention_heads": 12, "attention_head_dim": 128, "num_layers": 30, "ffn_dim": 8960}


def test_models_says_what_one_can_do(here, no_weights, capsys):
    from kinema.diffusion.solvers import SOLVERS
    from kinema.pipelines.card import MODES

    folder = here / "wan"
    for part, text in {
        "model_index.json": {"_class_name": "WanPipeline"},
        "transformer/config.json": SIZES | {"in_channels": 16, "patch_size": [1, 2, 2]},
        "vae/config.json": {"z_dim": 16},
    }.items():
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text(json.dumps(text))
    assert kinema.cli.run(["models", "wan"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("wan\n")
    assert "multiples of 16, lengths 5, 9, 13, 17" in text
    able = [line.split()[0] for line in text.splitlines() if line.split()[0] in ("can", "cannot")]
    assert len(able) == len(MODES)
    assert "cannot     extension of a clip" in text
    assert "can        text to video" in text
    assert all(name in text for name in SOLVERS)


def test_a_card_for_programs_says_what_it_says_for_people(capsys):
    from kinema.diffusion.solvers import SOLVERS
    from kinema.pipelines.card import MODES
    from kinema.pipelines.cards import read_card

    assert kinema.cli.run(["models", "--format", "json"]) == 0
    event = json.loads(capsys.readouterr().out)
    card = read_card("embedded")
    d = card.defaults
    assert (event["event"], event["model"], event["multiple"]) == ("card", "embedded", card.multiple)
    assert event["default"] == {
        "width": d.width, "height": d.height, "frames": d.frames, "fps": str(d.fps), "steps": d.steps,
        "solver": d.solver, "guidance": d.guidance, "grid": d.grid, "shift": d.shift,
    }  # fmt: skip
    assert event["can"] == [mode for mode in MODES if mode in card.modes]
    assert set(event["can"]).isdisjoint(event["cannot"])
    assert event["solvers"] == list(SOLVERS)
    few = next(tier for tier in event["speeds"] if tier["speed"] == "few")
    assert card.few is not None
    assert (few["steps"], few["solver"], few["guidance"]) == (card.few.steps, card.few.solver, d.guidance)
    for argv in (["models", "-q"], ["models", "list", "-q"]):
        assert kinema.cli.run(argv) == 0
        assert capsys.readouterr() == ("", "")


def test_a_dry_run_marks_the_memory_that_was_asked_for(no_weights, here, capsys):
    for memory, taken in (
        ("auto", "whole"),
        ("block", "block"),
        ("low", "block"),
        ("component", "component"),
    ):
        assert kinema.cli.run(["generate", "a fox", *FAST, "--memory", memory, "--dry-run"]) == 0
        needs = next(line for line in capsys.readouterr().out.splitlines() if "(taken)" in line)
        assert needs.count("(taken)") == 1
        assert needs[: needs.index(" (taken)")].replace(",", " ").split()[-3] == taken
        argv = ["generate", "a fox", *FAST, "--memory", memory, "--dry-run", "--format", "json"]
        assert kinema.cli.run(argv) == 0
        assert json.loads(capsys.readouterr().out)["memory"]["taken"] == taken


def test_a_dry_run_looks_at_the_files_of_shots_and_makes_none(no_weights, files, here, capsys):
    (here / "two.yaml").write_text("shots: [{prompt: a fox}, {prompt: a wolf}]\nseed: 1\n")
    argv = ["render", "two.yaml", "--dry-run", "-o", "x.mp4", "--shots-dir"]
    assert kinema.cli.run([*argv, "parts/deep"]) == 0
    assert not (here / "parts").exists()
    (here / "parts").mkdir()
    (here / "parts/02.mp4").touch()
    capsys.readouterr()
    assert kinema.cli.run([*argv, "parts"]) == 2
    assert "'parts/02.mp4' exists" in capsys.readouterr().err
    assert kinema.cli.run([*argv, "parts", "--overwrite"]) == 0


def test_schema_is_the_shots(capsys):
    from kinema.story.shot import Shot

    assert kinema.cli.run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == Shot.model_json_schema()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("A fox, running!", "a-fox-running"),
        ("../../etc", "etc"),
        ("", ""),
        ("狐狸 跑", "狐狸-跑"),
        ("x" * 90, "x" * 40),
    ],
)
def test_names_from_words(words, name):
    assert slug(words) == name


def test_names_are_free(here):
    assert str(free_name("fox-s1", ".mp4")) == "fox-s1.mp4"
    (here / "fox-s1.mp4").touch()
    (here / "fox-s1-2.mp4").touch()
    assert str(free_name("fox-s1", ".mp4")) == "fox-s1-3.mp4"


def test_variables_of_a_file_take_other_values(no_weights, here, capsys):
    text = "vars: {subject: a fox, strong: 3}\nprompt: ${subject}\nguidance: ${strong}\n"
    (here / "fox.yaml").write_text(text)
    assert asked(capsys, "render", "fox.yaml")["prompt"] == "a fox"
    shot = asked(capsys, "render", "fox.yaml", "--var", "subject=a wolf", "--var", "strong=4.5")
    assert (shot["prompt"], shot["guidance"]) == ("a wolf", 4.5)
    for argv, message in [
        (["--var", "subjct=x"], "unknown variable 'subjct'. Did you mean 'subject'?"),
        (["--var", "subject"], "--var 'subject' is not NAME=VALUE"),
        (["--var", "subject=a", "--var", "subject=b"], "--var subject is said twice"),
    ]:
        assert kinema.cli.run(["plan", "fox.yaml", *argv]) == 2
        assert message in capsys.readouterr().err


def test_inspect_reads_a_folder_of_frames_by_the_name_that_it_was_written_under(no_weights, here, capsys):
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    Clip(pixels, 8, Record({"prompt": "a fox"})).save("frames/%04d.png")
    Clip(pixels, 8, Record({"prompt": "a wolf"})).save("frames/b-%04d.png")
    for name, words in {
        "frames/%04d.png": "a fox",
        "frames/b-%04d.png": "a wolf",
        "frames": "a fox",
        "frames/0001.png": "a fox",
    }.items():
        assert kinema.cli.run(["inspect", name]) == 0
        assert json.loads(capsys.readouterr().out)["shot"] == {"prompt": words}
    assert kinema.cli.run(["inspect", "frames/c-%04d.png"]) == 2
    assert "frames/c-%04d.png does not exist" in capsys.readouterr().err
