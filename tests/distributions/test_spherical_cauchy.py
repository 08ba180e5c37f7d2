"""Spherical Cauchy law: vectors, series at 40 digits, Moebius maps, extremes."""

import math

import mpmath
import pytest
import torch
from torch.autograd import gradcheck
from torch.distributions import kl_divergence
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyro_manifolds import ManifoldUniform, Sphere, SphericalCauchy
from pyro_manifolds.ops.spherical_cauchy import kl_spherical_cauchy, kl_to_uniform, mean_resultant
from pyro_manifolds.testing import assert_mean

DOUBLE = torch.float64
DIMS = [2, 3, 4, 5, 6, 16, 33, 128, 1024]

# Ambient dimension, concentration, mean resultant length, divergence to uniform, and the
# log-density at the location and opposite of it.
VECTORS = [
    (2, 0.5, 0.5, 0.287682072451781, -0.739264777741236, -2.93648935507746),
    (3, 0.9, 0.97274868915188, 3.92159394699029, 3.35785371136359, -8.41990220530217),
    (5, 0.7, 0.898253584943172, 3.8265463604686, 3.6681151968419, -10.208693246263),
    (128, 0.5, 0.79771593550045, 64.5549707263392, 266.57721718524, -12.47030413649),
]


def axis(dim, dtype=DOUBLE):
    return torch.eye(dim, dtype=dtype)[0]


def by_quadrature(rho, dim):
    """Mean resultant length and divergence to uniform, at 30 digits, from the definition."""
    with mpmath.workdps(30):
        rho, half = mpmath.mpf(rho), mpmath.mpf(dim) / 2
        weight = mpmath.gamma(half) / (mpmath.sqrt(mpmath.pi) * mpmath.gamma(half - 0.5))

        def height(angle):
            return (dim - 1) * mpmath.log(
                (1 - rho**2) / (1 + rho**2 - 2 * rho * mpmath.cos(angle))
            )

        def mean(f):
            def integrand(angle):
                return f(angle) * mpmath.exp(height(angle)) * mpmath.sin(angle) ** (dim - 2)

            # Finer towards the location, round which the mass lies.
            parts = [0] + [mpmath.pi / 2**k for k in range(24, -1, -1)]
            return weight * mpmath.quad(integrand, parts)

        return float(mean(mpmath.cos)), float(mean(height))


@pytest.mark.parametrize(("dim", "rho", "resultant", "kl", "at_loc", "opposite"), VECTORS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_vectors(dim, rho, resultant, kl, at_loc, opposite, dtype):
    loc = axis(dim, dtype)
    d = SphericalCauchy(loc, rho)
    found = torch.stack([d.mean_resultant, d.kl_to_uniform(), d.log_prob(loc), d.log_prob(-loc)])
    assert found.dtype == dtype
    expected = torch.tensor([resultant, kl, at_loc, opposite], dtype=dtype)
    # float32 rounds the concentration, which the density raises to the power d - 1; the vectors
    # have fourteen digits.
    assert_close(found, expected, rtol=1e-6 if dtype == torch.float32 else 2e-13, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 4, 5, 7, 16])
@pytest.mark.parametrize("rho", [1e-4, 0.3, 0.4999, 0.5001, 0.95, 0.9999])
def test_mean_and_divergence_agree_with_quadrature(dim, rho):
    resultant, kl = by_quadrature(rho, dim)
    concentration = torch.tensor(rho, dtype=DOUBLE)
    rtol = 1e-14
    assert_close(mean_resultant(concentration, dim).item(), resultant, rtol=rtol, atol=0)
    assert_close(kl_to_uniform(concentration, dim).item(), kl, rtol=rtol, atol=0)
    concentration = concentration.float()
    resultant, kl = (f(concentration.double(), dim) for f in (mean_resultant, kl_to_uniform))
    assert_close(mean_resultant(concentration, dim), resultant.float(), rtol=2e-7, atol=0)
    assert_close(kl_to_uniform(concentration, dim), kl.float(), rtol=2e-7, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 5, 128])
def test_divergence_is_the_mean_of_the_log_ratio(dim):
    loc = normalize(torch.randn(2, dim, dtype=DOUBLE), dim=-1)
    q, p = (SphericalCauchy(x, rho) for x, rho in zip(loc, (0.6, 0.4), strict=True))
    x = q.sample((20_000,))
    ratio = q.log_prob(x) - p.log_prob(x)
    assert_mean(ratio, kl_divergence(q, p), floor=1e-12, what="log-ratio")
    uniform = ManifoldUniform(Sphere(dim - 1), dtype=DOUBLE)
    ratio = q.log_prob(x) - uniform.log_prob(x)
    assert_mean(ratio, kl_divergence(q, uniform), floor=1e-12, what="log-ratio to uniform")
    assert_close(kl_divergence(q, p), kl_divergence(p, q))


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_divergences_are_positive_and_vanish_at_equality_and_uniformity(dim, dtype):
    rho = torch.tensor([0.0, 1e-30, 1e-6, 0.3, 0.9, 1 - 2.0**-24], dtype=dtype)
    kl = kl_to_uniform(rho, dim)
    assert kl[0] == 0
    # To first order (d - 1) (2 - 2 / d) rho^2.
    assert_close(kl[2].item(), (dim - 1) * (2 - 2 / dim) * rho[2].item() ** 2, rtol=1e-6, atol=0)
    assert (kl[2:].diff() > 0).all()
    loc = axis(dim, dtype)
    assert (kl_spherical_cauchy(loc, rho, loc, rho) == 0).all()


@pytest.mark.parametrize("dim", [2, 3, 4, 5, 64])
def test_derivatives(dim):
    rho = torch.tensor([0.0, 0.2, 0.49, 0.51, 0.9], dtype=DOUBLE, requires_grad=True)
    # At zero, central differences leave the domain, where the functions go on.
    assert gradcheck(lambda r: (mean_resultant(r, dim), kl_to_uniform(r, dim)), (rho,))
    loc = normalize(torch.randn(2, dim, dtype=DOUBLE), dim=-1).requires_grad_()
    assert gradcheck(lambda x, r: kl_spherical_cauchy(x[0], r[1:3], x[1], r[2:4]), (loc, rho))


@pytest.mark.parametrize("dim", [2, 3, 16, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_draws_are_of_unit_norm_and_as_far_as_the_law_says(dim, dtype):
    for rho in (0.0, 0.5, 0.99, 1 - 2.0**-20):
        d = SphericalCauchy(axis(dim, dtype), rho)
        x = d.sample((2_000 if dim > 100 else 20_000,))
        assert d.support.check(x).all()
        # tan(angle / 2), divided by that of the concentration, is that of a uniform vector, whose
        # height is symmetric around zero.
        near, far = (x - d.loc).norm(dim=-1), (x + d.loc).norm(dim=-1)
        ratio = (near / far) * (1 + rho) / (1 - rho)
        height = (1 - ratio**2) / (1 + ratio**2)
        assert_mean(height.double(), torch.zeros(()), floor=1e-7, what="height")
        variance = torch.tensor(1 / dim)
        assert_mean(height.double().square(), variance, floor=1e-7, what="its square")


def test_the_law_on_the_circle_is_the_wrapped_cauchy_law():
    rho, angle = 0.6, torch.linspace(-3, 3, 50, dtype=DOUBLE)
    d = SphericalCauchy(torch.tensor([1.0, 0.0], dtype=DOUBLE), rho)
    # Its Fourier coefficients are the powers of rho.
    n = torch.arange(1, 80, dtype=DOUBLE)
    density = (1 + 2 * (rho**n * (n * angle[:, None]).cos()).sum(-1)) / (2 * math.pi)
    x = torch.stack([angle.cos(), angle.sin()], -1)
    assert_close(d.log_prob(x).exp(), density, atol=1e-14, rtol=0)


def test_a_concentration_out_of_range_is_refused():
    for rho in (1.0, -0.1, math.nan):
        with pytest.raises(
            ValueError, match=r"SphericalCauchy: expected a finite concentration .* got"
        ):
            SphericalCauchy(axis(3), torch.tensor(rho))
