"""A looped sound repeats its features and its beats; a shot's schedules hear it as its file plays it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from test_mux import sound_file

from kinema.io.audio import Recording
from kinema.io.audio_loop import Looped
from kinema.pipelines.job import make_job
from kinema.story.shot import Shot

FPS = Fraction(8)


@pytest.fixture(scope="module")
def bar(tmp_path_factory) -> str:
    return sound_file(tmp_path_factory.mktemp("bar") / "bar.wav", 0.0, 0.5, 1.0, 1.5, seconds=2.0)


def test_features_repeat_with_the_turn_and_are_silent_before_it(bar):
    from kinema.io.audio import listen

    once = listen(bar)
    assert isinstance(once, Recording)
    looped = Looped(once)
    edges = np.arange(-8, 49) / 8.0
    for name in ("audio.rms", "audio.onset"):
        heard = looped.feature(name, (), edges)
        assert heard[24:40] == pytest.approx(heard[8:24], abs=1e-9)
        assert np.abs(heard[:8]).max() < 1e-9
        assert heard[8:24] == pytest.approx(once.feature(name, (), edges[8:25]), abs=1e-9)
        assert heard[24:].max() > 0.3
    assert looped.tempo == once.tempo
    beats = looped.beats
    assert beats[len(once.beats)] == pytest.approx(once.beats[0] + once.seconds)
    assert (np.diff(beats) > 0).all()


@pytest.mark.parametrize(("fps", "seconds"), [(24, 2.015), (30, 0.51), (8, 1.9), (2, 0.3)])
def test_what_lies_about_the_seam_is_heard_in_its_frame(fps, seconds):
    noise = np.random.default_rng(0).standard_normal(600) * np.exp(-np.arange(600) / 120) / 2
    samples = np.zeros(round(seconds * 22_050), np.float32)
    samples[:600] = noise  # a drum at the very beginning of each turn
    looped = Looped(Recording(samples))
    edges = np.arange(fps * 10 + 1) / fps
    turns = np.arange(int(10 / looped.recording.seconds)) * looped.recording.seconds
    nearest = np.unique(np.round(turns * fps).astype(int))
    assert set(nearest) <= set(np.flatnonzero(looped.feature("audio.onset", (), edges) > 0.3))
    # every turn has the same energy, wherever frames begin
    heard = looped.feature("audio.rms", (), edges) ** 2
    once = looped.recording.feature("audio.rms", (), np.array([0.0, seconds]))[0] ** 2
    assert heard[: int(turns[-1] * fps)].mean() == pytest.approx(once, rel=0.1)


def test_the_beats_of_a_loop_are_on_the_frames_nearest_to_them():
    samples = np.zeros(44_431, np.float32)
    for at in (0, 11_025, 22_050, 33_075):
        samples[at : at + 600] = np.exp(-np.arange(600) / 120) * (-1) ** np.arange(600) / 2
    looped = Looped(Recording(samples))
    for fps in (24, 25, 10):
        frames = np.flatnonzero(looped.feature("audio.beat", (), np.arange(fps * 10 + 1) / fps))
        nearest = np.floor(looped.beats * fps + 0.5)
        np.testing.assert_array_equal(frames, nearest[nearest < fps * 10])


def test_a_shot_hears_its_loop(bar):
    shot = {"guidance": "1 + 4 * audio.rms", "audio": bar, "frames": 49, "seed": 1, "fps": 8}
    short, looped = (
        make_job(Shot(**shot, sound={"loop": loop})).plans[0].sampling.guidance for loop in (False, True)
    )
    assert looped[:4] == pytest.approx(short[:4])
    assert max(short[6:]) == pytest.approx(1)
    assert max(looped[6:]) > 1.2
