"""The values of keys on the frames where they live: numbers, and formulas and functions frame by frame.

A formula that stands at many keys is evaluated once, on all of its frames together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError
from kinema.story.expressions import Expression, Scope
from kinema.story.keyed import Array, Key
from kinema.story.schedule_text import Value


def live_values(
    keys: Sequence[Key[Value]], frame_K: NDArray[np.intp], left_F: NDArray[np.intp], scope: Scope
) -> tuple[Array, Array]:
    """What every frame has of the key that it lies after, and what every key has at its own frame.

    Args:
        keys: by frame.
        frame_K: the frame of each of them; the last one may lie past the end.
        left_F: the key before each frame.
        scope: of the clip.

    Returns:
        float64 `[F]` and `[K]`; frames before the first key have its value.

    Raises:
        ConfigError: a value that is not finite; the key and the frame are named.
    """
    frames = len(left_F)
    first_K = np.array([key.value if isinstance(key.value, float) else np.nan for key in keys])
    value_F = first_K[left_F]
    for group_K in _groups(keys):
        mine_K = np.zeros(len(keys), dtype=bool)
        mine_K[group_K] = True
        live_N = frame_K[0] + np.flatnonzero(mine_K[left_F[frame_K[0] :]])
        beyond_N = frame_K[group_K][frame_K[group_K] >= frames]
        at_N = np.concatenate([live_N, beyond_N])
        owner_N = np.concatenate([left_F[live_N], group_K[frame_K[group_K] >= frames]])
        value_N = _evaluated([keys[k] for k in group_K], at_N, scope)
        if not np.isfinite(value_N).all():
            raise _not_finite(keys, owner_N, at_N, value_N)
        value_F[live_N] = value_N[: len(live_N)]
        own_N = at_N == frame_K[owner_N]
        first_K[owner_N[own_N]] = value_N[own_N]
    value_F[: frame_K[0]] = first_K[0]
    return value_F, first_K


def _groups(keys: Sequence[Key[Value]]) -> Iterator[NDArray[np.intp]]:
    """The keys that are not numbers, those with the same value together."""
    found: dict[object, list[int]] = {}
    for k, key in enumerate(keys):
        if isinstance(key.value, Expression):
            found.setdefault(key.value.text, []).append(k)
        elif not isinstance(key.value, float):
            found.setdefault(key.value, []).append(k)
    for group in found.values():
        yield np.array(group)


def _evaluated(keys: Sequence[Key[Value]], at_N: NDArray[np.intp], scope: Scope) -> Array:
    value = keys[0].value
    if isinstance(value, Expression):
        return value.raw(scope.at(at_N), len(at_N))
    assert callable(value)
    return np.array([_called(value, int(frame)) for frame in at_N])


def _called(function: Callable[[int], float], frame: int) -> float:
    value = function(frame)
    if not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise ConfigError(f"the function gives {value!r} at frame {frame}; it must give a finite number.")
    return float(value)


def _not_finite(
    keys: Sequence[Key[Value]], owner_N: NDArray[np.intp], at_N: NDArray[np.intp], value_N: Array
) -> ConfigError:
    """The error about the first frame whose value is not finite."""
    bad_N = np.flatnonzero(~np.isfinite(value_N))
    first = int(bad_N[np.argmin(at_N[bad_N])])
    value = keys[int(owner_N[first])].value
    assert isinstance(value, Expression)
    return value.not_finite(float(value_N[first]), int(at_N[first]))
