"""Nearest points of images: convergence, edges, lost rank, and derivatives of the inverse."""

import math

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.ops.gauss_newton import gauss_newton


def surface(z):
    """A bent sheet in four dimensions, with entries of both coordinates."""
    a, b = z.unbind(-1)
    return torch.stack([a, b, a * b, (2 * a).sin()], -1)


def parabola(z):
    return torch.cat([z, z.square()], -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_of_the_image_are_brought_back(dtype):
    torch.manual_seed(0)
    z = torch.rand(3, 50, 2, dtype=dtype)
    found = gauss_newton(surface, z + 0.1 * torch.randn_like(z), surface(z), 8)
    assert found.dtype == dtype
    assert_close(found, z, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_points_beside_the_image_go_to_the_nearest_one():
    y = torch.tensor([0.3, 0.7], dtype=torch.float64)
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64).unsqueeze(-1)
    nearest = grid[(parabola(grid) - y).norm(dim=-1).argmin()]
    found = gauss_newton(parabola, nearest + 0.05, y, 60)
    assert_close(found, nearest, rtol=0, atol=1e-5)  # the spacing of the grid


def test_leading_dimensions_broadcast():
    starts, targets = torch.rand(4, 1, 2), surface(torch.rand(1, 3, 2))
    assert gauss_newton(surface, starts, targets).shape == (4, 3, 2)


def test_steps_are_no_longer_than_asked_and_stay_inside():
    start, target = torch.tensor([0.5]), parabola(torch.tensor([3.0]))
    assert_close(gauss_newton(parabola, start, target, 1), torch.tensor([0.6]))
    found = gauss_newton(parabola, start, target, 9, bounds=(0.0, 1.0))
    assert_close(found, torch.tensor([1.0]), rtol=0, atol=0)


def test_derivative_is_that_of_the_inverse():
    z = torch.tensor([0.3, 0.8], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(surface, z)

    def inverse(y):
        return gauss_newton(surface, z + 0.02, y, 8)

    found = torch.autograd.functional.jacobian(inverse, surface(z))
    assert_close(found, torch.linalg.pinv(jacobian), rtol=0, atol=1e-10)


def test_derivative_by_what_the_map_depends_on_keeps_the_image_in_place():
    """For f = exp(s z), f(z) = y: dz/ds is minus z over s."""
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.4], dtype=torch.float64).exp()
    z = gauss_newton(lambda x: (scale * x).exp(), torch.tensor([0.21]).double(), y, 8)
    z.sum().backward()
    assert_close(z.item(), 0.2)
    assert_close(scale.grad.item(), -0.1)


def test_an_edge_keeps_its_derivative():
    y = parabola(torch.ones(1)).requires_grad_()
    z = gauss_newton(parabola, torch.ones(1), y + 1e-7, 2, bounds=(0.0, 1.0))
    z.sum().backward()
    assert_close(z.item(), 1.0, rtol=0, atol=0)
    assert_close(y.grad, torch.tensor([0.2, 0.4]))


def test_lost_rank_stops_a_direction_and_not_the_others():
    start = torch.tensor([0.3, 0.2])
    found = gauss_newton(
        lambda z: torch.cat([z.sum(-1, keepdim=True), z.sum(-1, keepdim=True)], -1),
        start,
        torch.tensor([0.6, 0.6]),
        3,
    )
    assert found.isfinite().all()
    assert_close(found.sum(), torch.tensor(0.6), rtol=0, atol=1e-3)
    flat = gauss_newton(lambda z: 0 * z, start, torch.ones(2), 3)
    assert_close(flat, start)


def test_it_maps_over_a_batch():
    z = torch.rand(6, 2)
    target, start = surface(z), z + 0.05

    def one(start, target):
        return gauss_newton(surface, start, target, 6, bounds=(0.0, 1.0))

    assert_close(torch.func.vmap(one)(start, target), one(start, target))


def test_a_circle_is_followed_from_afar():
    def circle(z):
        return torch.cat([(2 * math.pi * z).cos(), (2 * math.pi * z).sin()], -1)

    found = gauss_newton(circle, torch.tensor([0.1]), circle(torch.tensor([0.5])), 12)
    assert_close(found, torch.tensor([0.5]))
