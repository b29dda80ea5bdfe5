"""Splines: exact on the polynomials of their degree, through every point, and as smooth as they must be."""

import numpy as np
import pytest

from kinema.story.splines import spline


@pytest.mark.parametrize("degree", [2, 3])
def test_polynomials_of_the_degree_are_met_everywhere(degree):
    x = np.array([0.0, 1, 4, 9, 10, 30, 60])
    at = np.linspace(0, 60, 200)
    polynomial = np.polynomial.Polynomial([3.0, -1.0, 0.5, -0.02][: degree + 1])
    np.testing.assert_allclose(spline(x, polynomial(x), at, degree), polynomial(at), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("degree", [2, 3])
def test_points_are_met_and_slopes_do_not_jump(degree):
    x = np.cumsum(np.random.default_rng(0).integers(1, 9, 300)).astype(float)
    y = np.random.default_rng(1).normal(size=300)
    np.testing.assert_allclose(spline(x, y, x, degree), y, atol=1e-9)
    inner, h = x[5:-5], 1e-4
    left = (spline(x, y, inner, degree) - spline(x, y, inner - h, degree)) / h
    right = (spline(x, y, inner + h, degree) - spline(x, y, inner, degree)) / h
    np.testing.assert_allclose(left, right, atol=0.02)


def test_too_few_points():
    with pytest.raises(ValueError, match="needs 4 points, not 3"):
        spline(np.arange(3.0), np.arange(3.0), np.array([1.5]), 3)
