"""Sounds with a known answer: a tone is in its band, clicks have their tempo, silence has nothing."""

import wave

import numpy as np
import pytest

from kinema import Schedule, Shot
from kinema.core.errors import ConfigError, MediaError
from kinema.io.audio import Recording, listen
from kinema.io.audio_features import HOP, RATE, energies

FPS = 24


def tone(hertz, seconds=2.0, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def clicks(per_minute, seconds=8.0, first=0.0):
    samples = np.zeros(int(seconds * RATE), np.float32)
    ping = np.exp(-np.arange(1500) / 200) * tone(1000, 1500 / RATE, 0.8)
    for at in np.arange(first, seconds - 0.1, 60 / per_minute):
        start = round(at * RATE)
        samples[start : start + 1500] += ping[: len(samples) - start].astype(np.float32)
    return samples


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def edges(seconds, fps=FPS):
    return np.arange(round(seconds * fps) + 1) / fps


def test_the_bands_add_up_to_the_whole():
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    parts = energies(noise, 0, 300) + energies(noise, 300, 4000) + energies(noise, 4000)
    np.testing.assert_allclose(parts, energies(noise), rtol=1e-9)
    inside = energies(noise)[4:-4]
    np.testing.assert_allclose(np.mean(inside), np.mean(noise**2), rtol=0.1)


@pytest.mark.parametrize(
    ("band", "share"), [((400, 500), 1.0), ((60, 200), 0.0), ((1000, 5000), 0.0), ((0, 11025), 1.0)]
)
def test_a_tone_is_in_its_band_only(band, share):
    values = Recording(tone(440)).feature("audio.band", band, edges(2))
    np.testing.assert_allclose(values[2:-2], share, atol=0.01)


@pytest.mark.parametrize("band", [(12_000, 16_000), (55, 60), (0.5, 10)])
def test_a_band_without_a_frequency_that_is_heard_is_refused(band):
    recording = Recording(tone(440))
    with pytest.raises(ConfigError, match=r"column 5: nothing is heard from .* up to 11025; write a wider"):
        Schedule(f"1 + audio.level({band[0]}, {band[1]})").values(4, audio=recording)
    assert Schedule("audio.band(55, 65)").values(4, audio=recording).max() < 0.1  # which is only quiet


def test_loudness_follows_the_sound():
    recording = Recording(np.concatenate([tone(440, 1, 0.2), tone(440, 1, 0.8)]))
    values = recording.feature("audio.rms", (), edges(3))
    np.testing.assert_allclose(values[3:21], 0.25, atol=0.01)
    np.testing.assert_allclose(values[27:45], 1.0, atol=0.01)
    assert (values[50:] == 0).all()  # past its end
    level = recording.feature("audio.level", (400, 500), edges(3))
    np.testing.assert_allclose(level, values, atol=0.01)
    assert (recording.feature("audio.level", (5000, 9000), edges(3))[3:21] < 1e-4).all()


def test_frames_of_any_length_have_the_mean_energy():
    recording = Recording(tone(440, 2))
    for fps in (5, 24, 60, 200):
        values = recording.feature("audio.rms", (), edges(2, fps))
        np.testing.assert_allclose(values[fps // 5 + 1 : -fps // 5 - 1], 1.0, atol=0.01)
    fine = recording.feature("audio.rms", (), edges(2, 1000)) ** 2
    coarse = recording.feature("audio.rms", (), edges(2, 10)) ** 2
    np.testing.assert_allclose(fine.reshape(20, 100).mean(axis=1), coarse, rtol=1e-6)


@pytest.mark.parametrize(("per_minute", "first"), [(120, 0.0), (120, 0.25), (90, 0.1), (150, 0.0), (75, 0.3)])
def test_clicks_have_their_tempo_and_beats(per_minute, first):
    recording = Recording(clicks(per_minute, first=first))
    expected = np.arange(first, 7.9, 60 / per_minute)
    assert recording.tempo == pytest.approx(per_minute, abs=0.2)
    assert len(recording.beats) == len(expected)
    np.testing.assert_allclose(recording.beats, expected, atol=0.01)
    beat = recording.feature("audio.beat", (), edges(8))
    np.testing.assert_array_equal(np.flatnonzero(beat), np.round(expected * FPS))
    onset = recording.feature("audio.onset", (), edges(8))
    assert (onset[np.round(expected * FPS).astype(int)] > 0.55).all()
    assert np.sort(onset)[-2 * len(expected) - 1] < 0.2


@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), tone(440), np.zeros(1, np.float32)])
def test_what_has_no_beat(samples):
    recording = Recording(samples)
    assert recording.tempo == 0
    assert len(recording.beats) == 0
    for name in ("audio.rms", "audio.beat", "audio.onset", "audio.tempo"):
        values = recording.feature(name, (), edges(1))
        assert np.isfinite(values).all()
    assert (Recording(np.zeros(RATE, np.float32)).feature("audio.rms", (), edges(1)) == 0).all()


def test_a_file_is_known_by_its_content(tmp_path):
    first = write_wav(tmp_path / "a.wav", clicks(120))
    other = write_wav(tmp_path / "b.wav", clicks(120))
    changed = write_wav(tmp_path / "c.wav", clicks(90))
    assert listen(first) is listen(other)
    assert listen(changed) is not listen(first)
    assert listen(first).seconds == pytest.approx(8.0, abs=HOP / RATE)
    np.testing.assert_allclose(listen(first).samples, clicks(120), atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"#EXTM3U\nhttp://x/y.mp3\n", b"RIFF\0\0\0\0WAVEfmt "])
def test_what_is_no_sound(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(MediaError):
        listen(path)


def test_schedules_hear(tmp_path):
    recording = listen(write_wav(tmp_path / "a.wav", clicks(120, first=0.25)))
    beats = Schedule("audio.beat").values(60, FPS, audio=recording)
    np.testing.assert_array_equal(np.flatnonzero(beats), [6, 18, 30, 42, 54])
    np.testing.assert_allclose(
        Schedule("beat").values(60, FPS, audio=recording), (np.arange(60) - 6) / 12, atol=0.15
    )
    ramp = Schedule({0: 0, "2b": 1}).values(60, FPS, audio=recording)
    assert ramp[30] == 1
    assert ramp[29] < 1
    assert Schedule("bpm").values(2, FPS, bpm=90, audio=recording).tolist() == [90, 90]
    assert Schedule("beat").values(49, FPS, bpm=90)[48] == pytest.approx(3)
    loud = Schedule("2 * audio.band(900, 1100) + 0*audio.tempo").values(20, FPS, audio=recording)
    assert loud[6] > 0.5
    with pytest.raises(ConfigError, match=r"column 5: audio\.rms needs a sound"):
        Schedule("1 + audio.rms").values(4)


def test_a_key_far_past_the_end_costs_nothing():
    assert max(map(len, recording_edges(Schedule("0:(audio.rms), 90000:(audio.rms)")))) < 100
    recording = Recording(tone(440, 2))
    values = Schedule("0:(audio.rms), 900000000:(audio.rms)").values(24, FPS, audio=recording)
    np.testing.assert_allclose(values, Schedule("audio.rms").values(24, FPS, audio=recording), atol=1e-6)


def recording_edges(schedule):
    """The borders of the frames that a schedule listens to."""

    class Ear:
        tempo, beats, asked = 0.0, np.zeros(0), []

        def feature(self, name, arguments, edges_F):
            self.asked.append(edges_F)
            return np.zeros(len(edges_F) - 1)

    ear = Ear()
    schedule.values(24, FPS, audio=ear)
    return ear.asked


def test_a_shot_may_name_a_sound():
    shot = Shot(audio="a.wav", bpm=99, guidance="4 + audio.rms")
    assert Shot.from_mapping(shot.to_mapping()) == shot
