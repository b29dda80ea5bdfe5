"""Sound under pictures: where a click in a file is heard, what is cut, repeated and left silent."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kinema.core.contracts import Record
from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.audio_source import open_audio
from kinema.io.mux import RATE, AudioPart, samples
from kinema.io.record import read_record
from kinema.io.video_read import open_video
from kinema.io.video_write import write_video

SECONDS = 1.0
CLICKS = (0.25, 0.75)


def sound_file(path: Path, *clicks: float, seconds: float = SECONDS, rate: int = RATE) -> str:
    """A quiet WAV with 10 ms bursts of 1 kHz."""
    t = np.arange(round(seconds * rate)) / rate
    level = np.zeros_like(t)
    for click in clicks:
        inside = (t >= click) & (t < click + 0.01)
        level[inside] = np.sin(2 * np.pi * 1000 * (t[inside] - click))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((level * 20_000).astype("<i2").tobytes())
    return str(path)


def frames(count: int) -> list[np.ndarray]:
    return [np.full((32, 32, 3), 7 * i, np.uint8) for i in range(count)]


def heard(path: Path) -> np.ndarray:
    """The left channel of a file, as a player decodes it."""
    run = ffmpeg.run(["-i", ffmpeg.url(path), "-map", "0:a:0", "-ar", str(RATE), "-f", "f32le", "pipe:1"])
    return np.frombuffer(run.check("read").output, np.float32).reshape(-1, 2)[:, 0]


def bursts(sound: np.ndarray) -> list[float]:
    """Seconds at which something begins after 50 ms of silence."""
    loud = np.flatnonzero(np.abs(sound) > 0.1)
    begins = loud[np.diff(loud, prepend=-RATE) > 0.05 * RATE]
    return [round(begin / RATE, 3) for begin in begins]


def clip(path: Path, parts: list[AudioPart], *, count: int = 16, fps: int = 8, **options) -> np.ndarray:
    write_video(path, frames(count), fps=fps, audio=parts, **options)
    return heard(path)


def part(path: str, **fields) -> AudioPart:
    return AudioPart(**{"path": path, "at": Fraction(0), "seconds": Fraction(2), **fields})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.25, 0.75]),  # silence follows a short file
        ({"loop": True}, [0.25, 0.75, 1.25, 1.75]),
        ({"start": 0.5}, [0.25]),
        ({"start": 0.5, "loop": True}, [0.25, 0.75, 1.25, 1.75]),
        ({"start": -0.5}, [0.75, 1.25]),
        ({"at": Fraction(1), "seconds": Fraction(1, 2)}, [1.25]),
        ({"at": Fraction(1, 2), "seconds": Fraction(1), "loop": True, "start": 10}, [0.75, 1.25]),
        ({"volume": 0.0001}, []),
    ],
)
def test_a_click_is_heard_where_its_part_puts_it(tmp_path, fields, expected):
    path = sound_file(tmp_path / "s.wav", *CLICKS)
    sound = clip(tmp_path / "c.mkv", [part(path, **fields)])
    assert len(sound) == 2 * RATE  # 16 frames at 8 fps, to the sample
    assert bursts(sound) == pytest.approx(expected, abs=0.0005)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "aac"), (".webm", "opus"), (".mov", "aac"), (".mkv", "flac")]
)
def test_each_format_has_its_codec_and_keeps_picture_and_record(tmp_path, suffix, codec):
    path = sound_file(tmp_path / "s.wav", *CLICKS)
    record = Record({"prompt": "a fox", "seed": 3})
    with_sound, silent = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    sound = clip(with_sound, [part(path)], record=record)
    write_video(silent, frames(16), fps=8, record=record)
    assert bursts(sound) == pytest.approx(CLICKS, abs=0.003)
    log = ffmpeg.run(["-i", ffmpeg.url(with_sound)], loglevel="info").log
    assert f"Audio: {codec}" in log
    assert read_record(with_sound) == record
    for one, other in zip(open_video(with_sound), open_video(silent), strict=True):
        assert np.array_equal(one, other)


def test_the_same_clip_is_the_same_file(tmp_path):
    path = sound_file(tmp_path / "s.wav", 0.1)
    for name in ("a.mp4", "b.mp4"):
        clip(tmp_path / name, [part(path, loop=True)])
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_sound_is_as_long_as_pictures_at_television_rates(tmp_path):
    path = sound_file(tmp_path / "s.wav", 0.1)
    write_video(tmp_path / "a.mkv", frames(31), fps="30000/1001", audio=[part(path, seconds=Fraction(9))])
    assert len(heard(tmp_path / "a.mkv")) == samples(Fraction(31 * 1001, 30000))


def test_parts_are_added_and_fade_at_their_ends(tmp_path):
    tone = sound_file(tmp_path / "t.wav", *np.arange(0, 1, 0.01))
    quarter = Fraction(1, 4)
    one = part(tone, seconds=4 * quarter, fade_out=0.5)
    two = part(tone, at=2 * quarter, seconds=2 * quarter, fade_in=0.5, start=0.5)
    sound = clip(tmp_path / "c.mkv", [one, two], count=8)
    alone = clip(tmp_path / "d.mkv", [part(tone, seconds=4 * quarter)], count=8)
    assert np.abs(sound - alone).max() < 2e-4  # the same sound crosses into itself
    (faded,) = [clip(tmp_path / "e.mkv", [one], count=8)]

    def peak(at):
        return np.abs(faded[int(at * RATE) : int((at + 0.02) * RATE)]).max() / np.abs(alone).max()

    assert peak(0.4) == pytest.approx(1, abs=0.01)
    assert peak(0.74) == pytest.approx(0.5, abs=0.03)
    assert peak(0.97) < 0.06


def test_other_rates_are_resampled_in_time(tmp_path):
    path = sound_file(tmp_path / "s.wav", *CLICKS, rate=22_050)
    assert bursts(clip(tmp_path / "c.mkv", [part(path)])) == pytest.approx(CLICKS, abs=0.001)


def test_formats_without_sound_say_so(tmp_path):
    path, notes = sound_file(tmp_path / "s.wav", 0.1), []
    write_video(tmp_path / "a.gif", frames(3), fps=8, audio=[part(path)], on_note=notes.append)
    assert notes == ["a.gif: this format has no sound; .mp4, .mov, .webm and .mkv have."]


@pytest.mark.parametrize("record", [None, Record({"prompt": "a fox"})], ids=["plain", "recorded"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
def test_chapters_and_tags_of_a_sound_file_stay_there(tmp_path, suffix, record):
    path = sound_file(tmp_path / "s.wav", *CLICKS)
    (tmp_path / "tags.txt").write_text(
        ";FFMETADATA1\ntitle=Secret book\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=900\ntitle=Secret part\n"
    )
    tagged = ["-i", path, "-i", ffmpeg.url(tmp_path / "tags.txt"), "-map_metadata", "1", "-map_chapters", "1"]
    book = tmp_path / "book.m4a"
    ffmpeg.run([*tagged, "-map", "0", ffmpeg.url(book)]).check("write")
    assert "Secret part" in ffmpeg.run(["-i", ffmpeg.url(book)], loglevel="info").log
    clip(tmp_path / f"a{suffix}", [part(str(book))], record=record)
    log = ffmpeg.run(["-i", ffmpeg.url(tmp_path / f"a{suffix}")], loglevel="info").log
    assert "Audio:" in log
    assert "Secret" not in log
    assert "Chapter" not in log


def test_what_is_no_sound_is_refused(tmp_path):
    (tmp_path / "list.mp3").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    write_video(tmp_path / "silent.mp4", frames(3), fps=8)
    path = sound_file(tmp_path / "s.wav", 0.1)
    (tmp_path / "cut.wav").write_bytes(Path(path).read_bytes()[:44])
    for name, reason in [
        ("list.mp3", "is no sound by its content"),
        ("silent.mp4", "has no sound"),
        ("cut.wav", "no sound can be decoded"),
        ("none.wav", "No such file"),
    ]:
        with pytest.raises(MediaError, match=reason):
            open_audio(tmp_path / name)
    assert open_audio(path).seconds == pytest.approx(SECONDS)


def test_a_clip_is_a_sound_file_too(tmp_path):
    path = sound_file(tmp_path / "s.wav", *CLICKS)
    clip(tmp_path / "c.mp4", [part(path)])
    assert bursts(clip(tmp_path / "d.mkv", [part(str(tmp_path / "c.mp4"))])) == pytest.approx(
        CLICKS, abs=0.002
    )
