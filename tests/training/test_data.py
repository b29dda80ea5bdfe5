"""Clips made from sprites: exact compositing, the named direction, looping time and resumable draws."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from kinema.core.errors import ConfigError
from kinema.training.data import ClipSource, SpriteBank, render
from kinema.training.grammar import Grammar
from kinema.training.scenes import Background, Identity, Scene

SIZE, LOOP = 16, 5


@pytest.fixture
def bank(tmp_path):
    """A half-transparent red square whose blue counts the frames of its loop, and an opaque white still."""
    frames = np.zeros((LOOP + 1, SIZE, SIZE, 4), dtype=np.uint8)
    frames[:LOOP, 4:12, 4:12] = (100, 0, 0, 128)
    frames[:LOOP, 4:12, 4:12, 2] = 20 * np.arange(LOOP, dtype=np.uint8)[:, None, None]
    frames[LOOP] = 255
    np.save(tmp_path / "frames.npy", frames)
    sprites = [
        {"name": "square", "tags": ["box", "shape"], "offset": 0, "frames": LOOP},
        {"name": "wall", "tags": ["shape", "square"], "offset": LOOP, "frames": 1},
    ]
    (tmp_path / "sprites.json").write_text(json.dumps({"fps": 8, "sha256": "ab", "sprites": sprites}))
    return SpriteBank.open(tmp_path)


def scene(**changes):
    green = Background("flat", ("green",), ((0.0, 0.5, 0.0),))
    base = Scene(Identity("square"), "square", green, "plays", "none", "normal", 1.0, (0, 0), (0, 0), 0.0)
    return replace(base, **changes)


def clip(bank, frames=LOOP, fps=8.0, size=SIZE, **changes):
    """One clip `[3, F, H, W]` in 0..255."""
    return (render(bank, [scene(**changes)], frames=frames, fps=fps, size=size)[0] + 1) * 127.5


def counter(frames_CFHW):
    """The frame of the loop that each frame shows."""
    return (frames_CFHW[2, :, 8, 8] / 20).round().int().tolist()


def test_composite_is_the_over_operator_to_the_last_level(bank):
    frames_CFHW = clip(bank)
    expected = torch.tensor([100.0, (1 - 128 / 255) * 127.5, 0.0])
    torch.testing.assert_close(frames_CFHW[:, 0, 8, 8], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(frames_CFHW[:, 0, 0, 0], torch.tensor([0, 127.5, 0]), atol=1e-3, rtol=0)


def test_edges_never_leave_the_line_between_sprite_and_background(bank):
    """A halo would be a colour that no coverage of this sprite over this background can give."""
    frames_CFHW = clip(bank, scale=0.83, start=(0.11, 0.07), end=(0.11, 0.07), native="frozen")
    coverage_FHW = frames_CFHW[0] / 100
    expected_FHW = 127.5 * (1 - coverage_FHW * 128 / 255)
    torch.testing.assert_close(frames_CFHW[1], expected_FHW, atol=1e-3, rtol=0)
    assert ((coverage_FHW > 0.05) & (coverage_FHW < 0.95)).any()


@pytest.mark.parametrize(("axis", "sign", "end"), [(0, 1, (0.5, 0)), (0, -1, (-0.5, 0)), (1, 1, (0, 0.5))])
def test_sprite_travels_from_start_to_end(bank, axis, sign, end):
    start = tuple(-value for value in end)
    red_FHW = clip(bank, start=start, end=end)[0]
    weight_FN = red_FHW.sum(dim=1 if axis == 0 else 2)
    centroid_F = (weight_FN * (torch.arange(SIZE) + 0.5)).sum(1) / weight_FN.sum(1)
    expected_F = SIZE / 2 + sign * torch.linspace(-0.5, 0.5, LOOP) * SIZE / 2
    torch.testing.assert_close(centroid_F, expected_F, atol=1e-3, rtol=0)


def test_scale_is_the_sprites_share_of_the_frame(bank):
    area = [float(clip(bank, scale=s)[0, 0].sum()) for s in (1.0, 0.5)]
    assert area[1] / area[0] == pytest.approx(0.25, rel=0.02)


def test_time_wraps_around_and_follows_the_clips_rate(bank):
    assert counter(clip(bank, frames=7)) == [0, 1, 2, 3, 4, 0, 1]
    assert counter(clip(bank, frames=5, fps=4.0)) == [0, 2, 4, 1, 3]
    assert counter(clip(bank, frames=4, phase=0.79)) == [3, 4, 0, 1]
    assert counter(clip(bank, frames=3, phase=0.5, native="frozen")) == [2, 2, 2]


def test_gradient_runs_along_the_named_axis_from_first_to_last(bank):
    ends = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for layout, corner in (("vertical", (-1, 0)), ("horizontal", (0, -1))):
        frames_CFHW = clip(bank, background=Background(layout, ("black", "white"), ends))
        assert float(frames_CFHW[0, 0, 0, 0]) == pytest.approx(0, abs=1e-3)
        assert float(frames_CFHW[0, 0, *corner]) == pytest.approx(255, abs=1e-3)


def test_smaller_clips_average_the_sprite(bank):
    small = clip(bank, size=SIZE // 2)
    assert small.shape[-2:] == (8, 8)
    torch.testing.assert_close(small[:, 0, 4, 4], clip(bank)[:, 0, 8, 8], atol=1e-3, rtol=0)


def test_a_word_of_two_sprites_names_neither(bank):
    assert bank.identities[0].synonyms == ("box",)
    assert bank.identities[1].synonyms == ()
    assert [identity.animated for identity in bank.identities] == [True, False]


def source(bank, frames=5, **kwargs):
    return ClipSource(bank, Grammar(), **{"frames": frames, "fps": 8, "size": SIZE, "seed": 3} | kwargs)


def test_draw_i_is_the_same_whatever_came_before(bank):
    one, other = source(bank), source(bank)
    batches = [one.draw(4) for _ in range(3)]
    again = other.draw(4, index=2)
    assert torch.equal(batches[2][0], again[0])
    assert batches[2][1:] == again[1:]
    assert batches[0][1] != batches[1][1]
    assert other.index == 3
    assert not torch.equal(source(bank, seed=4).draw(4)[0], batches[0][0])


@pytest.mark.parametrize("frames", [1, 5])
def test_draw_has_the_promised_shape_and_range(bank, frames):
    frames_BCFHW, captions, scenes = source(bank, frames).draw(6)
    assert frames_BCFHW.shape == (6, 3, frames, SIZE, SIZE)
    assert frames_BCFHW.dtype == torch.float32
    assert float(frames_BCFHW.abs().max()) <= 1
    assert len(captions) == len(scenes) == 6
    assert all(scene.word in text for scene, text in zip(scenes, captions, strict=True))


def test_errors_name_the_way_out(bank, tmp_path):
    with pytest.raises(ConfigError, match=r"size=12 does not divide the sprites' 16"):
        source(bank, size=12)
    with pytest.raises(ConfigError, match="frames=0"):
        source(bank, frames=0)
    with pytest.raises(ConfigError, match=r"prepare_emoji.py"):
        SpriteBank.open(tmp_path / "nowhere")
