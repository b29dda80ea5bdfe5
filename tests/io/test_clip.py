import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from patch_clips import patches, position

from kinema.core.contracts import Record
from kinema.core.errors import ConfigError, MediaError
from kinema.io import ffmpeg
from kinema.io.audio import listen
from kinema.io.clip import Clip
from kinema.io.mux import AudioPart
from kinema.io.record import read_record
from kinema.io.video_read import open_video

RECORD = Record({"prompt": "patches"})
BEAT = AudioPart(
    path=str(Path(__file__).parents[2] / "samples/inputs/beat.flac"), at=Fraction(0), seconds=Fraction(1)
)


def test_an_array_knows_its_count_and_size_and_is_saved_with_its_record(tmp_path):
    clip = Clip(np.stack(list(patches(5))), 23.976, RECORD)
    assert (len(clip), clip.size, clip.fps) == (5, (192, 64), Fraction(24000, 1001))
    path = clip.save(tmp_path / "a.mp4")
    assert read_record(path) == RECORD
    assert open_video(path).fps == Fraction(24000, 1001)
    clip.save(path, overwrite=True, quality="small")


def test_a_stream_is_drawn_once_and_array_keeps_it(tmp_path):
    clip = Clip(patches(4), 24, count=4, size=(192, 64))
    clip.save(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="drawn already"):
        clip.save(tmp_path / "b.mp4")
    kept = Clip(patches(4), 24, count=4, size=(192, 64))
    assert kept.array() is kept.array()
    assert [position(frame) for frame in kept] == [0, 1, 2, 3]
    kept.save(tmp_path / "b.mp4")
    assert open_video(tmp_path / "b.mp4").frames == 4


def test_saving_a_stream_under_a_refused_name_does_not_use_it_up(tmp_path):
    clip = Clip(patches(4), 24)
    with pytest.raises(MediaError, match="suffix"):
        clip.save(tmp_path / "a.xyz")
    assert len(clip.array()) == 4


def test_a_clip_opens_from_disk_with_its_record_and_can_be_saved_anew(tmp_path):
    Clip(patches(4), 24, RECORD).save(tmp_path / "a.mkv")
    clip = Clip.open(tmp_path / "a.mkv")
    assert (len(clip), clip.fps, clip.size, clip.record) == (4, 24, (192, 64), RECORD)
    assert np.array_equal(Clip.open(clip.save(tmp_path / "b.mkv")).array(), np.stack(list(patches(4))))


def test_a_clip_from_disk_keeps_its_sound(tmp_path):
    loud = Clip(patches(12), 12, audio=[BEAT]).save(tmp_path / "loud.mp4")
    for again in (tmp_path / "b.mp4", tmp_path / "b.mkv"):  # one is read by decord, the other by ffmpeg
        Clip.open(loud).save(again)
        assert listen(again).seconds == pytest.approx(1, abs=0.05)
        (heard,) = Clip.open(again).audio
        assert (heard.path, heard.at, heard.seconds) == (str(again), 0, 1)
    notes: list[str] = []
    Clip.open(again).save(tmp_path / "b.gif", on_note=notes.append)
    assert ["no sound" in note for note in notes] == [True]
    Clip.open(loud).save(loud, overwrite=True)
    assert len(Clip.open(loud).audio) == 1


def test_a_silent_clip_is_not_searched_for_sound(tmp_path, monkeypatch):
    monkeypatch.setattr("kinema.io.mux.open_audio", None)
    assert Clip.open(Clip(patches(4), 24).save(tmp_path / "a.mp4")).audio == ()
    assert Clip.open(Clip(patches(4), 24).save(tmp_path / "a.webp")).audio == ()


def test_sound_that_cannot_be_decoded_leaves_a_clip_silent_and_says_so(tmp_path):
    loud = Clip(patches(12), 12, audio=[BEAT]).save(tmp_path / "loud.mkv")
    data = loud.read_bytes()
    loud.write_bytes(data.replace(b"A_FLAC", b"A_FLOC"))
    clip, notes = Clip.open(loud), []
    assert clip.audio == ()
    clip.save(tmp_path / "b.mkv", on_note=notes.append)
    (note,) = notes
    assert note.startswith("the sound is left out: cannot read ")
    assert "loud.mkv" in note


def tool(*arguments):
    ffmpeg.run([*map(str, arguments)]).check("cannot make the clip")


def shifted(path, *, pictures=0.0, sound=0.0, beep=0.0):
    """3 s of pictures and of sound that begin so late, the sound with 0.1 s of 1 kHz `beep` seconds on."""
    tone = f"aevalsrc='if(between(t,{beep},{beep + 0.1}),sin(2*PI*1000*t),0)':s=48000:d=3"
    tool("-itsoffset", pictures, "-f", "lavfi", "-i", "testsrc=s=64x48:r=10:d=3", "-itsoffset", sound, "-f",
         "lavfi", "-i", tone, "-c:v", "libx264", "-c:a", "aac", path)  # fmt: skip
    return path


def beep_of(path):
    """When a player begins to sound, in seconds from the first picture on."""
    whole = ["-map", "0:a:0", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", "48000"]
    run = ffmpeg.run(["-i", ffmpeg.url(path), *whole, "-f", "f32le", "pipe:1"])
    return np.flatnonzero(np.abs(np.frombuffer(run.check("read").output, np.float32)) > 0.1)[0] / 48000


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("late", "expected"),
    [({"sound": 1.0}, 1.0), ({"sound": 0.2}, 0.2), ({"pictures": 0.8, "beep": 1.8}, 1.0)],
    ids=["sound a second later", "sound a little later", "pictures later"],
)
def test_sound_stays_with_its_pictures(tmp_path, suffix, late, expected):
    source = shifted(tmp_path / f"in{suffix}", **late)
    clip = Clip.open(source)
    assert len(clip) == 30
    assert beep_of(clip.save(tmp_path / "out.mkv")) == pytest.approx(expected, abs=0.005)


def test_sound_that_begins_late_is_a_sound_file_too(tmp_path):
    source = shifted(tmp_path / "in.mp4", sound=1.0, beep=0.5)
    part = AudioPart(path=str(source), at=Fraction(0), seconds=Fraction(1))
    assert beep_of(Clip(patches(12), 12, audio=[part]).save(tmp_path / "a.mkv")) == pytest.approx(
        0.52, abs=0.03
    )
    assert listen(source).seconds == pytest.approx(3, abs=0.05)


def test_a_sequence_opens_under_its_numbered_name(tmp_path):
    Clip(patches(4), 8, RECORD).save(tmp_path / "a-%02d.png")
    Clip(patches(2), 8).save(tmp_path / "b-%02d.png")
    clip = Clip.open(tmp_path / "a-%02d.png", still_fps="30000/1001")
    assert (len(clip), clip.fps, clip.size, clip.record) == (4, Fraction(30000, 1001), (192, 64), RECORD)
    assert np.array_equal(clip.array(), np.stack(list(patches(4))))
    assert Clip.open(tmp_path / "b-01.png").fps == 24
    for missing in ("c-%02d.png", "none/%02d.png"):
        with pytest.raises(MediaError, match="No such file"):
            Clip.open(tmp_path / missing)


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_what_is_no_clip_is_refused(frames):
    with pytest.raises(MediaError, match="a clip is"):
        Clip(frames, 24)


def test_rates_and_lengths_that_are_not_known_are_said_so():
    with pytest.raises(ConfigError):
        Clip(patches(1), 0)
    with pytest.raises(TypeError, match="not known"):
        len(Clip(patches(1), 24))
    with pytest.raises(MediaError, match="no frames"):
        Clip(iter([]), 24).array()


def test_importing_io_loads_no_heavy_library():
    modules = "clip, ffmpeg, image, picture_read, reader, record, video_read, video_write"
    check = f"import sys; from kinema.io import {modules}; " + (
        "print({'torch', 'decord', 'imageio', 'imageio_ffmpeg', 'av', 'diffusers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_what_is_printed_is_a_line_and_not_the_frames():
    clip = Clip(np.zeros((5, 48, 64, 3), np.uint8), 23.976)
    assert repr(clip) == "Clip(5 frames of 64x48 at 24000/1001 fps)"
    assert repr(Clip(iter(()), 8)) == "Clip(frames that are not counted yet at 8 fps)"
