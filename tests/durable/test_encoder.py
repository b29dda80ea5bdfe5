"""An encoder that dies, hangs, loses frames or has no room is noticed; the frames are encoded again."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from kinema.core.errors import MediaError
from kinema.io.clip import Clip
from kinema.io.count import count_frames
from kinema.io.frame_sink import EncoderError
from kinema.io.live import Draft, Live, live_path
from kinema.io.video_read import open_video
from kinema.io.video_write import write_video
from kinema.io.watchdog import Watchdog

REAL = imageio_ffmpeg.get_ffmpeg_exe()


def pictures(count: int, side: int = 32) -> np.ndarray:
    ramp = np.arange(count * side * side * 3, dtype=np.uint32) * 7
    return (ramp % 251).astype(np.uint8).reshape(count, side, side, 3)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a shell script in ffmpeg's place; `$REAL` is the real one, `$N` counts the calls."""

    def put(script: str) -> Path:
        (tmp_path / "bin").mkdir()
        program, calls = tmp_path / "bin" / "ffmpeg", tmp_path / "bin" / "calls"
        count = f'echo x >> "{calls}"; N=$(wc -l < "{calls}"); REAL="{REAL}"'
        program.write_text(f"#!/bin/sh\n{count}\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr("kinema.io.ffmpeg.executable", lambda: str(program))
        return calls

    return put


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("kill -9 $$", "ended by SIGKILL"),
        ("echo 'out of luck' >&2; exit 3", "out of luck"),
        ('"$REAL" -t 0.5 "$@"; cat > /dev/null; exit 0', "took 16 frames and wrote"),
        ("cat > /dev/null; exit 0", "took 16 frames and wrote 0"),
        ("sleep 60", "did nothing"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_bad_first_attempt_is_noted_and_the_second_gives_the_same_bytes(
    tmp_path, stand_in, monkeypatch, first, said, name
):
    Clip(pictures(16), 8).save(tmp_path / f"whole-{name}")
    calls = stand_in(f'if [ $N = 1 ]; then {first}; fi\nexec "$REAL" "$@"')
    if said == "did nothing":
        monkeypatch.setattr("kinema.io.frame_sink.Watchdog", impatient_once(calls))
    notes: list[str] = []
    Clip(pictures(16), 8).save(tmp_path / name, on_note=notes.append)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert len(notes) == 1
    assert said in notes[0]
    assert "tried again" in notes[0]
    assert len(calls.read_text().split()) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"bin", name, f"whole-{name}"}


def impatient_once(calls: Path) -> Callable[..., Watchdog]:
    """A watchdog that is short of patience with the first call, once that is counted."""
    short = [0.5]

    def watchdog(process: subprocess.Popen[bytes], seconds: float) -> Watchdog:
        if not short:
            return Watchdog(process, seconds)
        until(lambda: calls.exists() and calls.read_text() != "")
        return Watchdog(process, short.pop())

    return watchdog


def until(condition: Callable[[], bool]) -> None:
    """Wait; the limit is for a test that hangs."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_attempts_are_bounded_and_a_stream_has_one(tmp_path, stand_in):
    calls = stand_in("kill -9 $$")
    with pytest.raises(EncoderError, match="SIGKILL"):
        write_video(tmp_path / "a.mp4", pictures(3), fps=8)
    assert len(calls.read_text().split()) == 3
    with pytest.raises(EncoderError, match="SIGKILL"):
        write_video(tmp_path / "a.mp4", iter(pictures(3)), fps=8)
    assert len(calls.read_text().split()) == 4
    assert {p.name for p in tmp_path.iterdir()} == {"bin"}


def test_a_full_disk_is_not_tried_again(tmp_path, stand_in):
    calls = stand_in("echo 'av_interleaved_write_frame(): No space left on device' >&2; exit 228")
    with pytest.raises(MediaError, match=r"No space left.*make room"):
        write_video(tmp_path / "a.mp4", pictures(3), fps=8)
    assert len(calls.read_text().split()) == 1


def test_a_missing_program_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("kinema.io.ffmpeg.executable", lambda: str(tmp_path / "gone"))
    with pytest.raises(MediaError, match="cannot start ffmpeg"):
        write_video(tmp_path / "a.mp4", pictures(3), fps=8)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_program_is_ended_while_it_takes_frames(tmp_path, monkeypatch):
    monkeypatch.setattr("kinema.io.frame_sink.PATIENCE", 0.5)
    before = threading.active_count()

    def frames():
        for index, frame in enumerate(np.tile(pictures(1, 256), (40, 1, 1, 1))):
            if index == 3:
                for child in children():
                    os.kill(child, signal.SIGSTOP)
            yield frame

    with pytest.raises(EncoderError, match=r"did nothing for 0\.5 s"):
        write_video(tmp_path / "a.mp4", frames(), fps=8)
    assert children() == []
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def children() -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-x", Path(REAL).name[:15]], capture_output=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.webm", "a.mkv"])
@pytest.mark.parametrize("count", [1, 2, 33])
def test_frames_are_counted_as_a_decoder_finds_them(tmp_path, name, count):
    path = write_video(tmp_path / name, pictures(count), fps=8)
    muxer = {"a.mp4": "mp4", "a.mov": "mov", "a.webm": "webm", "a.mkv": "matroska"}[name]
    assert count_frames(path, muxer) == open_video(path).frames == count
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert count_frames(cut, muxer) != count
    assert count_frames(tmp_path / "none", muxer) == 0


def test_a_live_draft_is_whole_up_to_the_last_frame_whatever_ends_the_writer(tmp_path):
    draft = live_path(tmp_path / "fox.mp4")
    assert draft == tmp_path / "fox.mp4.live.mp4"
    pid = os.fork()
    if not pid:
        for index, _ in enumerate(Live(pictures(30), Draft(draft), Fraction(8), print)):
            if index == 20:
                os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    orphan = ["pgrep", "-f", f"file:{draft}"]  # it sees the end of its input, and ends too
    until(lambda: not subprocess.run(orphan, capture_output=True).stdout)
    assert open_video(draft).frames == 21


def test_a_draft_that_cannot_be_written_is_given_up_and_the_frames_go_on(tmp_path):
    notes: list[str] = []
    draft = tmp_path / "no folder" / "fox.mp4.live.mp4"
    given = list(Live(pictures(9, 33), Draft(draft), Fraction(8), notes.append))
    assert len(given) == 9
    assert np.array_equal(given[-1], pictures(9, 33)[-1])
    assert len(notes) <= 1
