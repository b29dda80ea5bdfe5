"""Which part of a sound file plays when: one file under all shots, changes between shots, the clip's end."""

from __future__ import annotations

import wave
from fractions import Fraction

import pytest

from kinema.core.errors import ConfigError, MediaError
from kinema.pipelines.job import make_job
from kinema.pipelines.run import stream
from kinema.pipelines.soundtrack import CLICK, Place, soundtrack
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

FPS = Fraction(8)
PLACES = [Place(0, 16, 0), Place(12, 28, 4), Place(28, 44, 0)]


def parts(*shots: dict):
    return soundtrack([Shot(**shot) for shot in shots], PLACES, FPS)


def test_one_file_under_all_shots_is_one_part():
    song = {"audio": "a.wav", "sound": {"start": 3, "fade_in": 1, "fade_out": 2}}
    (part,) = parts(song, song, song)
    assert (part.at, part.seconds, part.start) == (0, Fraction(11, 2), 3)
    assert (part.fade_in, part.fade_out) == (1, 2)


def test_a_file_plays_on_where_another_shot_is_louder():
    loud, soft = {"audio": "a.wav"}, {"audio": "a.wav", "sound": {"volume": 0.5}}
    first, second, third = parts(loud, soft, loud)
    assert [p.start for p in (first, second, third)] == [0, 1.5, 3.5]
    assert [p.at for p in (first, second, third)] == [0, Fraction(3, 2), Fraction(7, 2)]
    assert first.seconds == 2
    assert first.fade_out == second.fade_in == 0.5  # the four frames that both show
    assert second.fade_out == third.fade_in == CLICK
    assert (first.fade_in, third.fade_out) == (0, 0)


def test_another_file_begins_with_its_shot():
    first, second = parts({"audio": "a.wav"}, {"audio": "b.wav"}, {"audio": "b.wav"})
    assert (first.path, second.path) == ("a.wav", "b.wav")
    assert (second.start, second.at, second.seconds) == (0, Fraction(3, 2), 4)


def test_a_shot_without_audio_is_silent_and_the_file_plays_on_behind_it():
    first, last = parts({"audio": "a.wav"}, {}, {"audio": "a.wav"})
    assert (first.seconds, last.start) == (2, 3.5)
    assert parts({}, {}, {}) == ()


@pytest.mark.parametrize("silent", [{}, {"audio": "b.wav", "sound": {"volume": 0}}])
def test_a_sound_comes_out_of_silence_and_goes_into_it_as_it_says(silent):
    slow = {"audio": "a.wav", "sound": {"fade_in": 1, "fade_out": 0.75}}
    (alone,) = parts(silent, slow, silent)
    assert (alone.at, alone.fade_in, alone.fade_out) == (Fraction(3, 2), 1, 0.75)
    (plain,) = parts(silent, {"audio": "a.wav"}, silent)
    assert (plain.fade_in, plain.fade_out) == (0.5, CLICK)  # the four frames that both show, and a cut
    (short,) = parts(silent, {"audio": "a.wav", "sound": {"fade_in": 9, "fade_out": 9}}, silent)
    assert short.fade_in == short.fade_out == short.seconds == 2


def test_a_sound_beside_another_crosses_and_does_not_fade():
    slow = {"audio": "a.wav", "sound": {"fade_in": 1, "fade_out": 1}}
    _, between, _ = parts({"audio": "b.wav"}, slow, {"audio": "b.wav"})
    assert (between.fade_in, between.fade_out) == (0.5, CLICK)
    _, last = parts({"audio": "b.wav"}, slow, {})
    assert (last.fade_in, last.fade_out) == (0.5, 1)


def test_sound_needs_audio():
    with pytest.raises(ConfigError, match="add audio: FILE"):
        Shot(sound={"loop": True})


def test_a_storyboard_carries_its_sound_to_the_clip(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(b"\1\0" * 8000)
    board = Storyboard(
        audio=str(tmp_path / "a.wav"),
        frames=9,
        shots=["a fox", {"prompt": "a wolf", "transition": "dissolve 3"}],
    )
    job = make_job(board)
    (part,) = job.audio
    assert part.seconds == Fraction(15, 8)
    assert stream(job).audio == job.audio
    with pytest.raises(MediaError, match="No such file"):
        make_job(board.with_(shots=[shot.with_(audio=str(tmp_path / "b.wav")) for shot in board.shots]))
