"""Which steps to skip, found before a run from how much the network's residual changes at each step.

    cost(i, j) = (c_{i+1} + ... + c_j) (s_j - s_{j+1})      step j from what was computed at step i
    minimise the sum of costs over the skipped steps, with so many steps computed

c_j is the change of the residual from step j - 1 to j, relative to its size; the velocity's error acts over
the step's own width. `solved` finds the best set by dynamic programming for a budget, where TeaCache (Liu et
al. 2024) compares a running sum with a threshold; `by_magnitude` is MagCache's rule (Ma et al. 2025).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from kinema.core.errors import ConfigError


def solved(
    changes_S: Sequence[float],
    sigmas_S1: Sequence[float],
    computed: int,
    *,
    warmup: int = 2,
    final: int = 1,
    most: int = 3,
) -> tuple[int, ...]:
    """The steps to skip so that `computed` of S are computed, at the least summed change.

    Args:
        changes_S: c of every step; the first one's is not used.
        sigmas_S1: the noise levels before and after the steps.
        computed: how many steps are computed, the warm-up and the final ones included.
        warmup, final: steps at both ends that are always computed.
        most: skipped steps in a row.

    Raises:
        ConfigError: the budget is too small for these rules, or more than there are steps.
    """
    steps = len(changes_S)
    widths = [abs(a - b) for a, b in pairwise(sigmas_S1)]

    def gap(i: int, j: int) -> float:
        """The cost of skipping everything between two computed steps."""
        total, change = 0.0, 0.0
        for k in range(i + 1, j):
            change += changes_S[k]
            total += change * widths[k]
        return total

    @cache
    def best(i: int, left: int) -> tuple[float, tuple[int, ...]]:
        """The least cost after step i was computed and `left` more will be, and the computed steps."""
        if i == steps - 1:
            return (0.0, ()) if left == 0 else (math.inf, ())
        found: tuple[float, tuple[int, ...]] = (math.inf, ())
        forced = i + 1 < warmup or i + 1 >= steps - final
        for j in range(i + 1, min(i + 2 if forced else i + most + 2, steps)):
            if left and (j <= max(steps - final, i + 1)):
                rest, after = best(j, left - 1)
                found = min(found, (gap(i, j) + rest, (j, *after)))
        return found

    cost, chosen = best(0, computed - 1)
    if not 1 <= computed <= steps or cost == math.inf:
        raise ConfigError(
            f"{computed} of {steps} steps cannot be chosen with the first {warmup} and last {final} computed "
            f"and at most {most} skipped in a row; compute more."
        )
    return tuple(k for k in range(steps) if k not in {0, *chosen})


def by_magnitude(
    ratios_S: Sequence[float], *, threshold: float, most: int = 4, retained: float = 0.2
) -> tuple[int, ...]:
    """MagCache's steps: skipped while the product of magnitude ratios stays near 1.

    Args:
        ratios_S: |r_j| / |r_{j-1}| of every step.
        threshold: bound of the summed distance from 1.
        most: skipped steps in a row.
        retained: share of the steps at the beginning that is always computed.
    """
    skips: list[int] = []
    product, error, row = 1.0, 0.0, 0
    for j, ratio in enumerate(ratios_S):
        if j >= round(retained * len(ratios_S)):
            product *= ratio
            error += abs(1 - product)
            row += 1
            if error < threshold and row <= most:
                skips.append(j)
                continue
        product, error, row = 1.0, 0.0, 0
    return tuple(skips)


def every(kept: int, steps: int, *, start: int, final: int = 0) -> tuple[int, ...]:
    """All steps from `start` on but one in `kept`, and but the last `final`."""
    return tuple(j for j in range(start, steps - final) if (j - start) % kept != kept - 1)
