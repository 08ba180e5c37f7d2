"""Baselines: densities that integrate to one, and fits that find what they should."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from pyro_manifolds import PowerSpherical
from pyro_manifolds.demo.baselines import (
    PowerSphericalMixture,
    angular_gaussian_log_prob,
    fit_angular_gaussian,
    fit_mixture,
    uniform_log_prob,
)


def circle(n=2000):
    t = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return torch.stack([t.cos(), t.sin()], -1)


def test_densities_integrate_to_one_on_the_circle():
    shape = torch.tensor([[2.0, 0.5], [0.5, 0.3]], dtype=torch.float64)
    mixture = PowerSphericalMixture(circle(3)).double()
    laws = [uniform_log_prob, lambda x: angular_gaussian_log_prob(x, shape)]
    for log_prob in [*laws, mixture.law().log_prob]:
        total = log_prob(circle()).exp().mean() * 2 * math.pi
        torch.testing.assert_close(total.detach(), torch.ones_like(total))


def test_angular_gaussian_is_the_law_of_a_projected_gaussian():
    scale = torch.tensor([3.0, 1.0], dtype=torch.float64)
    x = normalize(torch.randn(200_000, 2, dtype=torch.float64) * scale, dim=-1)
    share = (x[:, 0].abs() > x[:, 1].abs()).double().mean()
    grid = circle(20_000)
    inside = grid[:, 0].abs() > grid[:, 1].abs()
    density = angular_gaussian_log_prob(grid, torch.diag(scale.square())).exp()
    expected = density[inside].sum() * 2 * math.pi / len(grid)
    torch.testing.assert_close(share, expected, atol=0.005, rtol=0)


def test_tylers_shape_is_a_maximum_of_the_likelihood():
    x = normalize(torch.randn(500, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0]), dim=-1)
    shape = fit_angular_gaussian(x).requires_grad_()
    (gradient,) = torch.autograd.grad(angular_gaussian_log_prob(x, shape).mean(), shape)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-8, rtol=0)


def test_mixture_finds_two_clusters():
    poles = torch.eye(4)[:2]
    x = PowerSpherical(poles, 200.0).sample((400,)).flatten(0, 1)
    mixture = fit_mixture(x, 2, steps=100, seed=0)
    found = normalize(mixture.direction.detach(), dim=-1) @ poles.mT
    assert found.amax(0).min() > 0.98
    assert mixture.num_parameters == 2 * 4 + 2 - 1


def test_mixture_is_the_same_for_the_same_seed():
    x = PowerSpherical(torch.eye(3)[0], 3.0).sample((100,))
    first, second = (fit_mixture(x, 2, steps=5, seed=4).direction for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, fit_mixture(x, 2, steps=5, seed=5).direction)


def test_more_components_than_data_are_refused():
    with pytest.raises(ValueError, match="components"):
        fit_mixture(torch.eye(3), 4, steps=1, seed=0)
