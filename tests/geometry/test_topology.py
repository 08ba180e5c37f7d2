"""Topology by persistent homology: spaces of known Betti numbers, and the scale of the score."""

import functools
import math
import sys

import pytest
import torch

from pyro_manifolds.geometry import (
    betti_numbers,
    farthest_point_indices,
    persistence,
    topology_score,
)

KLEIN = torch.tensor([math.pi, 2 * math.pi], dtype=torch.float64)


def uniform(num, seed, dim=2):
    return torch.rand(num, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def torus_distances(x, y):
    gap = (x[:, None] - y).abs() % (2 * math.pi)
    return torch.minimum(gap, 2 * math.pi - gap).norm(dim=-1)


def klein_distances(x):
    """Distance on the Klein bottle: the smaller one over both lifts to the torus."""
    twin = torch.stack([x[:, 0] + math.pi, -x[:, 1]], -1)
    return torch.minimum(torus_distances(x, x), torus_distances(x, twin))


def thinned(distances, num):
    index = farthest_point_indices(distances, num)
    return distances[index][:, index]


@functools.cache
def even_klein_points(num, seed=0):
    x = uniform(1500, seed) * KLEIN
    return x[farthest_point_indices(klein_distances(x), num)]


def square(num, seed=1):
    x = uniform(num, seed)
    return torch.cdist(x, x)


@pytest.mark.parametrize(("coeff", "betti"), [(2, (1, 2, 1)), (3, (1, 1, 0))])
def test_klein_bottle_has_its_betti_numbers(coeff, betti):
    distances = klein_distances(even_klein_points(250))
    assert betti_numbers(distances, coeff=coeff, scale=0.8) == betti


@pytest.mark.parametrize("coeff", [2, 3])
def test_torus_has_its_betti_numbers_over_both_fields(coeff):
    x = uniform(1500, 2) * 2 * math.pi
    distances = thinned(torus_distances(x, x), 250)
    assert betti_numbers(distances, coeff=coeff, scale=1.1) == (1, 2, 1)


@pytest.mark.parametrize(("coeff", "betti"), [(2, (1, 1, 1)), (3, (1, 0, 0))])
def test_projective_plane_has_its_betti_numbers(coeff, betti):
    x = torch.nn.functional.normalize(uniform(1500, 3, dim=3) - 0.5, dim=-1)
    distances = thinned((x @ x.mT).abs().clamp(max=1.0).arccos().fill_diagonal_(0.0), 200)
    assert betti_numbers(distances, coeff=coeff, scale=0.7) == betti


def test_a_square_is_contractible_and_two_squares_have_two_components():
    distances = thinned(square(1500), 100)
    assert betti_numbers(distances, scale=0.3) == (1, 0, 0)
    apart = torch.full_like(distances, 5.0)
    both = torch.cat([torch.cat([distances, apart], 1), torch.cat([apart, distances], 1)])
    assert betti_numbers(both, scale=0.3) == (2, 0, 0)
    assert betti_numbers(both, scale=6.0, maxdim=1) == (1, 0)


def test_regular_polygon_has_one_loop_of_known_birth_and_death():
    # The loop is born at the side and dies when 20 points jump a third of the circle.
    angle = torch.arange(21, dtype=torch.float64) * 2 * math.pi / 21
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    components, loops = persistence(torch.cdist(circle, circle), maxdim=1)
    expected = torch.tensor([[2 * math.sin(math.pi / 21), math.sqrt(3)]], dtype=torch.float64)
    torch.testing.assert_close(loops, expected, atol=1e-6, rtol=0)
    assert components.shape == (21, 2)
    assert components[:, 1].isinf().sum() == 1


def test_betti_numbers_count_the_bars_of_the_whole_filtration():
    distances = klein_distances(even_klein_points(70))
    diagrams = persistence(distances, coeff=3)
    for scale in (0.4, 0.9, 1.3):
        alive = [int(((d[:, 0] <= scale) & (d[:, 1] > scale)).sum()) for d in diagrams]
        assert betti_numbers(distances, coeff=3, scale=scale) == tuple(alive)


def test_each_farthest_point_is_farthest_from_those_before_it():
    x = uniform(60, 4)
    distances = torch.cdist(x, x)
    index = farthest_point_indices(distances, 20, start=7)
    assert index[0] == 7
    for k in range(1, 20):
        nearest = distances[:, index[:k]].amin(1)
        assert nearest[index[k]] == nearest.max()


def test_farthest_points_are_distinct_even_among_coincident_points():
    assert farthest_point_indices(torch.zeros(5, 5), 5).sort().values.tolist() == [0, 1, 2, 3, 4]


def test_score_is_near_zero_between_two_uniform_samples():
    first, second = (klein_distances(uniform(150, seed) * KLEIN) for seed in (5, 6))
    score = topology_score(first, second)
    assert 0.005 < score.mean < 0.06
    assert score.mean == pytest.approx(sum(score[1:]) / 4)


def test_score_is_smaller_between_two_even_samples():
    first, second = (klein_distances(even_klein_points(100, seed)) for seed in (5, 6))
    assert topology_score(first, second).mean < 0.03


def test_score_of_a_contractible_cloud_is_large():
    score = topology_score(thinned(square(1500), 100), klein_distances(even_klein_points(100)))
    assert 0.15 < score.mean < 0.20
    assert score.h2_z2 > score.h2_z3 + 0.03  # the bottle has no true void over three elements


def test_score_sees_a_klein_bottle_read_on_its_covering_torus():
    x = even_klein_points(100)
    assert topology_score(torus_distances(x, x), klein_distances(x)).mean > 0.1


def test_score_ignores_order_and_scale_and_vanishes_on_equal_spaces():
    distances = klein_distances(even_klein_points(60))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    score = topology_score(7 * distances[order][:, order], distances)
    assert score.mean == pytest.approx(0.0, abs=1e-6)


def test_score_divides_by_the_90_percent_quantile_of_nonzero_distances():
    angle = torch.arange(30, dtype=torch.float64) * 2 * math.pi / 30
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    ellipse = circle * torch.tensor([3.0, 2.0])
    clouds = [torch.cdist(x, x) for x in (circle, ellipse)]
    units = [d[d > 1e-9].quantile(0.9) for d in clouds]
    bars = [persistence(d, maxdim=1)[1][0] / unit for d, unit in zip(clouds, units, strict=True)]
    expected = float((bars[0] - bars[1]).abs().max())  # one loop each, and far from the diagonal
    assert expected > 0.01
    assert topology_score(*clouds).h1_z2 == pytest.approx(expected, abs=1e-6)


LINE = (torch.arange(5.0)[:, None] - torch.arange(5.0)).abs()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: persistence(LINE[:3]), r"square matrix of distances, got shape \(3, 5\)"),
        (lambda: persistence(LINE[0]), r"square matrix of distances, got shape \(5,\)"),
        (lambda: persistence(LINE.triu()), "symmetric"),
        (lambda: persistence(LINE + 1), "zero diagonal"),
        (lambda: persistence(LINE * math.nan), "finite"),
        (lambda: persistence(-LINE), ">= 0"),
        (lambda: persistence(LINE, coeff=4), "prime coeff, got 4"),
        (lambda: persistence(LINE, maxdim=-1), "maxdim >= 0, got -1"),
        (lambda: persistence(LINE, max_scale=-1.0), "max_scale >= 0"),
        (lambda: betti_numbers(LINE, scale=0.0), "positive finite scale"),
        (lambda: betti_numbers(LINE, scale=math.inf), "positive finite scale"),
        (lambda: farthest_point_indices(LINE, 6), "1 <= n <= 5"),
        (lambda: farthest_point_indices(LINE, 2, start=5), "start = 5"),
        (lambda: topology_score(LINE, LINE[:3]), "distances_truth.*square"),
        (lambda: topology_score(torch.zeros(4, 4), LINE), "distances_code.*two distinct"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("package", "call"),
    [("ripser", lambda: persistence(LINE)), ("persim", lambda: topology_score(LINE, LINE))],
)
def test_missing_packages_name_the_extra(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}; pip install pyro-manifolds\[topology\]"):
        call()
