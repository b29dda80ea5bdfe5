"""Seed behaviours: Deforum's sequences, frame by frame."""

import pytest

from kinema.core.errors import ConfigError
from kinema.story.seeds import LIMIT, seeds


@pytest.mark.parametrize(
    ("behaviour", "settings", "expected"),
    [
        ("iter", {}, [100, 101, 102, 103, 104, 105]),
        ("iter", {"every": 3}, [100, 100, 100, 101, 101, 101]),
        ("iter", {"every": 3, "dialect": "deforum"}, [100, 101, 101, 101, 102, 102]),
        ("iter", {"dialect": "deforum"}, [100, 101, 102, 103, 104, 105]),
        ("fixed", {}, [100] * 6),
        ("ladder", {}, [100, 102, 101, 103, 102, 104]),
        ("alternate", {}, [100, 101, 100, 101, 100, 101]),
        ("schedule", {"schedule": [7, 7.4, 7.6, 0, 2.0, 1e6]}, [7, 7, 8, 0, 2, 1_000_000]),
        (
            "schedule",
            {"schedule": [7, 7.4, 7.6, -0.5, 2.0, 1e6], "dialect": "deforum"},
            [7, 7, 7, 0, 2, 1_000_000],
        ),
    ],
)
def test_sequences(behaviour, settings, expected):
    assert seeds(behaviour, 100, 6, **settings) == expected


def test_random_seeds_differ_and_repeat():
    drawn = seeds("random", 7, 100)
    assert drawn[0] == 7
    assert len(set(drawn)) == 100
    assert drawn == seeds("random", 7, 200)[:100]
    assert drawn[1:] != seeds("random", 8, 100)[1:]
    assert all(0 <= seed < 2**32 for seed in drawn)


def test_a_negative_seed_in_a_schedule_is_drawn():
    first = seeds("schedule", 7, 3, schedule=[5, -1, -1])
    assert first[0] == 5
    assert first[1] != first[2]
    assert first == seeds("schedule", 7, 3, schedule=[5, -1, -1])


def test_seeds_wrap_at_the_largest():
    assert seeds("iter", LIMIT - 1, 2) == [LIMIT - 1, 0]


@pytest.mark.parametrize(
    ("behaviour", "settings", "message"),
    [
        ("itr", {}, "Did you mean 'iter'"),
        ("iter", {"every": 0}, "seed_every=0"),
        ("schedule", {}, "needs 3 seeds"),
        ("schedule", {"schedule": [1.0]}, "needs 3 seeds"),
    ],
)
def test_what_cannot_be(behaviour, settings, message):
    with pytest.raises(ConfigError, match=message):
        seeds(behaviour, 1, 3, **settings)
