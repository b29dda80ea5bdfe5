"""Quadratic and cubic splines through given points, as B-splines: `y(x) = sum_i c_i N_i,k(x)`.

Knots lie at the points (cubic, without the second and the last but one: "not a knot") or half way between
them (quadratic), so that there are as many coefficients as points. (C. de Boor, A Practical Guide to
Splines, 1978.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def spline(x_N: Array, y_N: Array, at_M: Array, degree: int) -> Array:
    """The spline's values `[M]` at `at_M`.

    Args:
        x_N: where the points are, rising; at least `degree + 1`.
        y_N: their values.
        at_M: between the first and the last of `x_N`.
        degree: 2 or 3.

    Raises:
        ValueError: too few points.
    """
    if len(x_N) <= degree:
        raise ValueError(f"a spline of degree {degree} needs {degree + 1} points, not {len(x_N)}")
    knots = _knots(x_N, degree)
    first_N, basis_NK = _basis(knots, x_N, degree)
    c_N = _solve(first_N, basis_NK, y_N)
    first_M, basis_MK = _basis(knots, np.asarray(at_M, np.float64), degree)
    return np.sum(basis_MK * c_N[first_M[:, None] + np.arange(degree + 1)], axis=1)


def _knots(x_N: Array, degree: int) -> Array:
    inner = x_N[2:-2] if degree == 3 else ((x_N[1:] + x_N[:-1]) / 2)[1:-1]
    return np.concatenate([np.full(degree + 1, x_N[0]), inner, np.full(degree + 1, x_N[-1])])


def _basis(knots: Array, x_M: Array, degree: int) -> tuple[NDArray[np.intp], Array]:
    """For each x, which basis function is its first non-zero one, and the `degree + 1` values from there."""
    count = len(knots) - degree - 1
    span_M = np.clip(np.searchsorted(knots, x_M, side="right") - 1, degree, count - 1)
    basis_MK = np.zeros((len(x_M), degree + 1))
    basis_MK[:, 0] = 1.0
    for order in range(1, degree + 1):
        carried_M = np.zeros(len(x_M))
        for r in range(order):
            right_M, left_M = knots[span_M + r + 1], knots[span_M + r + 1 - order]
            share_M = basis_MK[:, r] / (right_M - left_M)
            basis_MK[:, r] = carried_M + (right_M - x_M) * share_M
            carried_M = (x_M - left_M) * share_M
        basis_MK[:, order] = carried_M
    return span_M - degree, basis_MK


def _solve(first_N: NDArray[np.intp], basis_NK: Array, y_N: Array) -> Array:
    """Coefficients of the banded collocation system; totally positive, so that no pivot is needed."""
    width = basis_NK.shape[1]
    band = np.zeros((len(y_N), 2 * width + 1))  # row i holds columns i - width .. i + width
    for row, (first, values_K) in enumerate(zip(first_N, basis_NK, strict=True)):
        start = int(first) - row + width
        band[row, start : start + width] = values_K
    y_N = y_N.astype(np.float64)
    for row in range(len(y_N)):
        for below in range(row + 1, min(row + width, len(y_N))):
            factor = band[below, row - below + width] / band[row, width]
            if factor != 0.0:
                shift = below - row
                band[below, : 2 * width + 1 - shift] -= factor * band[row, shift:]
                y_N[below] -= factor * y_N[row]
    for row in reversed(range(len(y_N))):
        columns = np.arange(row + 1, min(row + width + 1, len(y_N)))
        y_N[row] = (y_N[row] - band[row, columns - row + width] @ y_N[columns]) / band[row, width]
    return y_N
