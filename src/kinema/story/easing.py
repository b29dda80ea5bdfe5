"""Easing: how a value travels from one key to the next, `e(u)` with `e(0) = 0` and `e(1) = 1` for u in 0..1.

The shapes are Penner's (Robert Penner, "Programming Macromedia Flash MX", 2002; easings.net has the same
curves), whose `in_out` of `back` overshoots 1.525 times as far and of `elastic` swings 1.5 times as slowly,
CSS's `cubic-bezier` and `steps`, and a damped spring that is let go:

    spring(z, n):   e(u) = (1 - d(u)) / (1 - d(1)),   d(u) = exp(-z w u) (cos(r u) + z w / r sin(r u)),
                    r = 2 pi n,  w = r / sqrt(1 - z^2)

for damping z in 0..1 and n swings. `back`, `elastic`, `spring` and some Bezier curves overshoot the 0..1
range on purpose; what cannot overshoot clips it.
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
    return np.where(u <= 0.0, 0.0, 2.0 ** (10.0 * u - 10.0))


_OVERSHOOT = 1.70158  # 10 % past the end


def _back(u: Array, overshoot: float = _OVERSHOOT) -> Array:
    return u * u * ((overshoot + 1.0) * u - overshoot)


def _elastic(u: Array, period: float = 0.3) -> Array:
    """Swings that grow tenfold every third of the way and are at their top, 1, at the end."""
    wave = -(2.0 ** (10.0 * u - 10.0)) * np.sin((u - 1.0 - period / 4.0) * 2.0 * np.pi / period)
    return np.where(u <= 0.0, 0.0, np.where(u >= 1.0, 1.0, wave))


def _bounce(u: Array) -> Array:
    """Four parabolas of falling height, played backwards."""
    x = 2.75 * (1.0 - u)
    height = x * x
    for start, centre, base in ((1.0, 1.5, 0.75), (2.0, 2.25, 0.9375), (2.5, 2.625, 0.984375)):
        height = np.where(x >= start, (x - centre) ** 2 + base, height)
    return 1.0 - height


def _circ(u: Array) -> Array:
    return 1.0 - np.sqrt(np.maximum(1.0 - u * u, 0.0))


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


def _smooth(u: Array) -> Array:
    return u * u * (3.0 - 2.0 * u)


def steps(count: int, u: Array) -> Array:
    """`count` equal jumps, the last one at the end (CSS's `steps(count, end)`)."""
    return np.where(u >= 1.0, 1.0, np.floor(u * count + 1e-9) / count)


def spring(damping: float, swings: float, u: Array) -> Array:
    """A spring let go at 0 that swings about 1; damping in 0..1, both ends exact."""
    r = 2.0 * np.pi * swings
    decay = damping / np.sqrt(1.0 - damping * damping) * r

    def away(u: Array | float) -> Array:
        return np.asarray(np.exp(-decay * u) * (np.cos(r * u) + decay / r * np.sin(r * u)))

    eased = (1.0 - away(u)) / (1.0 - away(1.0))
    return np.where(u <= 0.0, 0.0, np.where(u >= 1.0, 1.0, eased))


_SHAPES: Mapping[str, Easing] = {
    "quad": partial(_power, exponent=2),
    "cubic": partial(_power, exponent=3),
    "quart": partial(_power, exponent=4),
    "quint": partial(_power, exponent=5),
    "circ": _circ,
    "sine": _sine,
    "expo": _expo,
    "back": _back,
    "bounce": _bounce,
    "elastic": _elastic,
}
_TWO_SIDED: Mapping[str, Easing] = {
    **_SHAPES,
    "back": partial(_back, overshoot=1.525 * _OVERSHOOT),
    "elastic": partial(_elastic, period=0.45),
}
_DIRECTIONS: Mapping[str, Callable[[Easing, Array], Array]] = {"in": _in, "out": _out, "in_out": _in_out}

EASINGS: Mapping[str, Easing] = {
    "linear": _linear,
    "hold": _hold,
    "smooth": _smooth,
    **{direction: partial(way, _SHAPES["cubic"]) for direction, way in _DIRECTIONS.items()},
    **{
        f"{direction}_{name}": partial(way, (_TWO_SIDED if way is _in_out else _SHAPES)[name])
        for name in _SHAPES
        for direction, way in _DIRECTIONS.items()
    },
}

_NUMBER = r"\s*([+-]?(?:\d{1,6}\.?\d{0,12}|\.\d{1,12}))\s*"
_BEZIER = re.compile(rf"cubic[-_]bezier\({_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\)")
_CALL = re.compile(r"(spring|steps)(?:\(([^()]*)\))?")
_SPRING = (0.3, 3.0)
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


def _camel(name: str) -> str:
    """`easeInOutCubic` as `in_out_cubic`."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower().replace("-", "_")
    return plain.removeprefix("ease_")


@lru_cache(maxsize=256)
def easing(name: str) -> Easing:
    """The function of that name; `in-out`, `ease_in_out` and `easeInOut` are `in_out`.

    Names: `linear`, `smooth`, `hold` (stay, then jump at the next key), `in | out | in_out`, alone (cubic) or
    with `_quad _cubic _quart _quint _sine _expo _circ _back _bounce _elastic`, `steps(4)`,
    `spring(damping, swings)` or `spring` for (0.3, 3), CSS's `ease` and `cubic-bezier(x1, y1, x2, y2)`.

    Raises:
        ConfigError: no such easing; the message has the nearest.
    """
    plain = name.strip().lower()
    if plain == "ease":
        return partial(cubic_bezier, 0.25, 0.1, 0.25, 1.0)
    if match := _BEZIER.fullmatch(plain):
        x1, y1, x2, y2 = (float(number) for number in match.groups())
        if not (0.0 <= x1 <= 1.0 and 0.0 <= x2 <= 1.0):
            raise ConfigError(f"ease={name!r}: the first and third number of cubic-bezier run from 0 to 1.")
        return partial(cubic_bezier, x1, y1, x2, y2)
    if match := _CALL.fullmatch(plain):
        return _with_numbers(name, match[1], match[2])
    plain = _camel(name)
    if plain not in EASINGS:
        others = ["ease", "steps(4)", "spring(0.3, 3)", "cubic-bezier(x1, y1, x2, y2)"]
        raise unknown_name("easing", name, [*EASINGS, *others])
    return EASINGS[plain]


def _with_numbers(name: str, kind: str, written: str | None) -> Easing:
    """`steps(n)` and `spring(damping, swings)`."""
    numbers = [part.strip() for part in (written or "").split(",") if part.strip()]
    if not all(re.fullmatch(_NUMBER, number) for number in numbers):
        raise ConfigError(f"ease={name!r}: {kind} takes plain numbers, such as steps(4) or spring(0.3, 3).")
    values = [float(number) for number in numbers]
    if kind == "steps":
        if len(values) != 1 or values[0] != round(values[0]) or not 1 <= values[0] <= 10_000:
            raise ConfigError(f"ease={name!r}: steps takes one whole number, 1 to 10000, such as steps(4).")
        return partial(steps, int(values[0]))
    damping, swings = (*values, *_SPRING[len(values) :])[:2]
    if len(values) > 2 or not (0.01 <= damping <= 0.99 and 0.1 <= swings <= 100.0):
        raise ConfigError(
            f"ease={name!r}: spring takes its damping, 0.01 to 0.99, and its swings, 0.1 to 100, as in "
            "spring(0.3, 3)."
        )
    return partial(spring, damping, swings)
