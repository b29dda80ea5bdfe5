"""Frames of a variable rate keep their times in a new file, and rates come back as they were written."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from patch_clips import patches, position
from PIL import Image

from kinema.core.contracts import Record
from kinema.core.errors import ConfigError
from kinema.io import ffmpeg
from kinema.io.clip import Clip
from kinema.io.picture_read import _likely_rate, stands_still
from kinema.io.reader import resample
from kinema.io.record import read_record
from kinema.io.video_read import open_video
from kinema.io.video_write import check_output, write_video

SLOWING = "setpts='if(lt(N,12),N/24,0.5+(N-12)/6)/TB'"
STARTS = np.concatenate([np.arange(12) / 24, 0.5 + np.arange(12) / 6])


@pytest.fixture(params=["decord", "ffmpeg"])
def reads(request, monkeypatch):
    """Who reads the frames."""
    if request.param == "ffmpeg":
        monkeypatch.setitem(sys.modules, "decord", None)  # importing it fails now
    return request.param


@pytest.fixture(scope="module")
def slowing(tmp_path_factory):
    """12 frames at 24 a second, then 12 at 6, with a tone from where frame 18 begins."""
    folder = tmp_path_factory.mktemp("slowing")
    steady = write_video(folder / "steady.mkv", patches(24), fps=24)
    tone = ["-f", "lavfi", "-i", "aevalsrc='if(gte(t,1.5),sin(2*PI*1000*t),0)':s=48000:d=2.5"]
    coded = [
        "-fps_mode",
        "vfr",
        "-enc_time_base",
        "1:24000",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
    ]
    made = folder / "slowing.mp4"
    ffmpeg.run(["-i", ffmpeg.url(steady), *tone, "-vf", SLOWING, *coded, ffmpeg.url(made)]).check("make")
    return made


def tone_of(path) -> float:
    """When the tone begins, in seconds."""
    run = ffmpeg.run(
        ["-i", ffmpeg.url(path), "-map", "0:a:0", "-ac", "1", "-ar", "48000", "-f", "f32le", "pipe:1"]
    )
    return np.flatnonzero(np.abs(np.frombuffer(run.check("read").output, np.float32)) > 0.1)[0] / 48000


def test_the_rate_is_the_mean_and_times_are_exact(slowing, reads):
    clip = open_video(slowing)
    assert clip.frames == 24
    assert clip.times == pytest.approx(STARTS, abs=1e-3)
    assert clip.duration == pytest.approx(2.5, abs=0.15)
    assert float(clip.fps) == pytest.approx(24 / clip.duration, rel=1e-3)


def test_a_saved_clip_shows_every_frame_at_its_time(slowing, tmp_path, reads):
    notes: list[str] = []
    made = Clip.open(slowing).save(tmp_path / "a.mp4", on_note=notes.append)
    assert [note.split(" become ")[0] for note in notes] == ["a.mp4: 24 frames of variable rate"]
    clip = open_video(made)
    seen = [position(frame) for frame in clip]
    firsts = [clip.times[seen.index(k)] for k in range(24)]
    assert clip.fps == 24
    assert firsts == pytest.approx(STARTS, abs=1e-3)
    assert tone_of(made) == pytest.approx(firsts[18], abs=0.03)


def test_a_gif_of_uneven_frames_keeps_their_times(tmp_path):
    pictures = [Image.fromarray(frame) for frame in patches(5)]
    lasting = [2000, 100, 100, 100, 1700]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=lasting)
    for name in ("b.mkv", "b.gif"):
        clip = open_video(Clip.open(tmp_path / "a.gif").save(tmp_path / name))
        seen = [position(frame) for frame in clip]
        assert [clip.times[seen.index(k)] for k in range(5)] == pytest.approx([0, 2, 2.1, 2.2, 2.3])
        assert clip.duration == pytest.approx(4)


def test_without_times_or_at_another_rate_frames_are_written_once(slowing, tmp_path):
    Clip.open(slowing).save(tmp_path / "frames" / "%02d.png")
    assert len(list((tmp_path / "frames").iterdir())) == 24
    clip = Clip.open(slowing)
    clip.fps = Fraction(12)
    again = open_video(clip.save(tmp_path / "a.mkv"))
    assert (again.frames, again.fps) == (24, 12)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("fps", ["1/3", "1/7", "1/8", "7/20"])
def test_slow_rates_come_back(tmp_path, fps, suffix, reads):
    path = write_video(tmp_path / f"a{suffix}", patches(3), fps=fps)
    assert open_video(path).fps == Fraction(fps)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("a.mp4", "1/11"), ("a.mov", 0.05), ("a.mkv", "1/600"), ("a.webm", "99/1000"), ("a.gif", "1/656"),
     ("a.webp", "1/16778")],
)  # fmt: skip
def test_a_rate_that_would_not_come_back_is_refused_before_a_frame_is_drawn(tmp_path, name, rate):
    def frames():
        yield pytest.fail("a frame is drawn")

    with pytest.raises(
        ConfigError, match=rf"fps=\S+ is below 1/\d+, .* {Path(name).suffix} is read back; use"
    ):
        write_video(tmp_path / name, frames(), fps=rate)
    with pytest.raises(ConfigError, match="is below"):
        check_output(tmp_path / name, fps=rate)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "rate"), [("a.mp4", "1/10"), ("a.gif", "1/655"), ("a.webp", "1/16777")])
def test_the_slowest_rates_come_back(tmp_path, name, rate):
    assert open_video(write_video(tmp_path / name, patches(2), fps=rate)).fps == Fraction(rate)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("record", [None, Record({"prompt": "a fox"})], ids=["bare", "record"])
def test_a_webp_in_which_nothing_moves_keeps_its_length(tmp_path, channels, record):
    frame = np.random.default_rng(0).integers(0, 256, (30, 41, channels), dtype=np.uint8)
    path = write_video(tmp_path / "a.webp", [frame] * 12, fps=8, record=record, quality="lossless")
    clip = open_video(path)
    clip.keeps_alpha = channels == 4
    assert clip.duration == 1.5
    shown = list(resample(clip, Fraction(8)))
    assert len(shown) == 12
    seen = frame[..., 3:] > 0 if channels == 4 else True  # colours under what is fully transparent are free
    assert all(np.array_equal(found * seen, frame * seen) for found in shown)
    assert read_record(path) == record
    assert stands_still(path)
    data = path.read_bytes()
    assert len(data) == 8 + int.from_bytes(data[4:8], "little")
    still = open_video(write_video(tmp_path / "b.webp", [frame], fps=8), still_fps=Fraction(5))
    assert (still.frames, still.fps) == (1, 5)


def test_a_webp_that_stands_still_for_hours_has_frames_as_long_as_they_can_be(tmp_path):
    hours = 10 * 3600
    clip = open_video(write_video(tmp_path / "a.webp", list(patches(1)) * 10, fps=Fraction(10, hours)))
    assert clip.duration == hours
    assert clip.frames == 3


@pytest.mark.parametrize("count", [5, 9, 26])
@pytest.mark.parametrize(
    ("suffix", "fps"), [(".webp", 24), (".webp", 30), (".webp", 60), (".gif", 24), (".gif", 30), (".gif", 50)]
)
def test_rates_come_back_from_the_rounded_times_of_animations(tmp_path, suffix, fps, count):
    path = write_video(tmp_path / f"a{suffix}", patches(count, width=224), fps=fps)
    assert open_video(path).fps == fps


@pytest.mark.parametrize(
    ("durations", "step", "fps"),
    [
        ([100.0, 300.0, 100.0, 100.0], 10, Fraction(20, 3)),  # no steady rate: the mean
        ([20.0, 30.0], 10, Fraction(40)),
        ([80.0] * 5, 1, Fraction(25, 2)),
        ([1000 / 24] * 26, 1, Fraction(24)),
        ([1001 / 24] * 26, 1, Fraction(24000, 1001)),
        ([3000.0] * 3, 1, Fraction(1, 3)),
    ],
)
def test_a_rate_is_whole_only_where_every_frame_agrees(durations, step, fps):
    assert _likely_rate(durations, step) == fps
