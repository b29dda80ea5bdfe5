"""Frames in between: exact motion is met, sources are kept, cuts are not mixed, any ratio has its times."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.animation.interpolate import Pair, count, interpolated, picture, to_bytes
from kinema.animation.interpolate_between import between, splatted
from kinema.animation.interpolate_flow import flow_between, read
from kinema.core.errors import ConfigError
from moving_scenes import KINDS, as_bytes, clip, psnr, scene


def pictures(kind: str, *times: float) -> list[torch.Tensor]:
    return [torch.from_numpy(scene(kind)(t)).permute(2, 0, 1)[None].float() for t in times]


# Flow


def test_flow_of_a_pan_is_the_pan_both_ways():
    there, back = flow_between(*pictures("pan", 0, 1))
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    exact = torch.tensor([3.3, -1.7]).view(1, 2, 1, 1)
    assert float((there[inner] - exact).norm(dim=1).mean()) < 0.1
    assert float((back[inner] + exact).norm(dim=1).mean()) < 0.1


def test_flow_of_a_turn_is_the_turn_at_every_place():
    there, _ = flow_between(*pictures("turn", 0, 1))
    v, u = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(64.0) - 31.5, indexing="ij")
    angle = torch.deg2rad(torch.tensor(5.0))
    exact = torch.stack((u * angle.cos() - v * angle.sin() - u, u * angle.sin() + v * angle.cos() - v))
    off = (there[0] - exact).norm(dim=0)[8:-8, 8:-8]
    assert float(off.mean()) < 0.15


def test_a_small_thing_that_leaps_its_own_width_is_followed():
    there, _ = flow_between(*pictures("fast thing", 0, 1))
    on_it = there[0, :, 22:31, 12:21].flatten(1).median(dim=1).values
    assert on_it.tolist() == pytest.approx([8, 1.5], abs=0.3)


def test_a_still_picture_has_no_flow():
    one, _ = pictures("pan", 0, 1)
    there, back = flow_between(one, one)
    assert float(there.abs().max()) == 0
    assert float(back.abs().max()) == 0


@given(dx=st.floats(-3, 3), dy=st.floats(-3, 3))
def test_splatting_moves_everything_and_loses_nothing(dx, dy):
    values = torch.zeros(1, 1, 16, 16)
    values[0, 0, 8, 8] = 2.0
    way = torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    out = splatted(values, way)[0, 0]
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    assert float(out.sum()) == pytest.approx(2, abs=1e-5)
    assert float((out * x).sum() / 2) == pytest.approx(8 + dx, abs=1e-4)
    assert float((out * y).sum() / 2) == pytest.approx(8 + dy, abs=1e-4)


def test_reading_along_no_flow_is_the_picture():
    (one,) = pictures("pan", 0)
    torch.testing.assert_close(read(one, torch.zeros(1, 2, 64, 64)), one, atol=1e-5, rtol=0)


# Between


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_in_between_is_nearer_to_the_truth_than_a_blend_by_far(kind):
    first, second = (as_bytes(scene(kind)(t)) for t in (0, 1))
    ours, blend = Pair(first, second), Pair(first, second, "blend")
    found = [
        (psnr(ours.at(t), scene(kind)(t)), psnr(blend.at(t), scene(kind)(t))) for t in (1 / 3, 1 / 2, 2 / 3)
    ]
    mine, plain = np.mean(found, axis=0)
    assert mine > plain + 5
    assert mine > 28


def test_what_comes_into_sight_is_taken_from_where_it_is_seen():
    """Behind a moving thing the pattern is uncovered: no ghost of the thing stays there."""
    first, second = pictures("thing", 0, 1)
    made = between(first, second, *flow_between(first, second), 0.5)
    exact = pictures("thing", 0.5)[0]
    trail = (slice(None), slice(None), slice(24, 31), slice(7, 9))  # covered at 0, seen at 1/2 and 1
    ghost = float(((first + second) / 2 - exact)[trail].abs().mean())
    assert float((made - exact)[trail].abs().mean()) < 0.5 * ghost


# The stream


@given(
    frames=st.integers(1, 12),
    ratio=st.fractions(min_value=Fraction(1, 4), max_value=8, max_denominator=1001),
    loop=st.booleans(),
)
@settings(max_examples=40)
def test_any_ratio_gives_the_frames_that_are_counted_at_the_times_they_have(frames, ratio, loop):
    ramp = [np.full((1, 1, 3), f, np.uint8) for f in range(frames)]
    made = list(interpolated(ramp, ratio, "blend", loop=loop))
    assert len(made) == count(frames, ratio, loop=loop)
    values = [*range(frames), 0]
    for j, frame in enumerate(made):
        place = float(j / ratio)
        near = np.interp(place, np.arange(frames + 1), values)
        assert abs(float(frame[0, 0, 0]) - near) <= 0.5001
    if not loop:
        assert len(made) / ratio <= frames - 1 + 1 / ratio


def test_the_clips_own_frames_are_kept_to_the_byte():
    frames = clip("spin", 3)
    made = list(interpolated(frames, Fraction(3)))
    assert len(made) == 7
    assert all(np.array_equal(made[3 * f], frames[f]) for f in range(3))


def test_a_loop_is_closed_by_frames_between_its_last_and_its_first():
    frames = clip("spin", 3)
    made = list(interpolated(frames, Fraction(2), loop=True))
    assert len(made) == 6
    assert np.array_equal(made[5], Pair(frames[2], frames[0]).at(0.5))


def test_two_frames_are_held_at_a_time():
    drawn = []

    def source():
        for f, frame in enumerate(clip("spin", 4)):
            drawn.append(f)
            yield frame

    stream = interpolated(source(), Fraction(2), "blend")
    next(stream)
    assert drawn == [0, 1]
    next(stream), next(stream)
    assert drawn == [0, 1, 2]


@pytest.mark.parametrize(("a", "b"), [("pan", "spin"), ("thing on flat", "thing"), ("turn", "spin")])
def test_a_cut_is_not_mixed(a, b):
    first, second = as_bytes(scene(a)(0)), as_bytes(scene(b)(3))
    pair = Pair(first, second)
    assert pair.cut
    assert np.array_equal(pair.at(0.4), first)
    assert np.array_equal(pair.at(0.6), second)


@pytest.mark.parametrize("kind", KINDS)
def test_motion_and_changes_of_light_are_no_cuts(kind):
    first = as_bytes(scene(kind)(0))
    assert not Pair(first, as_bytes(scene(kind)(1))).cut
    assert not Pair(first, as_bytes(scene(kind)(0) * 0.8)).cut
    assert not Pair(first, as_bytes(scene(kind)(0) * 0.8 + 0.2)).cut


def test_transparency_is_carried_and_hides_no_colours():
    frame = np.zeros((2, 2, 4), np.uint8)
    frame[0] = (200, 100, 50, 255)
    frame[1] = (0, 0, 0, 0)
    assert np.array_equal(to_bytes(picture(torch.from_numpy(frame))), frame)
    half = Pair(frame, np.zeros_like(frame), "blend").at(0.5)
    assert half[0, 0].tolist()[:3] == [200, 100, 50]  # only its cover fades
    assert half[0, 0, 3] in (127, 128)


def test_an_unknown_method_is_named():
    with pytest.raises(ConfigError, match=r"unknown interpolation method 'flwo'\. Did you mean 'flow'"):
        list(interpolated(clip("spin", 2), Fraction(2), "flwo"))


def test_frames_of_a_variable_rate_stay_at_their_times():
    """Grey values equal to the time in frames, so that a frame in between shows when it is."""
    starts = [Fraction(0), Fraction(1, 2), Fraction(3), Fraction(7, 2)]
    frames = [np.full((8, 8, 3), round(20 * at), np.uint8) for at in starts]
    made = list(interpolated(frames, Fraction(2), "blend", starts=starts))
    assert len(made) == count(4, Fraction(2), starts=starts) == 8
    assert [int(frame[0, 0, 0]) for frame in made] == [0, 10, 20, 30, 40, 50, 60, 70]
    around = list(interpolated(frames, Fraction(2), "blend", starts=starts, loop=True))
    assert len(around) == count(4, Fraction(2), starts=starts, loop=True) == 8
