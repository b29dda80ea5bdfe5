"""Schedules found ahead: the best set by exhaustive search, the rules at both ends, MagCache's own rule."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.diffusion.skipping import by_magnitude, every, solved


def cost(skips, changes, sigmas):
    total, since = 0.0, 0.0
    for j, change in enumerate(changes):
        since = since + change if j in skips else 0.0
        total += since * (sigmas[j] - sigmas[j + 1])
    return total


def allowed(skips, steps, warmup, final, most):
    rows = "".join("x" if j in skips else "." for j in range(steps))
    return all(warmup <= j < steps - final for j in skips) and "x" * (most + 1) not in rows


@settings(max_examples=40)
@given(st.data(), st.integers(4, 9), st.integers(1, 3), st.integers(1, 2), st.integers(1, 3))
def test_the_schedule_is_the_best_that_the_rules_allow(data, steps, warmup, final, most):
    changes = data.draw(st.lists(st.floats(0.01, 1), min_size=steps, max_size=steps))
    sigmas = [1 - j / steps for j in range(steps + 1)]
    computed = data.draw(st.integers(1, steps))
    choices = [
        set(skips)
        for skips in combinations(range(steps), steps - computed)
        if allowed(skips, steps, warmup, final, most)
    ]
    rules = {"warmup": warmup, "final": final, "most": most}
    if not choices:
        with pytest.raises(ConfigError, match=r"cannot be chosen.*compute more"):
            solved(changes, sigmas, computed, **rules)
        return
    found = solved(changes, sigmas, computed, **rules)
    assert allowed(found, steps, warmup, final, most)
    assert len(found) == steps - computed
    best = min(cost(skips, changes, sigmas) for skips in choices)
    assert cost(set(found), changes, sigmas) == pytest.approx(best)


def test_steps_that_change_little_and_are_short_are_skipped():
    changes = [1, 1, 0.5, 0.01, 0.5, 0.01, 0.5, 0.5]
    assert solved(changes, [1 - j / 8 for j in range(9)], 6) == (3, 5)


def test_magnitudes_are_counted_as_in_magcache():
    # by hand: 20% of 10 steps retained; errors .02, .06 (product .96), then .12 (product .94), above .1
    ratios = [1, 1, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98]
    assert by_magnitude(ratios, threshold=0.1) == (2, 3, 5, 6, 8, 9)
    assert by_magnitude(ratios, threshold=9, most=2) == (2, 3, 5, 6, 8, 9)
    assert by_magnitude(ratios, threshold=9, most=4, retained=0.5) == (5, 6, 7, 8)


def test_every_keeps_one_in_so_many():
    assert every(2, 10, start=4) == (4, 6, 8)
    assert every(3, 10, start=2, final=1) == (2, 3, 5, 6, 8)
