"""Clouds laid flat: arcs, discs and squares, with the cut where it belongs; and matchings."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import Circle, Sphere, Torus
from pyro_manifolds.ops.normal_coordinates import match, normal_coordinates, turn_towards


def cloud(manifold, count):
    points = manifold.random_uniform(count, *manifold.event_shape)
    return points.as_subclass(torch.Tensor), manifold.embed(points).as_subclass(torch.Tensor)


def test_circle_is_cut_opposite_the_centre():
    angles, points = cloud(Circle(), 800)
    found = normal_coordinates(points, 1, centre=5).squeeze(-1)
    expected = Circle().logmap(angles[5], angles)
    sign = (found * expected).sum().sign()
    # Near the cut either side is as near as the other.
    inner = expected.abs() < math.pi - 0.05
    assert_close(sign * found[inner], expected[inner], rtol=0.02, atol=0.01)


def test_sphere_is_a_disc_with_true_distances_and_angles():
    _, points = cloud(Sphere(2), 1000)
    found = normal_coordinates(points, 2, centre=0)
    expected = Sphere(2).logmap(points[0], points)
    error = found.norm(dim=-1) / expected.norm(dim=-1).clamp(min=0.1) - 1
    assert error.abs().quantile(0.95) < 0.15
    # Up to a turn or reflection of the plane these are the same vectors, but near the cut.
    inner = expected.norm(dim=-1) < 2.5
    flat = torch.linalg.svd(expected[inner], full_matrices=False)
    plane = expected[inner] @ flat.Vh[:2].mT
    u, _, v = torch.linalg.svd(found[inner].mT @ plane)
    misfit = (found[inner] @ (u @ v) - plane).norm(dim=-1)
    assert misfit.median() < 0.15


def test_torus_becomes_a_square_that_turns_onto_the_unit_square():
    _, points = cloud(Torus(2), 1000)
    flat = normal_coordinates(points, 2)
    square = torch.rand(1000, 2)
    turned = turn_towards(flat, square)
    moved = (match(turned, square) - turned).norm(dim=-1)
    assert moved.mean() < 0.06
    diagonal = (turned - 0.5) @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) * 0.5**0.5 + 0.5
    assert (match(diagonal, square) - diagonal).norm(dim=-1).mean() > 1.2 * moved.mean()


def test_uneven_curves_get_more_neighbours_and_pieces_are_refused():
    near = torch.linspace(0, 1e-3, 20)
    x = torch.cat([near, torch.linspace(1e-2, 1, 80), 1 + near])
    line = torch.stack([x, torch.zeros_like(x)], -1)
    found = normal_coordinates(line, 1, centre=0, neighbours=8)
    assert_close(found.squeeze(-1).abs(), x, rtol=0.02, atol=1e-4)
    with pytest.raises(ValueError, match="one connected manifold"):
        normal_coordinates(torch.cat([line, line + 50]), 1, neighbours=3)
    with pytest.raises(ValueError, match="expected more than 30 points, got 20"):
        normal_coordinates(line[:20], 1)


def test_equal_points_are_no_obstacle():
    x = torch.linspace(0, 1, 60).repeat_interleave(2).unsqueeze(-1)
    assert_close(normal_coordinates(x, 1).abs(), x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dim", [1, 2])
def test_matching_is_the_best_of_all_permutations(dim):
    torch.manual_seed(0)
    points, targets = torch.randn(6, dim), torch.rand(6, dim)
    matched = match(points, targets)
    assert {tuple(row) for row in matched.tolist()} == {tuple(row) for row in targets.tolist()}
    orders = list(itertools.permutations(range(6)))
    costs = (targets[torch.tensor(orders)] - points).square().sum((-1, -2))
    assert_close((matched - points).square().sum(), costs.min())


def test_a_turned_cloud_turns_back():
    torch.manual_seed(0)
    targets = torch.rand(500, 2) * torch.tensor([1.0, 0.4])
    angle = torch.tensor(0.7)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    found = turn_towards(3 * (targets @ turn) + 5, targets)
    # A half turn or a reflection of a rectangle is as good.
    spread = (found - found.mean(0)).square().mean(0)
    assert_close(spread, (targets - targets.mean(0)).square().mean(0), rtol=0.05, atol=0)
