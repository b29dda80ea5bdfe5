"""Events become lines of JSON, bars on a terminal, or nothing."""

from __future__ import annotations

import io
import json

import pytest

from kinema.cli.progress import Reporter
from kinema.core.contracts import Progress
from kinema.core.errors import ConfigError

EVENTS = [
    Progress("load", 0, 1),
    Progress("load", 1, 1),
    Progress("denoise", 1, 2, sigma=0.5),
    Progress("denoise", 2, 2),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(report):
    with report:
        for event in EVENTS:
            report(event)
        report.note("17 frames are made and 15 kept.")
        report.done("x.mp4  15 frames", path="x.mp4", seed=3)


def test_json_is_one_event_a_line(capsys):
    run(Reporter("json", quiet=False))
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert [event["event"] for event in events] == ["progress"] * 4 + ["note", "done"]
    assert events[2] == {"event": "progress", "phase": "denoise", "step": 1, "steps": 2, "sigma": 0.5}
    assert events[-1] == {"event": "done", "path": "x.mp4", "seed": 3}
    assert printed.err == ""


def test_a_file_for_stderr_gets_no_bars(capsys):
    run(Reporter("text", quiet=False))
    printed = capsys.readouterr()
    assert printed.out == "x.mp4  15 frames\n"
    assert printed.err == "note: 17 frames are made and 15 kept.\n"


def test_a_terminal_gets_a_bar_per_phase_and_is_left_clean(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run(Reporter("text", quiet=False))
    drawn = terminal.getvalue()
    assert "loading the model ..." in drawn
    assert "denoising" in drawn
    assert "1/2" in drawn
    last = drawn.rsplit("note:")[0].rsplit("\r", 1)[1]
    assert last.strip() == ""


def test_the_time_that_is_left_is_that_of_all_phases_that_take_turns(monkeypatch):
    now = 1000.0
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    with Reporter("text", quiet=False) as report:
        for frame in range(1, 11):
            now += 1
            report(Progress("decode", frame, 100))
            now += 3
            report(Progress("upscale", frame, 100))
            if frame == 5:
                report.note("a frame is odd.")
        last = terminal.getvalue().rsplit("\r", 1)[1]
        assert last.startswith("upscaling")
        assert "10/100, 06:00 left" in last
        report(Progress("upscale", 1, 100))  # anew
        assert "1/100" in terminal.getvalue().rsplit("\r", 1)[1]
    assert terminal.getvalue().count("note: a frame is odd.\n") == 1
    assert terminal.getvalue().rsplit("\r", 1)[1].strip() == ""


def test_quiet_says_nothing(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run(Reporter("text", quiet=True))
    assert terminal.getvalue() == ""
    assert capsys.readouterr().out == ""


def test_an_interrupted_bar_is_closed(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    report = Reporter("text", quiet=False)
    report(Progress("denoise", 1, 4))
    report.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert terminal.getvalue().rsplit("\r", 1)[1].strip() == ""


def test_formats_are_known():
    with pytest.raises(ConfigError, match=r"unknown format 'jsonl'.*Did you mean 'json'"):
        Reporter("jsonl", quiet=False)
