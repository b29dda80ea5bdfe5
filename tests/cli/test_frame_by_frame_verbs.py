"""Frame-by-frame mode from the command line: what is asked arrives, and the plan says what is drawn."""

from __future__ import annotations

import json

import pytest

import kinema.cli


def asked(capsys, *argv):
    """The plan that a verb would render, as the JSON it prints."""
    assert kinema.cli.run([*argv, "--dry-run", "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *argv):
    assert kinema.cli.run([*argv, "--dry-run"]) == 2
    return capsys.readouterr().err


def test_redraw_settings_imply_the_mode(no_weights, here, capsys):
    shot = asked(
        capsys, "generate", "a fox", "--frames", "6", "--redraw", "strength=0.4", "--redraw", "seed=fixed"
    )["shot"]
    assert (shot["mode"], shot["redraw"]["strength"], shot["redraw"]["seed"]) == (
        "frame_by_frame",
        0.4,
        "fixed",
    )
    assert shot["frames"] == 6  # any length: every frame has its own latents


def test_travel_through_an_image_model(no_weights, here, capsys):
    argv = ("travel", "0: a rooster", "100%: a penguin", "--engine", "image", "--frames", "9")
    shot = asked(capsys, *argv, "--seeds", "7,9,12")["shot"]
    redraw = shot["redraw"]
    assert (shot["mode"], shot["blend"], redraw["strength"], redraw["seed"]) == (
        "frame_by_frame",
        "slerp",
        1,
        "travel",
    )
    assert redraw["seeds"] == {"0%": 7, "50%": 9, "100%": 12}
    assert asked(capsys, *argv, "--seeds", "0:(7), 8:(9)")["shot"]["redraw"]["seeds"] == "0:(7), 8:(9)"
    assert asked(capsys, *argv)["shot"]["redraw"]["seed"] == "fixed"
    assert asked(capsys, *argv, "--blend", "embedding")["shot"]["blend"] == "embedding"


def test_wrong_ways_to_travel_are_told(no_weights, here, capsys):
    argv = ("travel", "0: a rooster", "8: a penguin", "--frames", "9")
    assert "--seeds needs --engine image" in refused(capsys, *argv, "--seeds", "1,2")
    assert "Did you mean 'image'" in refused(capsys, *argv, "--engine", "imgae")
    assert "two or more whole numbers" in refused(capsys, *argv, "--engine", "image", "--seeds", "1,x")


def test_the_plan_says_what_is_drawn_and_how_often_the_network_runs(no_weights, here, capsys):
    argv = ("generate", "a fox", "--frames", "9", "--steps", "10", "--seed", "3")
    redraw = ("--redraw", "cadence=4", "--redraw", "strength=0.5")
    assert kinema.cli.run([*argv, *redraw, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "3 of 9 frames, strength 0.5, colours transport" in printed
    assert "seeds 3, 4, 5" in printed
    # 10 steps for the first frame, 5 for each of the others, with and without the prompt
    assert asked(capsys, *argv, *redraw)["forwards"] == 2 * (10 + 5 + 5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--redraw", "strength=1.4"), "strength=1.4 is out of range; write 0 to 1"),
        (("--redraw", "strenth=0.4"), "Did you mean 'strength'"),
        (("--redraw", "mask_feather=3"), "mask_feather does nothing without a mask"),
        (("--redraw", "mask=no.png"), "no.png"),
        (("--mode", "frame_by_fram"), "Did you mean 'frame_by_frame'"),
        (("--mode", "joint", "--redraw", "strength=0.4"), "redraw belongs to mode: frame_by_frame"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(no_weights, here, capsys, argv, message):
    error = refused(capsys, "generate", "a fox", "--frames", "6", *argv)
    assert message in error
    assert error.count("\n") == 1


def test_an_image_model_is_planned_without_its_weights(image_model, no_weights, here, capsys):
    argv = ("generate", "a fox", "--model", str(image_model("sd")), "--frames", "3", "--size", "32x32")
    assert "add --mode frame_by_frame" in refused(capsys, *argv)
    plan = asked(capsys, *argv, "--mode", "frame_by_frame", "--steps", "10")
    assert plan["forwards"] == 2 * (10 + 5 + 5)
    assert plan["operations"] > 0
    assert plan["seconds"] > 0
    assert kinema.cli.run(["models", str(image_model("sd"))]) == 0
    assert "frame by frame" in capsys.readouterr().out
