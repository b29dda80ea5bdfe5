"""Clips of variable rate: the rate that is found in their times, and how often each frame is shown then."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from kinema.cli import run
from kinema.io.clip import Clip
from kinema.io.reader import VideoReader
from kinema.io.steady import shown_for, steady_rate
from kinema.pipelines.upscale_clip import upscale_clip
from kinema.story.upscale import Upscale

NTSC_FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)


@dataclass
class Timed(VideoReader):
    """Times, and no pictures."""

    times: np.ndarray = None
    duration: float = 0.0
    fps: Fraction = Fraction(24)

    def __iter__(self):
        raise AssertionError("a picture is drawn")


def lasting(milliseconds, fps=None) -> Timed:
    """A clip whose frames last this long; by default with their mean rate."""
    ends = np.cumsum(milliseconds) / 1000
    mean = Fraction(len(milliseconds) / ends[-1]).limit_denominator(1001)
    return Timed(np.concatenate(([0.0], ends[:-1])), float(ends[-1]), mean if fps is None else fps)


def without(fps: Fraction, frames: int, missing: int, *, whole_ms: bool = False) -> Timed:
    """A clip of a steady rate that lost a frame; in Matroska its times are whole milliseconds."""
    times = np.delete(np.arange(frames) / float(fps), missing)
    end = frames / float(fps)
    return Timed(
        np.round(times, 3) if whole_ms else times, end, Fraction((frames - 1) / end).limit_denominator()
    )


@pytest.mark.parametrize("whole_ms", [False, True])
@pytest.mark.parametrize("frames", [80, 600])
@pytest.mark.parametrize("fps", [NTSC_FILM, Fraction(24), Fraction(25), NTSC, Fraction(60), Fraction(25, 2)])
def test_a_clip_that_lost_a_frame_keeps_its_rate(fps, frames, whole_ms):
    clip = without(fps, frames, 10, whole_ms=whole_ms)
    found = steady_rate(clip, 1000)
    counts = shown_for(clip, found)
    assert found == fps
    assert (counts.sum(), counts.max(), counts.argmax(), counts.min()) == (frames, 2, 9, 1)


@pytest.mark.parametrize(
    ("milliseconds", "most", "fps", "counts"),
    [
        ([100, 1000, 100, 100], 1000, 10, [1, 10, 1, 1]),
        ([30] * 20 + [1000], 50, Fraction(100, 3), [1] * 20 + [33]),
        ([70] * 12 + [1500], 50, Fraction(100, 7), [1] * 12 + [21]),
        ([100, 100, 70, 2000], 50, 50, [5, 5, 4, 100]),
        ([100, 100, 70, 2000], 1000, 60, [6, 6, 4, 120]),
        ([15] * 5 + [1000], 1000, Fraction(200, 3), [1] * 5 + [67]),
        ([40, 60, 100, 20, 20], 50, 50, [2, 3, 5, 1, 1]),
        ([80, 120, 400, 80], 1000, 25, [2, 3, 10, 2]),
        ([1000, 1000, 2000, 300], 1000, 1, [1, 1, 2, 1]),  # the last is there, however short
        ([1000, 1000, 5000, 500], 1000, 1, [1, 1, 5, 1]),
    ],
)
def test_every_frame_is_shown_for_its_time(milliseconds, most, fps, counts):
    clip = lasting(milliseconds)
    found = steady_rate(clip, most)
    assert (found, shown_for(clip, found).tolist()) == (fps, counts)


def test_no_frame_of_a_fast_clip_is_lost_behind_a_hitch():
    clip = lasting([1000 / 120] * 120 + [20] + [1000 / 120] * 119, Fraction(120))
    found = steady_rate(clip, 1000)
    assert 120 <= found <= 130
    assert shown_for(clip, found).min() == 1


@pytest.mark.parametrize("times", [[0.0, 0.0, 1.0, 5.0], [0.0, 1e-5, 1.0, 5.0], [0.0, 1.0, 100.0, 200.0]])
def test_odd_times_have_a_rate_that_a_file_can_have(times):
    clip = Timed(np.array(times), times[-1] + 1, Fraction(4, 6))
    found = steady_rate(clip, 1000)
    assert 1 <= found <= 240
    assert abs(int(shown_for(clip, found).sum()) - clip.duration * found) <= 1


def test_steady_clips_stay_as_they_are():
    assert steady_rate(lasting([42, 41, 42, 42, 41] * 20), 1000) is None
    assert steady_rate(lasting([500]), 1000) is None


def gif(path, milliseconds):
    frames = [Image.new("L", (8, 8), 10 * k + 5) for k in range(len(milliseconds))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds)
    return path


@pytest.mark.parametrize("milliseconds", [[30] * 20 + [1000], [70] * 12 + [1500], [100, 100, 70, 2000]])
def test_an_ordinary_gif_becomes_a_gif(tmp_path, monkeypatch, milliseconds):
    monkeypatch.chdir(tmp_path)
    before = Clip.open(gif(tmp_path / "x.gif", milliseconds))
    assert run(["upscale", "x.gif", "-q"]) == 0
    made = Clip.open(tmp_path / "x-large.gif")
    assert made.size == (16, 16)
    assert abs(made.frames.duration - before.frames.duration) <= 0.5 / made.fps + 0.01
    shown = [int(frame[0, 0, 0]) for frame in made]
    assert sorted(set(shown)) == [10 * k + 5 for k in range(len(milliseconds))]


def test_frames_that_have_no_room_are_told(tmp_path):
    fast = gif(tmp_path / "x.gif", [10, 10, 10, 10, 500, 30])
    notes = []
    made = upscale_clip(fast, Upscale(scale=2), most_fps=50, on_progress=lambda e: notes.append(e.note))
    assert (made.fps, notes) == (50, ["2 of 6 frames begin too close to others for 50 fps and are left out."])
    notes.clear()
    upscale_clip(fast, Upscale(scale=2), on_progress=lambda e: notes.append(e.note))
    assert not notes
