"""Frames reach both writers, at one pace; a failure of either reaches whoever draws."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from kinema.core.errors import MediaError
from kinema.io.tee import tee
from kinema.io.video_read import open_video
from kinema.io.video_write import write_video


def numbered(count):
    for i in range(count):
        yield np.full((16, 16, 3), i, np.uint8)


def test_both_get_every_frame_in_order():
    taken = []
    shown = list(tee(numbered(50), lambda frames: taken.extend(frames)))
    assert [f[0, 0, 0] for f in shown] == [f[0, 0, 0] for f in taken] == list(range(50))


def test_the_second_is_never_far_behind():
    seen, drawn = [], []

    def slow(frames):
        for frame in frames:
            seen.append(frame[0, 0, 0])
            assert len(drawn) - len(seen) <= 4

    for frame in tee(numbered(30), slow):
        drawn.append(frame)
    assert len(seen) == 30


def test_a_writer_that_fails_is_heard_of_and_holds_nobody_up():
    def broken(frames):
        next(frames)
        raise MediaError("no room")

    shown = []
    with pytest.raises(MediaError, match="no room"):
        shown.extend(iter_into(shown, tee(numbered(20), broken)))
    assert len(shown) == 20


def iter_into(shown, frames):
    for frame in frames:
        shown.append(frame)
    return ()


def test_a_cut_off_leaves_no_file_and_no_thread(tmp_path):
    before = threading.active_count()
    frames = tee(numbered(20), lambda taken: write_video(tmp_path / "a.mp4", taken, fps=8))
    next(frames)
    frames.close()
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


def test_a_file_is_written_on_the_way(tmp_path):
    assert len(list(tee(numbered(9), lambda taken: write_video(tmp_path / "a.mkv", taken, fps=8)))) == 9
    assert [f[0, 0, 0] for f in open_video(tmp_path / "a.mkv")] == list(range(9))
