"""Easing: how a value travels from one key to the next, `e(u)` with `e(0) = 0` and `e(1) = 1` for u in 0..1.

The shapes are Penner's (Robert Penner, "Programming Macromedia Flash MX", 2002) and CSS's `cubic-bezier`.
`back`, `elastic` and some Bezier curves overshoot the 0..1 range on purpose; what cannot overshoot clips it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError, unknown_name

Array = NDArray[np.float64]
Easing = Callable[[Array], Array]


def _power(u: Array, exponent: int) -> Array:
    return u**exponent


def _sine(u: Array) -> Array:
    return 1.0 - np.cos(u * np.pi / 2.0)


def _expo(u: Array) -> Array:
    return np.where(u <= 0.0, 0.0, (2.0 ** (10.0 * u) - 1.0) / 1023.0)


def _back(u: Array) -> Array:
    overshoot = 1.70158  # 10 % past the end
    return u * u * ((overshoot + 1.0) * u - overshoot)


def _elastic(u: Array) -> Array:
    wave = -(2.0 ** (10.0 * u - 10.0)) * np.sin((10.0 * u - 10.75) * 2.0 * np.pi / 3.0)
    return np.where(u <= 0.0, 0.0, np.where(u >= 1.0, 1.0, wave))


def _bounce(u: Array) -> Array:
    """Four parabolas of falling height, played backwards."""
    x = 2.75 * (1.0 - u)
    height = x * x
    for start, centre, base in ((1.0, 1.5, 0.75), (2.0, 2.25, 0.9375), (2.5, 2.625, 0.984375)):
        height = np.where(x >= start, (x - centre) ** 2 + base, height)
    return 1.0 - height


def _in(shape: Easing, u: Array) -> Array:
    return shape(u)


def _out(shape: Easing, u: Array) -> Array:
    return 1.0 - shape(1.0 - u)


def _in_out(shape: Easing, u: Array) -> Array:
    return np.where(u < 0.5, shape(2.0 * u) / 2.0, 1.0 - shape(2.0 - 2.0 * u) / 2.0)


def _linear(u: Array) -> Array:
    return u


def _hold(u: Array) -> Array:
    return (u >= 1.0).astype(np.float64)


_SHAPES: Mapping[str, Easing] = {
    "quad": partial(_power, exponent=2),
    "cubic": partial(_power, exponent=3),
    "sine": _sine,
    "expo": _expo,
    "back": _back,
    "bounce": _bounce,
    "elastic": _elastic,
}
_DIRECTIONS: Mapping[str, Callable[[Easing, Array], Array]] = {"in": _in, "out": _out, "in_out": _in_out}

EASINGS: Mapping[str, Easing] = {
    "linear": _linear,
    "hold": _hold,
    **{direction: partial(way, _SHAPES["cubic"]) for direction, way in _DIRECTIONS.items()},
    **{
        f"{direction}_{name}": partial(way, shape)
        for name, shape in _SHAPES.items()
        for direction, way in _DIRECTIONS.items()
    },
}

_NUMBER = r"\s*([+-]?(?:\d{1,6}\.?\d{0,12}|\.\d{1,12}))\s*"
_BEZIER = re.compile(rf"cubic[-_]bezier\({_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\)")
_HALVINGS = 48  # of the unit interval: past the precision of what a frame can show


def cubic_bezier(x1: float, y1: float, x2: float, y2: float, u: Array) -> Array:
    """CSS's timing curve through (0, 0), (x1, y1), (x2, y2), (1, 1), at x = u; x1 and x2 in 0..1.

    x is monotone in the curve's parameter, so the parameter is found by bisection.
    """

    def bezier(a: float, b: float, s: Array) -> Array:
        return 3.0 * a * s * (1.0 - s) ** 2 + 3.0 * b * s * s * (1.0 - s) + s**3

    low, high = np.zeros_like(u), np.ones_like(u)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        below = bezier(x1, x2, middle) < u
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    eased = bezier(y1, y2, (low + high) / 2.0)
    return np.where(u <= 0.0, 0.0, np.where(u >= 1.0, 1.0, eased))


@lru_cache(maxsize=256)
def easing(name: str) -> Easing:
    """The function of that name; `in-out` and `ease_in_out` are `in_out`.

    Names: `linear`, `hold` (stay, then jump at the next key), `in | out | in_out`, alone (cubic) or with
    `_quad _cubic _sine _expo _back _bounce _elastic`, and `cubic-bezier(x1, y1, x2, y2)`.

    Raises:
        ConfigError: no such easing; the message has the nearest.
    """
    plain = name.strip().lower()
    if match := _BEZIER.fullmatch(plain):
        x1, y1, x2, y2 = (float(number) for number in match.groups())
        if not (0.0 <= x1 <= 1.0 and 0.0 <= x2 <= 1.0):
            raise ConfigError(f"ease={name!r}: the first and third number of cubic-bezier run from 0 to 1.")
        return partial(cubic_bezier, x1, y1, x2, y2)
    plain = plain.replace("-", "_").removeprefix("ease_")
    if plain not in EASINGS:
        raise unknown_name("easing", name, [*EASINGS, "cubic-bezier(x1, y1, x2, y2)"])
    return EASINGS[plain]
