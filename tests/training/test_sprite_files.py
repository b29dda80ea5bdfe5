"""Pictures with transparency to looping sprites."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from kinema.core.errors import ConfigError, MediaError
from kinema.training.data import SpriteBank
from kinema.training.sprite_files import check_outline, decode, is_animated, write_bank

CLEAR = (0, 255, 0, 0)  # what is clear may hold any colour


def square(colour, size=(16, 16), box=(4, 4, 12, 12)):
    image = Image.new("RGBA", size, CLEAR)
    image.paste(colour, box)
    return image


@pytest.fixture
def loop(tmp_path):
    """Red for 250 ms, then blue for 750 ms."""
    path = tmp_path / "loop.webp"
    red, blue = square((255, 0, 0, 255)), square((0, 0, 255, 255))
    red.save(path, save_all=True, append_images=[blue], duration=[250, 750], lossless=True, exact=True)
    return path


def test_time_is_kept(loop):
    assert is_animated(loop)
    clip = decode(loop, 16, 8.0, 24)
    assert clip.shape == (8, 16, 16, 4)
    assert [int(frame[8, 8, 0]) for frame in clip] == [255, 255, 0, 0, 0, 0, 0, 0]


def test_a_loop_that_is_too_long_plays_faster_and_still_closes(loop):
    assert [int(frame[8, 8, 0]) for frame in decode(loop, 16, 8.0, 4)] == [255, 0, 0, 0]


def test_clear_pixels_lend_no_colour_to_the_edge(tmp_path):
    square((255, 0, 0, 255), box=(3, 3, 13, 13)).save(tmp_path / "edge.png")
    (frame,) = decode(tmp_path / "edge.png", 8, 8.0, 24)
    assert frame[1, 4].tolist() == [128, 0, 0, 128]  # half covered by red; green would be a halo
    assert frame[4, 4].tolist() == [255, 0, 0, 255]


def test_oblong_pictures_get_clear_borders(tmp_path):
    Image.new("RGBA", (32, 16), (10, 20, 30, 255)).save(tmp_path / "wide.png")
    (frame,) = decode(tmp_path / "wide.png", 32, 8.0, 24)
    assert (frame[:8] == 0).all()
    assert (frame[8:24] == (10, 20, 30, 255)).all()
    assert (frame[24:] == 0).all()
    check_outline(tmp_path / "wide.png", frame[None])


def test_frames_that_are_alike_are_one(tmp_path):
    image = square((255, 0, 0, 255))
    image.save(tmp_path / "still.gif", save_all=True, append_images=[image, image], duration=100)
    assert len(decode(tmp_path / "still.gif", 16, 8.0, 24)) == 1


@pytest.mark.parametrize(
    ("colour", "words"), [((255, 0, 0, 255), "no clear ground"), ((0, 0, 0, 0), "clear everywhere")]
)
def test_what_has_no_outline_is_refused(tmp_path, colour, words):
    path = tmp_path / "wall.png"
    Image.new("RGBA", (16, 16), colour).save(path)
    with pytest.raises(ConfigError, match=words):
        check_outline(path, decode(path, 16, 8.0, 24))


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(ConfigError, match=r"x\.png is not a readable picture"):
        decode(tmp_path / "x.png", 16, 8.0, 24)


def test_a_bank_opens_as_it_was_written(tmp_path, loop):
    clip = decode(loop, 16, 8.0, 24)
    sprites = [{"name": "lamp", "tags": ["light"], "offset": 0, "frames": 8}]
    digest = write_bank(tmp_path / "bank", [clip], {"size": 16, "fps": 8.0, "sprites": sprites})
    bank = SpriteBank.open(tmp_path / "bank")
    assert (bank.data_hash, bank.size, bank.fps) == (digest, 16, 8.0)
    assert (np.asarray(bank.frames_NHWC) == clip).all()
    assert (bank.identities[0].name, bank.identities[0].synonyms) == ("lamp", ("light",))
    assert json.loads((tmp_path / "bank/sprites.json").read_text())["sha256"] == digest
    other = write_bank(tmp_path / "other", [clip // 2], {"size": 16, "fps": 8.0, "sprites": sprites})
    assert other != digest


def test_a_picture_that_lies_on_its_side_is_turned_up(tmp_path):
    """A tablet's file may say by a tag how it was held."""
    image, exif = square((255, 0, 0, 255), box=(6, 0, 10, 4)), Image.Exif()
    exif[0x0112] = 6  # its top is on the right
    image.save(tmp_path / "arrow.webp", exif=exif, lossless=True)
    (frame,) = decode(tmp_path / "arrow.webp", 16, 8.0, 24)
    assert (frame[6:10, 12:, 3] == 255).all()
    assert frame[..., 3].sum() == 16 * 255


def test_a_picture_that_is_far_too_large_is_refused(tmp_path, monkeypatch):
    square((255, 0, 0, 255)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ConfigError, match=r"x\.png is not a readable picture .*decompression bomb"):
        decode(tmp_path / "x.png", 16, 8.0, 24)


def test_a_bank_that_was_not_written_to_its_end_is_not_opened_with_an_earlier_index(
    tmp_path, loop, monkeypatch
):
    clip = decode(loop, 16, 8.0, 24)
    facts = {"size": 16, "fps": 8.0, "sprites": [{"name": "lamp", "tags": [], "offset": 0, "frames": 8}]}
    write_bank(tmp_path / "bank", [clip], facts)

    def full(values, **how):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kinema.training.sprite_files.np.save", lambda file, frames: full(frames))
        with pytest.raises(MediaError, match="No space"):
            write_bank(tmp_path / "bank", [clip[::-1]], facts)
    with pytest.raises(ConfigError, match=r"holds no sprites\.json"):
        SpriteBank.open(tmp_path / "bank")
    assert not list((tmp_path / "bank").glob("*.part"))


@pytest.mark.parametrize("harm", ["cut index", "cut frames", "other rows", "no frames"])
def test_a_damaged_bank_is_told(tmp_path, loop, harm):
    bank = tmp_path / "bank"
    sprites = [{"name": "lamp", "tags": [], "offset": 1 if harm == "other rows" else 0, "frames": 8}]
    index = {"size": 16, "fps": 8.0, "sprites": [] if harm == "no frames" else sprites}
    write_bank(bank, [decode(loop, 16, 8.0, 24)], index)
    if harm.startswith("cut"):
        path = bank / ("sprites.json" if harm == "cut index" else "frames.npy")
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=r"is no whole bank of sprites .*prepare it anew"):
        SpriteBank.open(bank)
