"""Windows cover every frame with shares of sum 1, keep their overlaps, and move their seams."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.diffusion.coverage import Continued, Fused, van_der_corput

WEIGHTS, PLACES = ("pyramid", "linear", "flat"), ("static", "uniform")


@st.composite
def fused(draw, loop=None):
    total = draw(st.integers(1, 60))
    loop = draw(st.booleans()) if loop is None else loop
    length = draw(st.integers(1, min(total + loop, 24)))
    overlap = draw(st.integers(0, length - 1))
    return Fused(
        total=total,
        length=length,
        overlap=overlap,
        weights=draw(st.sampled_from(WEIGHTS)),
        places=draw(st.sampled_from(PLACES)),
        lead=draw(st.integers(0, min(overlap, 2))),
        loop=loop,
    )


@given(cover=fused(), index=st.integers(0, 100))
def test_shares_sum_to_one_exactly_at_every_frame(cover, index):
    sums = [0.0] * cover.total
    for window in cover.windows(0, index):
        assert len(window.frames) == len(window.shares) == cover.length
        assert all(b == (a + 1) % cover.total for a, b in pairwise(window.frames))
        if window.frames[0] or cover.loop:
            assert window.shares[: cover.lead] == (0.0,) * cover.lead
        for frame, share in zip(window.frames, window.shares, strict=True):
            sums[frame] += share
    assert sums == [1.0] * cover.total


@given(cover=fused(loop=False), index=st.integers(0, 100), data=st.data())
def test_neighbours_share_the_overlap_so_a_turn_no_longer_than_it_is_seen_whole(cover, index, data):
    starts = [window.frames[0] for window in cover.windows(0, index)]
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] == cover.total - cover.length
    assert all(b - a <= cover.length - cover.overlap for a, b in pairwise(starts))
    turn = data.draw(st.integers(1, max(cover.overlap, 1)))
    first = data.draw(st.integers(0, cover.total - turn))
    seen = [set(window.frames) for window in cover.windows(0, index)]
    assert any(set(range(first, first + turn)) <= frames for frames in seen)


@given(cover=fused(loop=True), index=st.integers(0, 100))
def test_around_a_loop_no_place_is_special(cover, index):
    """The windows are as close together over the end as anywhere else."""
    starts = sorted(w.frames[0] for w in cover.windows(0, index))
    assert len(starts) == len(set(starts))
    gaps = [b - a for a, b in pairwise([*starts, starts[0] + cover.total])]
    assert max(gaps) <= cover.length - cover.overlap


def test_a_pyramid_counts_its_middle_most_and_skips_the_lead():
    middle = Fused(total=29, length=5, overlap=1, places="static").windows(0, 0)[2]
    assert middle.shares == (0.5, 1.0, 1.0, 1.0, 0.5)  # alone at 1, 2, 3; equal where it meets a neighbour
    first, second, *_ = Fused(total=9, length=5, overlap=4, places="static", lead=1).windows(0, 0)
    assert second.frames == (1, 2, 3, 4, 5)
    assert second.shares[0] == 0.0
    assert first.shares[:2] == (1.0, 1.0)  # the lead of the second leaves frame 1 to the first
    assert first.shares[2] == pytest.approx(3 / 4, abs=2**-15)  # 3 : 1


def test_linear_fades_over_the_overlap_only():
    first, second = Fused(total=12, length=8, overlap=4, weights="linear", places="static").windows(0, 0)
    assert first.shares[:4] == (1.0,) * 4
    assert second.shares[4:] == (1.0,) * 4
    assert first.shares[4:] == pytest.approx([4 / 5, 3 / 5, 2 / 5, 1 / 5], abs=2**-15)


def test_uniform_windows_move_over_every_place_of_a_stride():
    cover = Fused(total=40, length=12, overlap=4, places="uniform")
    inner = {cover.windows(0, index)[2].frames[0] % cover.stride for index in range(8)}
    assert inner == set(range(8))
    still = Fused(total=40, length=12, overlap=4, places="static")
    assert len({still.windows(0, index) for index in range(8)}) == 1


def test_van_der_corput_halves_the_largest_gap():
    assert [van_der_corput(i) for i in range(6)] == [0, 0.5, 0.25, 0.75, 0.125, 0.625]


@given(total=st.integers(2, 60), data=st.data())
def test_continuation_makes_every_frame_once_and_shows_finished_ones_before(total, data):
    length = data.draw(st.integers(2, total))
    cover = Continued(total=total, length=length, overlap=data.draw(st.integers(1, length - 1)))
    assert [f for turn in cover.turns for f in turn] == list(range(total))
    for number, turn in enumerate(cover.turns):
        (window,) = cover.windows(number, 5)
        assert len(window.frames) == length
        assert set(turn) <= set(window.frames)
        old = [f for f in window.frames if f < turn[0]]
        assert window.frames[-1] == turn[-1]
        assert not number or len(old) >= cover.overlap
