"""Filters against Chebyshev's polynomial integrated over every cell, and the nearest by search."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.chebyshev import Chebyshev
from scipy.integrate import dblquad
from scipy.optimize import minimize
from torch.testing import assert_close

from pyro_manifolds.ops.filters import (
    circle_filters,
    klein_basis,
    klein_coordinates,
    klein_filters,
    nearest_klein_filters,
    unit_filters,
)

POINTS = [(0.0, 0.0), (0.3, 1.1), (2.0, -2.5), (-4.0, 9.0)]
T1, T2 = Chebyshev([0, 1]), Chebyshev([0, 0, 1])


def points(size, seed=0):
    angles = torch.rand(size, 2, dtype=torch.float64, generator=torch.manual_seed(seed))
    return 20 * (angles - 0.5)


def by_quadrature(t1, t2, size, curve=T2):
    """Integrals over the cells, row 0 at the top, by a rule for two dimensions."""
    edges = np.linspace(-1, 1, size + 1)

    def value(y, x):
        s = x * math.cos(t1) + y * math.sin(t1)
        return math.sin(t2) * T1(s) + math.cos(t2) * curve(s)

    cells = [
        [
            dblquad(value, edges[j], edges[j + 1], edges[i], edges[i + 1], epsabs=1e-14)[0]
            for j in range(size)
        ]
        for i in reversed(range(size))
    ]
    return torch.tensor(cells, dtype=torch.float64)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("size", [3, 5, 7])
def test_filters_are_the_integrals_of_chebyshev_polynomials_over_the_cells(size, point):
    found = klein_filters(torch.tensor(point, dtype=torch.float64), size)
    assert_close(found, by_quadrature(*point, size), atol=1e-12, rtol=0)


def test_three_by_three_by_hand():
    t1, t2 = points(50).unbind(-1)
    i, j = np.meshgrid([-1, 0, 1], [1, 0, -1])
    i, j = torch.tensor(i), torch.tensor(j)
    tau = i * t1[:, None, None].cos() + j * t1[:, None, None].sin()
    edge, line = t2[:, None, None].sin(), t2[:, None, None].cos()
    expected = 8 / 27 * edge * tau + line * (32 / 81 * tau**2 - 100 / 243)
    assert_close(klein_filters(points(50), 3), expected, atol=1e-13, rtol=0)


def moved(x, a, b, sign=1):
    return torch.stack([x[:, 0] + a, sign * x[:, 1] + b], -1)


@pytest.mark.parametrize("size", [3, 5, 11])
def test_the_square_is_glued_to_a_klein_bottle(size):
    x = points(100)
    found = klein_filters(x, size)
    same = [moved(x, math.pi, 0, -1), moved(x, 0, 2 * math.pi), moved(x, 2 * math.pi, 0)]
    for image in same:
        assert_close(klein_filters(image, size), found, atol=1e-13, rtol=0)
    negative = klein_filters(moved(x, 0, math.pi), size)
    assert_close(negative, -found, atol=1e-13, rtol=0)
    for image in (moved(x, 0, 0, -1), moved(x, math.pi, 0)):
        assert (klein_filters(image, size) - found).abs().amax((-2, -1)).median() > 0.01


@pytest.mark.parametrize("size", [3, 5])
def test_published_mistakes_are_other_filters(size):
    """Wrong squares, and half of one angle or the other, miss filters by far."""
    x = points(20)
    right = klein_filters(x, size)
    wrong = torch.stack(
        [by_quadrature(*p, size, lambda s: (2 * s) ** 2 - 1) for p in x[:3].tolist()]
    )
    assert (wrong - right[:3]).abs().amax((-2, -1)).min() > 0.01
    grid = torch.linspace(0, math.pi, 60, dtype=torch.float64)
    whole = torch.cartesian_prod(grid, 2 * grid)
    for kept in (torch.cartesian_prod(grid / 2, 2 * grid), torch.cartesian_prod(grid, grid)):
        cosines = [unit_filters(klein_filters(p, size)).flatten(-2) for p in (whole, kept)]
        worst = (cosines[0] @ cosines[1].mT).amax(-1).min()
        assert worst < 0.8


def test_circle_filters_are_the_edges():
    angles = points(30)[:, 0]
    edges = torch.stack([angles, torch.full_like(angles, math.pi / 2)], -1)
    for size in (3, 7):
        assert_close(circle_filters(angles, size), klein_filters(edges, size), atol=1e-14, rtol=0)


def test_filters_are_combinations_of_five():
    basis = klein_basis(5, torch.zeros((), dtype=torch.float64))
    assert basis.shape == (5, 25)
    assert torch.linalg.matrix_rank(klein_filters(points(40), 5).flatten(-2)) == 5
    assert klein_coordinates(points(40).reshape(8, 5, 2)).shape == (8, 5, 5)


def test_unit_filters_have_mean_zero_and_norm_one():
    unit = unit_filters(torch.randn(6, 2, 5, 5, dtype=torch.float64) + 3)
    assert_close(unit.mean((-2, -1)), torch.zeros(6, 2, dtype=torch.float64))
    assert_close(unit.square().sum((-2, -1)), torch.ones(6, 2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_batches_and_derivatives(dtype):
    x = points(6).to(dtype).reshape(3, 2, 2)
    for found in (klein_filters(x, 5), circle_filters(x[..., 0], 5)):
        assert found.shape == (3, 2, 5, 5)
        assert found.dtype == dtype
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda z: klein_filters(z, 3), x.requires_grad_())


def search(direction, size, rng):
    """Largest cosine from many starts, by a routine that knows nothing of the surface."""

    def loss(z):
        return -float(unit_filters(klein_filters(torch.tensor(z), size)).flatten() @ direction)

    starts = rng.uniform([0, -math.pi], math.pi, (12, 2))
    return max(-minimize(loss, start, tol=1e-12).fun for start in starts)


@pytest.mark.parametrize("size", [3, 5])
def test_the_nearest_filter_is_found(size):
    rng = np.random.default_rng(0)
    filters = torch.tensor(rng.normal(size=(8, size, size)))
    nearest = nearest_klein_filters(filters)
    for i, direction in enumerate(unit_filters(filters).flatten(-2)):
        assert nearest.cosines[i].item() == pytest.approx(search(direction, size, rng), abs=1e-8)
    again = (unit_filters(klein_filters(nearest.points, size)) * unit_filters(filters)).sum(
        (-2, -1)
    )
    assert_close(again, nearest.cosines, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-3), (torch.float64, 1e-7)])
def test_filters_on_the_surface_are_their_own_nearest(dtype, atol):
    x = points(200).to(dtype).reshape(100, 2, 2)
    filters = 3 * klein_filters(x, 5) + 7
    nearest = nearest_klein_filters(filters)
    assert nearest.points.dtype == dtype
    assert nearest.points.shape == (100, 2, 2)
    assert_close(nearest.cosines, torch.ones(100, 2, dtype=dtype), atol=1e-5, rtol=0)
    assert_close(klein_filters(nearest.points, 5), klein_filters(x, 5), atol=atol, rtol=0)
    t1, t2 = nearest.points.unbind(-1)
    assert bool(((t1 >= 0) & (t1 <= math.pi) & (t2.abs() <= math.pi)).all())


def test_sides_may_be_integers_of_numpy():
    assert torch.equal(*[klein_basis(k, torch.zeros(())) for k in (3, np.int64(3))])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"points of shape \(..., 2\), got \(3,\)"):
        klein_filters(torch.zeros(3), 3)
    for size in (4, 1, -3, 3.0):
        with pytest.raises(ValueError, match=f"kernel_size to be odd and at least 3, got {size}"):
            klein_filters(torch.zeros(2), size)
        with pytest.raises(ValueError, match="circle_filters|klein_filters"):
            circle_filters(torch.zeros(2), size)
    with pytest.raises(ValueError, match=r"filters of shape \(..., k, k\), got \(3, 5\)"):
        nearest_klein_filters(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="nearest_klein_filters: expected kernel_size"):
        nearest_klein_filters(torch.zeros(4, 4))
