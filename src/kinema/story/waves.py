"""The functions that a formula may call: mathematics, waves of period 1, shapes, and noise.

    saw(x) = x - floor(x)        tri(x) = 1 - |2 saw(x) - 1|        pulse(x, w) = saw(x) < w

Every function takes and gives float64 arrays over frames and is defined elementwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _fraction(x: Array) -> Array:
    return x - np.floor(x)


def _smoothstep(low: Array, high: Array, x: Array) -> Array:
    u = np.clip((x - low) / (high - low), 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def _pulse(x: Array, width: Array | float = 0.5) -> Array:
    return (_fraction(x) < width).astype(np.float64)


def where(condition: Array, chosen: Array, otherwise: Array) -> Array:
    """`chosen` where the condition is not 0."""
    return np.asarray(np.where(condition != 0, chosen, otherwise))


def _hash(lattice: NDArray[np.uint64], salt: NDArray[np.uint64]) -> Array:
    """A value in -1..1 for each lattice point: the finaliser of SplitMix64 (Steele et al. 2014)."""
    z = lattice * np.uint64(0x9E3779B97F4A7C15) + salt * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    unit: Array = (z >> np.uint64(11)).astype(np.float64) / 2.0**52
    return unit - 1.0


def _whole(x: Array) -> NDArray[np.uint64]:
    """Floored and wrapped to 0..2^32, so that any float is a lattice point."""
    wrapped: Array = np.mod(np.nan_to_num(np.floor(x), posinf=0.0, neginf=0.0), 2.0**32)
    return wrapped.astype(np.uint64)


def value_noise(x: Array, stream: Array) -> Array:
    """Smooth noise in -1..1 through a random value at each whole `x`; `stream` picks which values."""
    low, salt, u = _whole(x), _whole(stream), _fraction(x)
    fade = u * u * u * (u * (6.0 * u - 15.0) + 10.0)
    high = (low + np.uint64(1)) & np.uint64(2**32 - 1)  # what follows -1 is 0
    return (1.0 - fade) * _hash(low, salt) + fade * _hash(high, salt)


def _random(x: Array, stream: Array) -> Array:
    """A value in 0..1 for each whole `x`, without any connection between neighbours."""
    return (_hash(_whole(x), _whole(stream + 0.5) ^ np.uint64(1 << 40)) + 1.0) / 2.0


def _variadic(pairwise: np.ufunc) -> Callable[..., Array]:
    def fold(first: Array, *rest: Array) -> Array:
        for value in rest:
            first = pairwise(first, value)
        return first

    return fold


lowest, highest = _variadic(np.minimum), _variadic(np.maximum)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a formula, and how many values it takes."""

    apply: Callable[..., Array]
    least: int
    most: int


_ONE = {
    "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "arcsin": "arcsin", "arccos": "arccos", "arctan": "arctan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "exp": "exp", "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10", "log1p": "log1p",
    "sqrt": "sqrt", "abs": "abs", "sign": "sign", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    "radians": "radians", "degrees": "degrees",
}  # fmt: skip
_TWO = {
    "atan2": "arctan2",
    "arctan2": "arctan2",
    "mod": "mod",
    "fmod": "fmod",
    "pow": "power",
    "hypot": "hypot",
}

FUNCTIONS: Mapping[str, Function] = {
    **{name: Function(getattr(np, theirs), 1, 1) for name, theirs in _ONE.items()},
    **{name: Function(getattr(np, theirs), 2, 2) for name, theirs in _TWO.items()},
    "round": Function(lambda x: np.floor(x + 0.5), 1, 1),
    "min": Function(lowest, 1, 16),
    "max": Function(highest, 1, 16),
    "clamp": Function(lambda x, low, high: np.minimum(np.maximum(x, low), high), 3, 3),
    "clip": Function(lambda x, low, high: np.minimum(np.maximum(x, low), high), 3, 3),
    "where": Function(where, 3, 3),
    "mix": Function(lambda a, b, u: a + (b - a) * u, 3, 3),
    "step": Function(lambda edge, x: (x >= edge).astype(np.float64), 2, 2),
    "smoothstep": Function(_smoothstep, 3, 3),
    "saw": Function(_fraction, 1, 1),
    "tri": Function(lambda x: 1.0 - np.abs(2.0 * _fraction(x) - 1.0), 1, 1),
    "pulse": Function(_pulse, 1, 2),
    "noise": Function(value_noise, 1, 2),
    "random": Function(_random, 1, 2),
}
SEEDED = frozenset(("noise", "random"))
"""Functions whose second value is the shot's seed plus what is written there."""
