import itertools
import math
from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from pyro_manifolds.ops.projected_normal import (
    kl_to_uniform,
    log_radial_integral,
    mean_resultant,
)

DOUBLE = torch.float64
DIMS = [2, 3, 16, 128, 1024]


def double(x, **kwargs):
    return torch.tensor(x, dtype=DOUBLE, **kwargs)


@cache
def exact_log_radial(t, dim):
    """Log of J(t) / J(0) and its derivative, by adaptive quadrature in 25 digits."""
    with mpmath.workdps(25):
        t, half = mpmath.mpf(t), mpmath.mpf(dim) / 2
        peak = (t + mpmath.sqrt(t * t + 4 * (dim - 1))) / 2
        width = 1 / mpmath.sqrt(1 + (dim - 1) / peak**2)

        def log_integrand(s):
            return (dim - 1) * mpmath.log(s) - (s - t) ** 2 / 2

        def moment(order):
            top = log_integrand(peak)
            stops = [peak + k * width for k in (-20, -8, -3, 0, 3, 8, 20, 60, 150)]
            stops = [max(s, 0) for s in stops]
            return mpmath.quad(
                lambda s: s**order * mpmath.exp(log_integrand(s) - top) if s else mpmath.mpf(0),
                [low for low, high in itertools.pairwise(stops) if low < high] + stops[-1:],
            )

        total = moment(0)
        value = log_integrand(peak) + mpmath.log(total)
        value -= (half - 1) * mpmath.log(2) + mpmath.loggamma(half)
        return float(value), float(moment(1) / total - t)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_radial_integral_agrees_with_adaptive_quadrature(dim, dtype):
    along = [-1000.0, -40.0, -3.0, -0.5, 0.0, 0.25, 2.0, 4.5, 5.5, 9.0, 1000.0]
    along = torch.tensor(along, dtype=dtype, requires_grad=True)
    exact = [exact_log_radial(t.item(), dim) for t in along.detach()]
    values, slopes = torch.tensor(exact, dtype=DOUBLE).unbind(-1)
    found = log_radial_integral(along, dim)
    single = dtype == torch.float32
    # At d = 2 the integrand is most lopsided: its tail has 40 times the width of its peak.
    tolerance = {"rtol": 1.2e-7, "atol": 3e-7} if single else {"rtol": 1e-14, "atol": 1e-12}
    assert_close(found.double(), values, **tolerance)
    tolerance = {"rtol": 2e-6, "atol": 1e-7} if single else {"rtol": 1e-11, "atol": 0}
    assert_close(grad(found.sum(), along)[0].double(), slopes, **tolerance)


@pytest.mark.parametrize("dim", DIMS)
def test_mean_resultant_agrees_with_the_hypergeometric_function(dim):
    lengths = [1e-6, 0.01, 0.7, 2.0, 4.0, 9.0, 30.0, 1000.0]
    with mpmath.workdps(30):
        half = mpmath.mpf(dim) / 2
        factor = mpmath.gammaprod([half + 0.5], [half + 1]) / mpmath.sqrt(2)
        exact = [
            float(factor * k * mpmath.hyp1f1(0.5, half + 1, -(mpmath.mpf(k) ** 2) / 2))
            for k in lengths
        ]
    assert_close(mean_resultant(double(lengths), dim), double(exact), rtol=1e-13, atol=0)
    found = mean_resultant(torch.tensor(lengths), dim)
    assert_close(found, torch.tensor(exact), rtol=2e-7, atol=0)


def log_density(t, dim):
    """Log of J(t) / J(0) by the parabolic cylinder function."""
    with mpmath.workdps(25):
        t, half = mpmath.mpf(t), mpmath.mpf(dim) / 2
        log_j = mpmath.loggamma(dim) - t * t / 4 + mpmath.log(mpmath.pcfd(-dim, -t))
        return float(log_j - (half - 1) * mpmath.log(2) - mpmath.loggamma(half))


def meridian(dim, length, nodes=120):
    """KL by the rule of Gauss and Legendre over the angle, with densities by mpmath."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    # Cut off where less than e^-36 is left.
    stop = math.pi if length < 20 else (9 + math.sqrt(dim)) / length
    angle, w = (x + 1) * stop / 2, w * stop / 2
    area = math.lgamma(dim / 2) - math.lgamma((dim - 1) / 2) - 0.5 * math.log(math.pi)
    log_ratio = np.array([log_density(length * math.cos(a), dim) for a in angle])
    log_ratio -= (length * np.sin(angle)) ** 2 / 2
    mass = np.exp(log_ratio + (dim - 2) * np.log(np.sin(angle)) + area) * w
    assert abs(mass.sum() - 1) < 1e-10
    return (mass * log_ratio).sum()


@pytest.mark.parametrize("dim", [2, 3, 16])
@pytest.mark.parametrize("length", [0.1, 0.99, 1.01, 5.0, 300.0])
def test_divergence_agrees_with_quadrature(dim, length):
    expected = meridian(dim, length)
    found = kl_to_uniform(double(length), dim)
    assert_close(found.item(), expected, rtol=1e-9, atol=1e-11)
    found = kl_to_uniform(torch.tensor(length), dim)
    assert_close(found.item(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("dim", "length", "expected"), [(3, 2, 1.17149112282902), (16, 3, 3.50950203147114)]
)
def test_known_divergences(dim, length, expected):
    assert_close(kl_to_uniform(double(float(length)), dim).item(), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_small_divergences_keep_their_relative_precision(dim, dtype):
    """Their series starts with the Fisher information of the length at zero, over two."""
    length = torch.tensor([1e-5, 1e-4, 1e-3], dtype=dtype, requires_grad=True)
    with mpmath.workdps(30):
        half = mpmath.mpf(dim) / 2
        mean_length = math.sqrt(2) * float(mpmath.gammaprod([half + 0.5], [half]))
    expected = (0.5 * mean_length**2 / dim) * length.detach() ** 2
    found = kl_to_uniform(length, dim)
    # Terms of higher order in the length, and float32 constants of the sum.
    tolerance = {"rtol": 2e-6, "atol": 0}
    assert_close(found, expected, **tolerance)
    assert_close(grad(found.sum(), length)[0], 2 * expected / length.detach(), **tolerance)
    assert not kl_to_uniform(length.new_zeros(()), dim) < 0


@pytest.mark.parametrize("dim", [2, 3, 100])
def test_derivatives_of_first_and_second_order(dim):
    along = double([-20.0, -0.5, 0.0, 3.0, 25.0], requires_grad=True)
    length = double([0.0, 0.4, 3.0, 40.0], requires_grad=True)
    for function, x in [
        (log_radial_integral, along),
        (kl_to_uniform, length),
        (mean_resultant, length),
    ]:
        assert gradcheck(lambda x, f=function: f(x, dim), [x])
        assert gradgradcheck(lambda x, f=function: f(x, dim), [x])


def test_third_derivative_of_the_radial_integral():
    """Third central moment of the length, by the moments at zero of a chi variable."""
    along = double(0.0, requires_grad=True)
    value = log_radial_integral(along, 3)
    for _ in range(3):
        (value,) = grad(value, along, create_graph=True)
    mean, square, cube = math.sqrt(8 / math.pi), 3, 8 * math.sqrt(2 / math.pi)
    assert_close(value.item(), cube - 3 * mean * square + 2 * mean**3, rtol=1e-11, atol=0)


def test_vmap_of_derivatives():
    along = double([-3.0, 0.0, 2.0])

    def function(t):
        return log_radial_integral(t, 4)

    leaf = along.clone().requires_grad_()
    (first,) = grad(function(leaf).sum(), leaf, create_graph=True)
    (second,) = grad(first.sum(), leaf)
    slope = torch.func.grad(function)
    assert_close(torch.vmap(slope)(along), first.detach())
    assert_close(torch.vmap(torch.func.grad(slope))(along), second)


def test_blocks_change_nothing():
    along = torch.linspace(-5, 5, 2002, dtype=DOUBLE).reshape(2, 7, 143)
    one_by_one = torch.stack([log_radial_integral(t, 3) for t in along.flatten()[::97]])
    assert_close(log_radial_integral(along, 3).flatten()[::97], one_by_one, rtol=1e-14, atol=1e-15)
