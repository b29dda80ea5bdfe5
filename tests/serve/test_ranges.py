"""Ranges as RFC 9110 has them: read, ignored or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.serve.ranges import MOST, parse_range

SIZE = 1000


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("bytes=0-0", ((0, 0),)),
        ("bytes=500-", ((500, 999),)),
        ("bytes=-1", ((999, 999),)),
        ("bytes=-5000", ((0, 999),)),
        ("bytes=0-9999999999999999", ((0, 999),)),
        ("BYTES=1-2", ((1, 2),)),
        ("bytes= 1-2 , ,3-4,", ((1, 2), (3, 4))),
        ("bytes=5-9,1-2", ((5, 9), (1, 2))),
        ("bytes=0-1,5000-", ((0, 1),)),
    ],
)
def test_what_is_asked_for_is_found(written, found):
    assert parse_range(written, SIZE) == found


@pytest.mark.parametrize("written", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=5000-,-0"])
def test_what_lies_outside_is_nothing(written):
    assert parse_range(written, SIZE) == ()


@pytest.mark.parametrize(
    "written",
    ["", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=2-1", "bytes=0-1,2-1", "bytes=0-1,x",
     "bytes=1", "bytes=1-2-3", "bytes=+1-2", "bytes=1_0-20", "bytes=١-٢", "seconds=0-1", "bytes:0-1",
     "bytes=" + "9" * 5000 + "-", "bytes=" + "0-0," * (MOST + 1)],
)  # fmt: skip
def test_what_is_wrong_is_ignored(written):
    assert parse_range(written, SIZE) is None


SPECS = st.tuples(st.none() | st.integers(0, 40), st.none() | st.integers(0, 40)).filter(
    lambda spec: spec != (None, None)
)


@given(st.lists(SPECS, min_size=1, max_size=5), st.integers(0, 20))
def test_ranges_are_the_bytes_that_their_words_say(specs, size):
    def shown(number):
        return "" if number is None else str(number)

    written = "bytes=" + ",".join(f"{shown(a)}-{shown(b)}" for a, b in specs)
    found = parse_range(written, size)
    if any(a is not None and b is not None and b < a for a, b in specs):
        assert found is None
        return
    whole = range(size)
    said = [
        [at for at in whole if (at >= size - b if a is None else a <= at and (b is None or at <= b))]
        for a, b in specs
    ]
    assert [list(range(first, last + 1)) for first, last in found] == [part for part in said if part]
