"""Grey values keep every step that the file has, and mean the same in every frame."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import kinema
from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.grey import GreyClip, read_grey


def test_sixteen_bits_are_kept(tmp_path):
    values = np.array([[0, 1, 2], [32768, 65534, 65535]], np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        found = read_grey(tmp_path / name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found * 65535, values, rtol=1e-6)


def test_eight_bits_and_colours(tmp_path):
    Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(tmp_path / "grey.png")
    np.testing.assert_allclose(read_grey(tmp_path / "grey.png"), [[0, 0.2, 1]], rtol=1e-6)
    Image.fromarray(np.full((2, 2, 3), 102, np.uint8)).save(tmp_path / "colour.png")
    np.testing.assert_allclose(read_grey(tmp_path / "colour.png"), 0.4, rtol=1e-6)


def test_a_folder_goes_by_number_and_stays_on_its_last(tmp_path):
    for i in (2, 10, 1):
        Image.fromarray(np.full((2, 2), 1000 * i, np.uint16)).save(tmp_path / f"d{i}.png")
    clip = GreyClip(tmp_path, Fraction(24))
    assert not clip.still
    assert [round(float(clip.frame(i)[0, 0]) * 65.535) for i in range(5)] == [1, 2, 10, 10, 10]


def test_a_clip_goes_by_time(tmp_path):
    frames = np.stack([np.full((16, 16, 3), 20 * f, np.uint8) for f in range(8)])
    kinema.Clip(frames, 8).save(tmp_path / "depth.mp4")
    clip = GreyClip(tmp_path / "depth.mp4", Fraction(16))
    assert [round(float(clip.frame(i).mean()) * 255 / 20) for i in (0, 2, 8, 14, 99)] == [0, 1, 4, 7, 7]


def test_a_single_picture_is_still(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a.png")
    assert GreyClip(tmp_path / "a.png", Fraction(24)).still


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif", "named.jpg"])
def test_an_animated_picture_moves(tmp_path, name):
    pictures = [Image.new("L", (8, 8), 50 * i) for i in range(5)]
    form = {".jpg": "PNG"}.get(name[-4:])
    lossless = {"lossless": True} if name.endswith("webp") else {}
    pictures[0].save(
        tmp_path / name, form, save_all=True, append_images=pictures[1:], duration=100, **lossless
    )
    clip = GreyClip(tmp_path / name, Fraction(10))
    assert not clip.still
    assert [round(float(clip.frame(i).mean()) * 5.1) for i in range(5)] == [0, 1, 2, 3, 4]


def test_frames_of_a_clip_go_by_their_times(tmp_path):
    pictures = [Image.new("L", (8, 8), 50 * i) for i in range(5)]
    lasting = [2000, 100, 100, 100, 1700]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=lasting)
    clip = GreyClip(tmp_path / "a.gif", Fraction(10))
    seen = [
        round(float(clip.frame(i).mean()) * 5.1) for i in (0, 9, 11, 20, 21, 22, 23, 39, 99, 20, 0)
    ]  # the start that is nearest
    assert seen == [0, 0, 1, 1, 2, 3, 4, 4, 4, 1, 0]


def test_a_clip_is_decoded_once_for_frames_in_order(tmp_path, monkeypatch):
    frames = np.stack([np.full((16, 16, 3), 20 * f, np.uint8) for f in range(8)])
    kinema.Clip(frames, 8).save(tmp_path / "depth.mkv")  # which ffmpeg reads
    clip = GreyClip(tmp_path / "depth.mkv", Fraction(8))
    starts, start = [], ffmpeg.start
    monkeypatch.setattr(ffmpeg, "start", lambda *line, **pipes: starts.append(1) or start(*line, **pipes))
    assert [round(float(clip.frame(i).mean()) * 255 / 20) for i in (0, 0, 1, 2, 5, 7, 9)] == [
        0,
        0,
        1,
        2,
        5,
        7,
        7,
    ]
    assert len(starts) == 1


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_a_picture_is_upright(tmp_path, mode):
    values = np.arange(6).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x112] = 6  # the right side of the stored picture is its lower one
    name = tmp_path / "a.png"
    Image.fromarray(values.astype(np.uint8 if mode == "L" else np.uint16)).save(name, exif=exif)
    found = read_grey(name) * (255 if mode == "L" else 65535)
    np.testing.assert_allclose(found, np.rot90(values, -1), rtol=1e-5)


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "none.png"):
        with pytest.raises(MediaError):
            read_grey(path)
    with pytest.raises(MediaError, match="no picture"):
        GreyClip(tmp_path / "a.png", Fraction(24))
    with pytest.raises(MediaError, match="holds no pictures"):
        GreyClip(tmp_path / "empty", Fraction(24))
