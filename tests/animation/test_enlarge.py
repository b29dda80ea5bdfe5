"""Frames resampled: constants stay, pixels are repeated, nothing overshoots, hidden colours stay hidden."""

import tracemalloc

import numpy as np
import pytest

from kinema.animation import enlarge
from kinema.animation.enlarge import enlarged
from kinema.core.errors import ConfigError


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("method", ["lanczos", "bicubic", "nearest"])
@pytest.mark.parametrize("colour", [(0, 128, 255), (7, 99, 201, 255), (7, 99, 201, 40)])
def test_one_colour_stays_that_colour(method, colour):
    frame = np.full((6, 10, len(colour)), colour, np.uint8)
    made = enlarged(frame, (40, 24), method)
    assert made.shape == (24, 40, len(colour))
    assert made.dtype == np.uint8
    assert (made == colour).all()


@pytest.mark.parametrize("channels", [3, 4])
def test_nearest_repeats_every_pixel(channels):
    frame = noise(5, 7, channels)
    made = enlarged(frame, (21, 15), "nearest")
    assert np.array_equal(made, np.kron(frame, np.ones((3, 3, 1), np.uint8)))


@pytest.mark.parametrize("method", ["lanczos", "bicubic"])
def test_an_overshoot_is_cut_off_and_does_not_wrap(method):
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[:, 8:] = 255
    row = enlarged(frame, (64, 64), method)[32, :, 0].astype(int)
    assert row[:28].max() < 32
    assert row[36:].min() > 223
    assert set(row[[0, -1]]) == {0, 255}


def test_both_sides_of_an_edge_ring_alike():
    frame = np.full((16, 16, 3), 64, np.uint8)
    frame[:, 8:] = 192
    row = enlarged(frame, (64, 64))[32, :, 0].astype(int)
    assert row.max() > 192
    assert abs((row.max() - 192) - (64 - row.min())) <= 1


@pytest.mark.parametrize("method", ["lanczos", "bicubic"])
def test_an_edge_of_something_bright_does_not_darken_by_the_black_that_is_hidden(method):
    frame = np.zeros((16, 16, 4), np.uint8)
    frame[4:12, 4:12] = (250, 200, 40, 255)
    made = enlarged(frame, (64, 64), method)
    seen = made[made[..., 3] > 8]
    assert len(np.unique(seen[:, 3])) > 10  # the edge is soft
    assert np.abs(seen[:, :3].astype(int) - (250, 200, 40)).max() <= 1
    assert (made[made[..., 3] == 0] == 0).all()


def test_what_is_made_smaller_is_averaged():
    frame = np.indices((32, 32)).sum(0)[..., None].repeat(3, 2) % 2 * 200
    made = enlarged(frame.astype(np.uint8), (8, 8))
    assert np.abs(made[2:-2, 2:-2].astype(int) - 100).max() <= 2


@pytest.mark.parametrize("method", ["lanczos", "bicubic"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(
    ("height", "new"), [(40, 160), (40, 60), (60, 80), (64, 32), (63, 28), (50, 52), (40, 41), (1, 16)]
)
def test_bands_are_what_the_whole_gives(monkeypatch, height, new, channels, method):
    frame = noise(height, 30, channels)
    heights = []

    def told(part, size, resampling, rows):
        heights.append((len(part), size[1]))
        return resize(part, size, resampling, rows)

    name = "_resized" if channels == 3 else "_with_alpha"
    resize = getattr(enlarge, name)
    whole = resize(frame, (45, new), enlarge.FILTERS[method], (0, height))
    monkeypatch.setattr(enlarge, name, told)
    monkeypatch.setattr(enlarge, "BAND", 45 * 8)
    assert np.array_equal(enlarged(frame, (45, new), method), whole)
    if new not in (41, 52):  # which share no rows with the frame
        assert max(rows for _, rows in heights) <= 16
        assert max(rows for rows, _ in heights) <= 16 * max(1, height / new) + 8 * max(1, height / new) + 2


def test_memory_does_not_grow_with_the_square_of_the_scale():
    frame = noise(256, 256, 4)
    tracemalloc.start()
    made = enlarged(frame, (4096, 4096))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < made.nbytes + 100 * enlarge.BAND


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match=r"unknown method 'cubic'\. Did you mean 'bicubic'"):
        enlarged(noise(4, 4, 3), (8, 8), "cubic")
