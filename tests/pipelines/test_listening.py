"""A shot's sound reaches every track of it, at the right second of a storyboard."""

import re
import wave
from fractions import Fraction

import numpy as np
import pytest

from kinema import Shot, Storyboard
from kinema.io.audio import listen
from kinema.pipelines import listening
from kinema.pipelines.job import make_job
from kinema.pipelines.listening import settle

RATE = 22_050


@pytest.fixture
def song(tmp_path):
    """Eight seconds: a hiss that begins at every second, on the beat of 60 a minute."""
    samples = np.zeros(8 * RATE)
    noise = np.random.default_rng(0).normal(0, 0.2, 4000) * np.linspace(1, 0, 4000)
    for second in range(8):
        samples[second * RATE : second * RATE + 4000] = noise
    path = tmp_path / "song.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 20000).clip(-32768, 32767).astype("<i2").tobytes())
    return str(path)


def settled(begin=0.0, **fields):
    return settle(Shot(**fields), 17, Fraction(8), 1, begin)


def test_every_track_hears(song):
    shot, notes = settled(
        audio=song,
        prompt={0: "a", "1b": "b"},
        guidance="1 + audio.beat",
        keyframes=["a.png@2b"],
        camera={"zoom": "1 + audio.beat"},
        redraw={"strength": "0.5 * audio.beat"},
        mode="frame_by_frame",
    )
    beats = np.zeros(17)
    beats[[0, 8, 16]] = 1
    np.testing.assert_array_equal(shot.guidance.sample(17, 8), 1 + beats)
    np.testing.assert_array_equal(shot.camera.sample(17, 8)["zoom"], 1 + beats)
    np.testing.assert_array_equal(shot.redraw.strength.sample(17, 8), beats / 2)
    assert shot.prompt.frames_of_keys(17, 8) == (0, 8)
    assert shot.keyframes[0].frame.resolve(17, 8) == 16
    tempi = [float(m[1]) for note in notes if (m := re.search(r"([\d.]+) beats per minute", note))]
    assert tempi == [pytest.approx(60, abs=0.1)]


def test_what_was_written_stays_written(song):
    shot = Shot(audio=song, guidance={0: 1, "1b": "1 + audio.rms"}, keyframes=["a.png@1b"])
    heard, _ = settle(shot, 17, Fraction(8), 1)
    assert heard.to_mapping() == shot.to_mapping()
    assert heard.model_fields_set == shot.model_fields_set


def test_a_tempo_of_ones_own_comes_first(song):
    shot, _ = settled(audio=song, bpm=120, guidance="beat")
    np.testing.assert_allclose(shot.guidance.sample(17, 8), np.arange(17) / 4)


def test_the_sound_may_start_elsewhere(song):
    shot, notes = settled(begin=0.5, audio=song, guidance="audio.beat")
    np.testing.assert_array_equal(np.flatnonzero(shot.guidance.sample(17, 8)), [4, 12])
    assert notes != settled(begin=1.5, audio=song, guidance="audio.beat")[1]  # another plan, another digest
    shot, _ = settled(audio=song, sound={"start": 0.25}, guidance="audio.beat")
    np.testing.assert_array_equal(np.flatnonzero(shot.guidance.sample(17, 8)), [6, 14])


def test_functions_become_numbers_that_a_record_can_hold():
    shot, _ = settled(guidance=lambda frame: frame / 2)
    assert Shot.from_mapping(shot.to_mapping()) == shot
    np.testing.assert_array_equal(shot.guidance.sample(17, 8), np.arange(17) / 2)


def test_warnings_name_their_track():
    _, notes = settled(guidance="0:(1), 40:(2)", camera={"zoom": "1 + 0.1 * sin(beat)"})
    assert any(note.startswith("guidance: key 40 is past the last frame") for note in notes)
    assert any(note.startswith("camera.zoom: no bpm and no audio: 120 beats") for note in notes)


def test_an_assumed_tempo_is_said_wherever_beats_are_counted(song):
    counted = {
        "prompt": {0: "a", "1b..2b": "b"}, "negative": {"0.5b": "c"}, "keyframes": ["a.png@0s", "b.png@2b"],
        "mode": "frame_by_frame", "redraw": {"solver": {0: "euler", "2b": "heun"}},
    }  # fmt: skip
    said = "no bpm and no audio: 120 beats a minute are assumed; write bpm:."
    _, notes = settled(**counted)
    names = [note.removesuffix(f": {said}") for note in notes if note.endswith(said)]
    assert sorted(names) == ["keyframes[1].frame", "negative", "prompt", "redraw.solver"]
    for known in ({"bpm": 90}, {"audio": song}):
        assert not [note for note in settled(**counted, **known)[1] if note.endswith(said)]
    assert settled(prompt={0: "a", "1s": "b"})[1] == ()


def test_schedules_inside_lists_and_mixes_are_warned_of():
    _, notes = settled(
        loras=[{"path": "a.safetensors"}, {"path": "b.safetensors", "scale": "0:(1), 40:(2)"}],
        prompt={"mix": {"a fox": 1, "a wolf": "beat"}},
    )
    assert any(note.startswith("loras[1].scale: key 40 is past the last frame") for note in notes)
    assert any(note.startswith("prompt.mix, weight of 'a wolf': no bpm and no audio") for note in notes)


def test_a_song_goes_on_from_shot_to_shot(song):
    board = Storyboard.from_mapping(
        {
            "audio": song, "fps": 8, "size": "64x64", "seed": 1, "guidance": "1 + audio.beat",
            "shots": [{"prompt": "a", "frames": 5}, {"prompt": "b", "frames": 17}],
        }
    )  # fmt: skip
    first, second = make_job(board).plans
    assert first.sampling.guidance == (2, 1)
    assert second.sampling.guidance == (1, 1.25, 1, 1.25, 1)  # frames 5..21; beats at 8 and 16 of the clip


def test_a_song_is_read_once_for_all_its_shots(song, monkeypatch):
    read = []
    monkeypatch.setattr(listening, "listen", lambda path: read.append(path) or listen(path))
    shots = [{"prompt": "a", "frames": 5}] * 4
    board = {"audio": song, "fps": 8, "size": "64x64", "seed": 1, "guidance": "1 + audio.beat"}
    request = Storyboard.from_mapping({**board, "shots": shots})
    assert len(make_job(request).plans) == 4
    assert read == [song]
    make_job(request)  # which may find another file there
    assert read == [song] * 2


def test_every_shot_counts_its_beats_from_its_own_first(song):
    shot = {"prompt": {0: "a fox", "1b": "a wolf"}, "frames": 17}
    board = Storyboard.from_mapping({"audio": song, "fps": 8, "size": "64x64", "shots": [shot] * 2})
    assert len(make_job(board).plans) == 2
    second, _ = settled(begin=17 / 8, audio=song, prompt={0: "a", "1b": "b"})
    assert second.prompt.frames_of_keys(17, 8) == (0, 15)  # its first beat is on its frame 7
    later, _ = settled(audio=song, sound={"start": 2.25}, guidance="beat", prompt={0: "a", "1b": "b"})
    assert later.prompt.frames_of_keys(17, 8) == (0, 14)
    np.testing.assert_allclose(later.guidance.sample(17, 8)[[6, 14]], [0, 1], atol=0.01)


def test_beats_go_on_after_the_last_of_the_sound(song):
    shot, _ = settled(audio=song, sound={"start": 9.5}, guidance="beat", prompt={0: "a", "1b": "b"})
    assert shot.prompt.frames_of_keys(17, 8) == (0, 12)
    np.testing.assert_allclose(shot.guidance.sample(17, 8)[[4, 12]], [0, 1], atol=0.01)
