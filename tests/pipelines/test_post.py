"""The file's rate: planned, counted, drawn and remembered; for shots, loops, storyboards, clips on disk."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import kinema
from kinema.cli import run
from kinema.core.contracts import Record
from kinema.core.errors import ConfigError, MediaError
from kinema.io.audio import listen
from kinema.io.clip import Clip
from kinema.io.minterpolate import minterpolated
from kinema.io.mux import AudioPart
from kinema.io.record import read_record
from kinema.pipelines.job import make_job
from kinema.pipelines.model import Model
from kinema.pipelines.post import interpolate_clip
from kinema.pipelines.source import read_request
from kinema.story.post import Interpolate
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard
from moving_scenes import clip, psnr, scene


@pytest.fixture(scope="module")
def model(small) -> Model:
    return kinema.load(str(small), device="cpu")


def test_a_rate_is_read_from_a_number_and_from_text():
    assert Shot(interpolate=24).interpolate == Interpolate(fps=24)
    assert Shot(interpolate="30000/1001:blend").interpolate.method == "blend"
    assert Shot(interpolate={"fps": 60}).interpolate.method == "flow"
    with pytest.raises(ConfigError, match=r"method 'floww'\. Did you mean 'flow'"):
        Shot(interpolate="24:floww")
    with pytest.raises(ConfigError):
        Shot(interpolate="fast")


def test_a_shots_file_has_the_new_rate_and_the_shots_own_frames(model):
    plain = kinema.generate("a rooster", model=model, seed=1, frames=9, fps=8)
    made = kinema.generate("a rooster", model=model, seed=1, frames=9, fps=8, interpolate="24:blend")
    assert (made.fps, len(made)) == (24, 25)
    assert np.array_equal(made.array()[::3], plain.array())
    assert made.record.shot["interpolate"] == {"fps": 24, "method": "blend"}
    assert made.record.shot["fps"] == 8


def test_a_loop_stays_one_at_the_new_rate(model):
    fields = {"model": model, "seed": 1, "frames": 8, "loop": True, "fps": 8}
    plain = kinema.generate("a rooster", **fields).array()
    made = kinema.generate("a rooster", **fields, interpolate="16:blend").array()
    assert len(made) == 16
    mean = (plain[-1].astype(int) + plain[0]) / 2
    assert np.abs(made[-1] - mean).max() <= 0.5 or np.array_equal(made[-1], plain[0])


def test_the_job_counts_the_files_frames_and_a_storyboard_has_one_rate(model):
    shots = [Shot(model=model.card.id, frames=9, fps=8, interpolate=20) for _ in range(2)]
    job = make_job(Storyboard.make(shots=shots))
    assert (job.fps, job.composed, job.length) == ("20", 18, 43)  # 17 * 20 / 8, and the first
    mixed = Storyboard.make(shots=(shots[0], shots[1].with_(interpolate=None)))
    with pytest.raises(ConfigError, match="one clip has one rate"):
        make_job(mixed)


def test_a_clip_made_by_kinema_keeps_its_record_and_is_made_again_with_the_rate(model, tmp_path):
    first = kinema.generate("a rooster", model=model, seed=1, frames=9)
    first.save(tmp_path / "a.mkv", quality="lossless")
    made = interpolate_clip(tmp_path / "a.mkv", Interpolate(fps=24, method="blend"))
    made.save(tmp_path / "b.mkv", quality="lossless")
    record = read_record(tmp_path / "b.mkv")
    assert record.post["interpolate"] == {"fps": 24, "method": "blend"}
    assert (record.post["of"], record.post["fps"]) == ("a.mkv", "8")
    assert record.model == first.record.model
    again = kinema.render(read_request(tmp_path / "b.mkv"), model=model)
    assert np.array_equal(again.array(), kinema.Clip.open(tmp_path / "b.mkv").array())


def test_a_strangers_clip_remembers_only_what_was_done(tmp_path):
    kinema.Clip(clip("spin", 3), 8).save(tmp_path / "a.mkv", quality="lossless")
    made = interpolate_clip(tmp_path / "a.mkv", Interpolate(fps=12, method="blend"))
    made.save(tmp_path / "b.mkv")
    record = read_record(tmp_path / "b.mkv")
    assert not record.shot
    assert record.post["sha256"]
    with pytest.raises(MediaError, match=r"only interpolated; run kinema interpolate on a\.mkv"):
        read_request(tmp_path / "b.mkv")


def test_minterpolate_gives_every_frame_at_its_time():
    frames = clip("pan", 6)
    made = list(minterpolated(iter(frames), Fraction(8), Fraction(16), 11))
    assert len(made) == 11
    for f in range(6):
        assert psnr(made[2 * f], scene("pan")(f)) > 40
    with pytest.raises(MediaError, match="transparency"):
        list(minterpolated(iter([np.zeros((8, 8, 4), np.uint8)]), Fraction(8), Fraction(16), 1))


def test_minterpolate_passes_on_what_goes_wrong_upstream():
    def broken():
        yield from clip("pan", 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(minterpolated(broken(), Fraction(8), Fraction(16), 9))


def test_the_verb_writes_the_new_clip(tmp_path, capsys):
    kinema.Clip(clip("spin", 3), 8).save(tmp_path / "a.mp4")
    out = tmp_path / "b.mp4"
    source = str(tmp_path / "a.mp4")
    assert run(["interpolate", source, "--fps", "24", "-o", str(out), "--format", "json"]) == 0
    done = [json.loads(line) for line in capsys.readouterr().out.splitlines()][-1]
    assert (done["event"], done["frames"], done["fps"]) == ("done", 7, "24")
    opened = kinema.Clip.open(out)
    assert (opened.fps, len(opened.array())) == (24, 7)
    assert run(["interpolate", source, "-o", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert run(["interpolate", str(tmp_path / "none.mp4")]) == 2


def test_pictures_of_a_record_are_found_beside_the_clip(tmp_path, monkeypatch):
    (tmp_path / "made").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "made")
    Image.new("RGB", (16, 16)).save("a.png")
    shot = Shot(prompt="a fox", keyframes=["a.png@0", "none.png@-1"])
    Clip(np.zeros((1, 16, 16, 3), np.uint8), 8, Record(shot.to_mapping())).save("clip.mkv")
    assert [key.image for key in read_request("clip.mkv").keyframes] == ["a.png", "none.png"]
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [key.image for key in read_request("../made/clip.mkv").keyframes] == ["../made/a.png", "none.png"]


@pytest.mark.parametrize("method", ["flow", "blend"])
def test_a_picture_that_lasts_a_second_lasts_a_second(tmp_path, method):
    greys = [Image.new("RGB", (32, 32), (value,) * 3) for value in (20, 60, 100, 140)]
    greys[0].save(tmp_path / "pause.webp", save_all=True, append_images=greys[1:], lossless=True, quality=100,
                  duration=[100, 1000, 100, 100])  # fmt: skip
    made = interpolate_clip(tmp_path / "pause.webp", Interpolate(fps=20, method=method))
    shown = made.array()[:, 16, 16, 0].astype(float)
    assert len(shown) == made.count
    paused = np.flatnonzero((shown > 59) & (shown < 99))  # the second grey, on its way to the third
    assert len(paused) == 20


def test_a_clip_at_another_rate_keeps_its_sound(tmp_path, recwarn):
    rate = 48_000
    with wave.open(str(tmp_path / "tone.wav"), "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        wobble = np.sin(np.arange(2 * rate) * 2 * np.pi * 440 / rate)
        sound.writeframes((wobble * 20_000).astype("<i2").tobytes())
    part = AudioPart(path=str(tmp_path / "tone.wav"), at=Fraction(0), seconds=Fraction(1))
    silent = Clip(np.zeros((8, 16, 16, 3), np.uint8), 8)
    silent.save(tmp_path / "silent.mkv")
    replace(silent, audio=(part,)).save(tmp_path / "loud.mkv")
    interpolate_clip(tmp_path / "loud.mkv", Interpolate(fps=16)).save(tmp_path / "out.mkv")
    heard = listen(tmp_path / "out.mkv")
    assert heard.seconds == pytest.approx(15 / 16, abs=0.02)
    assert interpolate_clip(tmp_path / "silent.mkv", Interpolate(fps=16)).audio == ()
    assert not [str(w.message) for w in recwarn if "writable" in str(w.message)]
