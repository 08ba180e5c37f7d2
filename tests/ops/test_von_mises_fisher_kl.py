import functools
import math

import mpmath
import numpy as np
import pyro
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyro_manifolds.ops.von_mises import kl_von_mises_von_mises
from pyro_manifolds.ops.von_mises_fisher_kl import (
    kl_power_spherical_von_mises_fisher,
    kl_to_uniform,
    kl_von_mises_fisher,
)

DOUBLE = torch.float64
DTYPES = [torch.float32, DOUBLE]
DIMS = [2, 3, 5, 16, 37, 128, 1024]
CONCENTRATIONS = [0.0, 1e-6, 1e-3, 0.3, 0.9, 1.5, 5.0, 30.0, 200.0, 1e4, 1e6]


def pole(dim, dtype=DOUBLE):
    return torch.eye(dim, dtype=dtype)[0]


@functools.cache
def exact(kappa, dim):
    """The logarithm of the normaliser relative to the uniform law, and its derivative."""
    if not kappa:
        return mpmath.mpf(0), mpmath.mpf(0)
    with mpmath.workdps(60):
        k, nu = mpmath.mpf(kappa), mpmath.mpf(dim) / 2 - 1
        bessel = mpmath.besseli(nu, k)
        g = mpmath.log(mpmath.gamma(nu + 1) * (2 / k) ** nu * bessel)
        return g, mpmath.besseli(nu + 1, k) / bessel


def exact_kl(p, q, dim):
    with mpmath.workdps(60):
        (g_p, a_p), (g_q, _) = exact(p, dim), exact(q, dim)
        return float(g_q - g_p - (mpmath.mpf(q) - mpmath.mpf(p)) * a_p)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 7e-8), (DOUBLE, 2e-14)])
@pytest.mark.parametrize("dim", DIMS)
def test_kl_to_uniform_agrees_with_mpmath(dim, dtype, rtol):
    kappa = torch.tensor(CONCENTRATIONS, dtype=dtype)
    found = kl_to_uniform(kappa, dim)
    assert found.dtype == dtype
    assert found[0] == 0
    expected = [exact_kl(k, 0.0, dim) for k in kappa.tolist()]
    assert_close(found.double(), torch.tensor(expected, dtype=DOUBLE), rtol=rtol, atol=0)


@pytest.mark.parametrize(
    ("dim", "kappa", "expected"),
    [
        (2, 5, 1.16223390939789),
        (2, 1e4, 5.0240837173175),
        (3, 1e-3, 1.66666650000002e-7),
        (5, 2, 0.342699284279155),
        (16, 8, 1.53346949123436),
        (128, 1e-3, 3.90624999964787e-9),
        (128, 15, 0.861589844969819),
        (128, 1e6, 570.030238942352),
        (1024, 500, 92.8925955583781),
    ],
)
def test_kl_to_uniform_published_digits(dim, kappa, expected):
    found = kl_to_uniform(torch.tensor(float(kappa), dtype=DOUBLE), dim).item()
    assert_close(found, expected, rtol=5e-14, atol=0)


# Far apart the terms are some times the difference, which costs a digit in float64.
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 7e-8), (DOUBLE, 1e-12)])
@pytest.mark.parametrize("dim", DIMS)
def test_kl_of_concentrations_agrees_with_mpmath(dim, dtype, rtol):
    steps = [1 + step for step in (1e-6, -1e-3, 0.1, -0.45, -0.55, 0.9, 1.1)]
    pairs = [(p, q) for p in CONCENTRATIONS for q in CONCENTRATIONS if p != q]
    pairs += [(p, step * p) for p in CONCENTRATIONS[1:] for step in steps]
    p, q = torch.tensor(pairs, dtype=dtype).unbind(-1)
    found = kl_von_mises_fisher(pole(dim, dtype), p, pole(dim, dtype), q)
    assert found.dtype == dtype
    expected = [exact_kl(*pair, dim) for pair in zip(p.tolist(), q.tolist(), strict=True)]
    assert_close(found.double(), torch.tensor(expected, dtype=DOUBLE), rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", DIMS)
def test_kl_of_equal_laws_is_zero_and_never_negative_nearby(dim, dtype):
    loc = normalize(torch.ones(dim, dtype=dtype), dim=-1)
    p = torch.tensor(CONCENTRATIONS, dtype=dtype)
    assert not kl_von_mises_fisher(loc, p, loc, p).any()
    q = torch.nextafter(p, torch.full_like(p, math.inf))
    assert (kl_von_mises_fisher(loc, p, loc, q) >= 0).all()


def test_kl_published_digits():
    loc_q = torch.tensor([0.4, math.sqrt(1 - 0.16), 0, 0, 0], dtype=DOUBLE)
    p, q = torch.tensor([3.0, 7.0], dtype=DOUBLE)
    found = kl_von_mises_fisher(pole(5), p, loc_q, q).item()
    assert_close(found, 2.64955468788512, rtol=1e-14, atol=0)
    p = torch.tensor(2.0, dtype=DOUBLE)
    found = kl_power_spherical_von_mises_fisher(pole(5), p, loc_q, q).item()
    assert_close(found, 2.73013470986723, rtol=1e-14, atol=0)


def test_kl_on_the_circle_is_that_of_von_mises():
    angle = torch.tensor([0.3, 2.0, -3.0], dtype=DOUBLE)
    loc = torch.stack([angle.cos(), angle.sin()], -1)
    p, q = torch.tensor([[0.1, 3.0, 50.0], [0.4, 7.0, 45.0]], dtype=DOUBLE)
    found = kl_von_mises_fisher(loc, p, pole(2), q)
    assert_close(found, kl_von_mises_von_mises(angle, p, 0 * angle, q), rtol=1e-12, atol=0)


gauss_legendre = functools.cache(np.polynomial.legendre.leggauss)


def power_spherical_kl(p, q, cosine, dim):
    """By quadrature of the height; across it, only the mean of a point counts."""
    x, w = (torch.from_numpy(v) for v in gauss_legendre(400))
    # Nodes crowd at the antipode, where the density is a power of the distance.
    below = math.pi * (0.5 + 0.5 * x) ** 4
    angle, weights = math.pi - below, 2 * math.pi * w * (0.5 + 0.5 * x) ** 3
    uniform = (dim - 2) * angle.sin().log() + math.lgamma(dim / 2)
    uniform = uniform - 0.5 * math.log(math.pi) - math.lgamma((dim - 1) / 2)
    height = 2 * p * (0.5 * below).sin().log()
    log_p = height - (weights.log() + uniform + height).logsumexp(0)
    mass = (weights.log() + uniform + log_p).exp()
    return (mass * (log_p + float(exact(q, dim)[0]) - q * cosine * angle.cos())).sum()


@pytest.mark.parametrize("dim", [2, 3, 5, 16, 128])
@pytest.mark.parametrize("cosine", [1.0, 0.4, -1.0])
@pytest.mark.parametrize(("p", "q"), [(0.0, 0.0), (0.0, 2.0), (1e-3, 2e-3), (4.0, 8.0), (300, 90)])
def test_kl_of_a_power_spherical_law_agrees_with_quadrature(p, q, cosine, dim):
    loc_q = torch.zeros(dim, dtype=DOUBLE)
    loc_q[0], loc_q[1] = cosine, math.sqrt(1 - cosine**2)
    args = [pole(dim), torch.tensor(float(p)).double(), loc_q, torch.tensor(float(q)).double()]
    found = kl_power_spherical_von_mises_fisher(*args)
    assert_close(found, power_spherical_kl(p, q, cosine, dim), rtol=1e-11, atol=1e-12)
    single = kl_power_spherical_von_mises_fisher(*(x.float() for x in args))
    assert_close(single.double(), found, rtol=5e-7, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 20])
@pytest.mark.parametrize("function", [kl_von_mises_fisher, kl_power_spherical_von_mises_fisher])
def test_derivatives_agree_with_finite_differences(function, dim):
    torch.manual_seed(0)
    loc_p, loc_q = torch.randn(2, dim, dtype=DOUBLE)
    p = torch.tensor([0.3, 2.0, 40.0], dtype=DOUBLE)
    q = torch.tensor([0.4, 90.0, 41.0], dtype=DOUBLE)
    args = [x.requires_grad_() for x in (loc_p, p, loc_q, q)]

    def kl(loc_p, p, loc_q, q):
        return function(normalize(loc_p, dim=-1), p, normalize(loc_q, dim=-1), q)

    assert gradcheck(kl, args)
    assert gradgradcheck(kl, args)
    assert gradcheck(lambda k: kl_to_uniform(k, dim), args[1])
    assert gradgradcheck(lambda k: kl_to_uniform(k, dim), args[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 3, 128])
def test_derivatives_are_finite_and_exact_at_every_strength(dim, dtype):
    kappa = torch.tensor([*CONCENTRATIONS, 1e30], dtype=dtype, requires_grad=True)
    (slope,) = grad(kl_to_uniform(kappa, dim).sum(), kappa)
    expected = []
    for k in kappa.tolist()[1:-1]:
        with mpmath.workdps(60):
            a = exact(k, dim)[1]
            expected.append(float(mpmath.mpf(k) * (1 - a * a) - (dim - 1) * a))
    expected = torch.tensor(expected, dtype=DOUBLE)
    rtol = 3e-7 if dtype == torch.float32 else 1e-12
    assert_close(slope[1:-1].double(), expected, rtol=rtol, atol=0)
    assert slope[0] == 0
    locs = normalize(torch.randn(2, dim, dtype=dtype), dim=-1).requires_grad_()
    kl = kl_von_mises_fisher(locs[0], kappa.unsqueeze(-1), locs[1], kappa)
    assert kl.isfinite().all()
    assert all(g.isfinite().all() for g in grad(kl.sum(), [locs, kappa]))


def test_vmap_and_shapes():
    torch.manual_seed(0)
    locs = normalize(torch.randn(2, 3, 4, dtype=DOUBLE), dim=-1)
    p, q = torch.rand(2, 3, dtype=DOUBLE)
    expected = kl_von_mises_fisher(locs[0], p, locs[1], q)
    assert_close(torch.vmap(kl_von_mises_fisher)(locs[0], p, locs[1], q), expected)
    outer = kl_von_mises_fisher(locs[0], p, locs[1].unsqueeze(1), q.unsqueeze(-1))
    assert outer.shape == (3, 3)
    assert_close(outer.diagonal(), expected)


# Dynamo instantiates the autograd function while it traces, against torch's own advice.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_full_graph_compiles():
    torch._dynamo.reset()
    # In so many dimensions no recurrence makes the graph long.
    args = pole(64), torch.rand(5, dtype=DOUBLE), pole(64), torch.rand(5, dtype=DOUBLE)
    compiled = torch.compile(kl_von_mises_fisher, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*args), kl_von_mises_fisher(*args))
    pyro.enable_validation(True)  # torch.compile switches it off
