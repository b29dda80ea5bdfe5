"""Masks and controls: a picture for all frames, or one that moves, by what the file holds."""

from types import SimpleNamespace

import pytest
from PIL import Image

from kinema.core.errors import MediaError
from kinema.pipelines.picture_track import PictureTrack

PLAN = SimpleNamespace(
    geometry=SimpleNamespace(fps="10", width=16, height=8), given=SimpleNamespace(fit="crop")
)


def seen(path) -> list[int]:
    track = PictureTrack(str(path), PLAN, "mask")
    return [round(float(track.at(frame).mean()) * 5.1) for frame in range(7)]


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
def test_an_animated_picture_moves_and_stays_on_its_last(tmp_path, name):
    pictures = [Image.new("L", (16, 8), 50 * i) for i in range(5)]
    lossless = {"lossless": True} if name.endswith("webp") else {}
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=100, **lossless)
    assert seen(tmp_path / name) == [0, 1, 2, 3, 4, 4, 4]


def test_a_still_is_for_all_frames(tmp_path):
    Image.new("L", (16, 8), 150).save(tmp_path / "a.png")
    assert seen(tmp_path / "a.png") == [3] * 7


def test_what_is_called_a_picture_and_is_none_is_refused_as_one(tmp_path):
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(MediaError, match="no picture"):
        seen(tmp_path / "a.png")
