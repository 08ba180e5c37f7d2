"""The tangent normal of spheres against radial sums in 40 digits."""

import math

import mpmath
import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from pyro_manifolds.ops.tangent_normal import MAX_SCALE, tangent_normal_log_prob

VECTORS = [  # intrinsic dimension, scale, angle, log-density
    (2, 1.0, 0.5, -1.92085684296476),
    (2, 1.0, 3.0, -2.90984927320157),
    (2, 2.0, 2.0, -2.63014202142253),
    (16, 0.5, 2.0, 0.210791639174299),
]


def double(x, **kwargs):
    return torch.tensor(x, dtype=torch.float64, **kwargs)


def reference(angle, scale, dim):
    """Sum over all geodesics from the location through the point, with a generous window."""
    with mpmath.workdps(40):
        t, s = mpmath.mpf(angle), mpmath.mpf(scale)
        radii = [abs(t + 2 * mpmath.pi * k) for k in range(-40, 41)]
        ratios = [r / mpmath.sin(t) if t else mpmath.mpf(r == 0) for r in radii]
        terms = (
            mpmath.exp(-((r / s) ** 2) / 2) * ratio ** (dim - 1)
            for r, ratio in zip(radii, ratios, strict=True)
        )
        return float(mpmath.log(mpmath.fsum(terms)) - dim * mpmath.log(2 * mpmath.pi * s**2) / 2)


@pytest.mark.parametrize(("dim", "scale", "angle", "value"), VECTORS)
def test_log_prob_matches_the_vectors(dim, scale, angle, value):
    found = tangent_normal_log_prob(double(angle), double(scale), dim)
    assert_close(found, double(value), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 3, 16, 127])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_log_prob_agrees_with_sums_of_forty_digits(dim, dtype):
    angle = torch.tensor([1e-9, 1e-3, 0.5, 1.5, 2.9, 3.14], dtype=dtype)
    scale = torch.tensor([[1e-3], [0.1], [0.7], [2.0], [6.28]], dtype=dtype)
    found = tangent_normal_log_prob(angle, scale, dim).double()
    expected = double([[reference(a.item(), s.item(), dim) for a in angle] for s in scale])
    # The sine near pi is conditioned like the distance to the antipode, times dim - 1.
    size = expected.abs().clamp(min=1) + dim * (1 + (math.pi - angle.double()).reciprocal())
    assert ((found - expected).abs() <= 10 * torch.finfo(dtype).eps * size).all()


def test_at_the_location_a_small_scale_gives_the_normal_density():
    found = tangent_normal_log_prob(double(0.0), double(0.1), 3)
    assert_close(found, double(-1.5 * math.log(2 * math.pi * 0.01)), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0, MAX_SCALE])
def test_density_integrates_to_one_over_the_sphere(dim, scale):
    # The poles at both ends are integrable against the area; Gauss-Legendre never meets them.
    x, weights = (double(list(map(float, part))) for part in _gauss_legendre(200))
    angle, weights = (x + 1) * math.pi / 2, weights * math.pi / 2
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2) * angle.sin() ** (dim - 1)
    density = tangent_normal_log_prob(angle, double(scale), dim).exp()
    assert_close((density * area * weights).sum(), double(1.0), rtol=0, atol=1e-12)


def _gauss_legendre(order):
    import numpy as np

    return np.polynomial.legendre.leggauss(order)


@pytest.mark.parametrize("dim", [1, 2, 16])
def test_gradients_agree_with_finite_differences(dim):
    angle = double([0.1, 1.0, 2.5], requires_grad=True)
    scale = double([[0.3], [1.0], [4.0]], requires_grad=True)
    assert gradcheck(lambda a, s: tangent_normal_log_prob(a, s, dim), (angle, scale))


def test_values_and_gradients_are_finite_at_both_poles_in_float32():
    angle = torch.tensor([0.0, math.pi], requires_grad=True)
    for scale in (1e-6, 0.3, 2.0, 6.28):
        scale = torch.tensor(scale, requires_grad=True)
        value = tangent_normal_log_prob(angle, scale, 2)
        slopes = torch.autograd.grad(value.sum(), [angle, scale])
        assert value.isfinite().all()
        assert all(slope.isfinite().all() for slope in slopes)
