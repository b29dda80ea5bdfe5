"""Frames that a network made for a file are not made twice, whatever ends the process or the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import upscalers
from kinema.cli import run
from kinema.core.errors import BusyError
from kinema.io.clip import Clip
from kinema.io.frame_sink import EncoderError, FrameSink
from kinema.io.hidden import lock_of
from kinema.pipelines.upscale import Network
from kinema.pipelines.upscale_kept import keeping
from moving_scenes import clip

COMMAND = ["upscale", "a.mkv", "--model", "2x.safetensors", "-o", "b.mkv"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    upscalers.doubled(tmp_path / "2x.safetensors")
    Clip(clip("spin", 6), 8).save("a.mkv", quality="lossless")
    return tmp_path


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """One entry for each frame that goes through a network; the fourth is interrupted."""
    frames, real = [], Network.__call__

    def told(self, frame):
        if len(frames) == 3:
            frames.append(-1)
            raise KeyboardInterrupt
        frames.append(len(frames))
        return real(self, frame)

    monkeypatch.setattr(Network, "__call__", told)
    return frames


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_same_command_goes_on_behind_the_frames_that_are_kept(here, made, capsys):
    assert run(COMMAND) == 130
    assert "the frames so far are kept; the same command goes on" in capsys.readouterr().err
    assert len(hidden(here)) == 1
    assert run(COMMAND) == 0
    assert made == [0, 1, 2, -1, 4, 5, 6]
    assert np.array_equal(Clip.open("b.mkv").array(), Clip.open("a.mkv").array().repeat(2, 1).repeat(2, 2))
    assert hidden(here) == []


@pytest.mark.parametrize("what", ["source", "network", "size"])
def test_frames_of_something_else_are_not_taken(here, made, what):
    assert run(COMMAND) == 130
    command = COMMAND
    if what == "source":
        Clip(clip("pan", 6), 8).save("a.mkv", quality="lossless", overwrite=True)
    elif what == "network":
        upscalers.saved(here / "2x.safetensors", upscalers.compact(2))
    else:
        command = [*COMMAND, "--scale", "4"]
    assert run([*command, "-q"]) == 0
    assert len(made) == 4 + 6
    assert hidden(here) == []


def test_an_encoder_that_fails_costs_no_frame_again(here, made, monkeypatch):
    made.extend([-1] * 4)  # nobody interrupts
    real, failed = FrameSink.write, []

    def fails(self, frame):
        if len(failed) < 2:
            failed.append(1)
            raise EncoderError("cannot write: it died.")
        real(self, frame)

    monkeypatch.setattr(FrameSink, "write", fails)
    assert run([*COMMAND, "-q"]) == 0
    assert len(made) == 4 + 6
    assert hidden(here) == []


def test_a_disk_without_room_keeps_none_and_says_so(here, made, monkeypatch, capsys):
    made.extend([-1] * 4)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert run(COMMAND) == 0
    assert "frames are not kept: up to" in capsys.readouterr().err
    assert hidden(here) == []


def test_a_disk_that_is_full_on_the_way_costs_only_the_keeping(here, made, monkeypatch, capsys):
    made.extend([-1] * 4)

    def full(self, frame, *, deflate=False):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kinema.io.journal.FrameJournal.append", full)
    assert run(COMMAND) == 0
    assert "frames cannot be kept any longer: No space left on device" in capsys.readouterr().err
    assert Clip.open("b.mkv").size == (128, 128)


def test_two_processes_do_not_make_one_file(here):
    with lock_of(here / "b.mkv"), pytest.raises(BusyError), keeping(here / "b.mkv", print):
        pass


def test_a_dry_run_and_a_refusal_leave_nothing(here):
    assert run([*COMMAND, "--dry-run"]) == 0
    assert run([*COMMAND[:-1], "b.png"]) == 2
    assert hidden(here) == []


def test_other_hidden_files_stay(here):
    others = [".b.mkv.kinema-x", ".b.mkv-0.upscaled", ".c.mkv-0123456789abcdef01234567.upscaled"]
    for name in others:
        (here / name).write_text("someone's")
    assert run([*COMMAND, "-q"]) == 0
    assert sorted(hidden(here)) == sorted(others)
