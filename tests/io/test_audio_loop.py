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


def test_a_shot_hears_its_loop(bar):
    shot = {"guidance": "1 + 4 * audio.rms", "audio": bar, "frames": 49, "seed": 1, "fps": 8}
    short, looped = (
        make_job(Shot(**shot, sound={"loop": loop})).plans[0].sampling.guidance for loop in (False, True)
    )
    assert looped[:4] == pytest.approx(short[:4])
    assert max(short[6:]) == pytest.approx(1)
    assert max(looped[6:]) > 1.2
