import math

import mpmath
import pyro
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from pyro_manifolds.ops import von_mises
from pyro_manifolds.ops.von_mises import (
    circular_variance,
    implicit_gradient,
    kl_to_uniform,
    kl_von_mises_von_mises,
    log_i0e,
    mean_resultant,
)

DOUBLE = torch.float64
FUNCTIONS = [log_i0e, mean_resultant, circular_variance, kl_to_uniform]
# Both sides of each switch between formulas, and both ends of the range.
CONCENTRATIONS = [1e-6, 1e-3, 0.1, 0.999, 1.001, 5.0, 20.0, 31.9, 32.1, 100.0, 1e4, 1e6, 1e8]


def double(*values):
    return [torch.tensor(v, dtype=DOUBLE) for v in values]


def exact(kappa):
    """Values and two derivatives of log_i0e, mean_resultant and kl_to_uniform, to 40 digits."""
    with mpmath.workdps(50):
        k = mpmath.mpf(kappa)
        i0, i1 = mpmath.besseli(0, k), mpmath.besseli(1, k)
        a = i1 / i0
        slope = 1 - a / k - a * a
        bend = -2 * a * slope - slope / k + a / k**2
        return {
            log_i0e: (mpmath.log(i0) - k, a - 1, slope),
            mean_resultant: (a, slope),
            circular_variance: (1 - a, -slope),
            kl_to_uniform: (k * a - mpmath.log(i0), k * slope, slope + k * bend),
        }


def derivatives(function, x, order):
    values = [function(x)]
    for _ in range(order):
        values += grad(values[-1], x, create_graph=True)
    return torch.stack(values)


# Float64 loses 2 kappa^2 roundings, at the switch, in the second derivative and kappa times as
# many in the third, which only the divergence takes; float32 is the rounding of the float64 value.
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-7), (DOUBLE, 2e-12)])
@pytest.mark.parametrize("kappa", CONCENTRATIONS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_and_derivatives_agree_with_mpmath(function, kappa, dtype, rtol):
    x = torch.tensor(kappa, dtype=dtype, requires_grad=True)
    expected = exact(x.item())[function]
    found = derivatives(function, x, len(expected) - 1)
    expected = torch.tensor([float(v) for v in expected], dtype=dtype)
    assert_close(found[:2], expected[:2], rtol=rtol, atol=1e-15)
    assert_close(found[2:], expected[2:], rtol=max(rtol, 1e-10), atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_values_and_derivatives_at_zero_are_those_from_the_right(dtype):
    x = torch.zeros((), dtype=dtype, requires_grad=True)
    for function, expected in {
        log_i0e: [0.0, -1.0, 0.5],
        mean_resultant: [0.0, 0.5],
        circular_variance: [1.0, -0.5],
        kl_to_uniform: [0.0, 0.0, 0.5],
    }.items():
        found = derivatives(function, x, len(expected) - 1)
        assert_close(found, torch.tensor(expected, dtype=dtype), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("kappa", "log_i0", "resultant", "slope", "kl"),
    [
        (5.0, 3.30468177582253, 0.893383137044085, 0.0231899430364522, 1.16223390939789),
        (1e4, 9994.47590378143, 0.999949998749875, 5.00025003750781e-9, 5.0240837173175),
    ],
)
def test_published_digits(kappa, log_i0, resultant, slope, kl):
    x = torch.tensor(kappa, dtype=DOUBLE, requires_grad=True)
    found = torch.stack([log_i0e(x) + x, *derivatives(mean_resultant, x, 1), kl_to_uniform(x)])
    assert_close(found, torch.stack(double(log_i0, resultant, slope, kl)), rtol=5e-14, atol=0)


def test_kl_to_uniform_published_digits():
    kappa = torch.tensor([0.1, 0.5, 1, 2, 5, 20, 100, 1e4], dtype=DOUBLE)
    expected = [
        0.002495321164917649,
        0.05970008710491967,
        0.2104756073893559,
        0.5715557744450597,
        1.162233909397893,
        1.903799729551868,
        2.719004610574293,
        5.024083717317504,
    ]
    expected = torch.tensor(expected, dtype=DOUBLE)
    assert_close(kl_to_uniform(kappa), expected, rtol=2e-14, atol=0)
    # In float32 the only loss is the rounding of the result.
    assert_close(kl_to_uniform(kappa.float()), expected.float(), rtol=2e-7, atol=0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_agree_with_finite_differences(function):
    x = torch.tensor([0.3, 1.5, 7.0, 31.0, 40.0], dtype=DOUBLE, requires_grad=True)
    assert gradcheck(function, x)
    assert gradgradcheck(function, x)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_vmap_and_func_grad_agree_with_autograd(function):
    x = torch.tensor([0.0, 0.3, 7.0, 40.0], requires_grad=True)
    expected = grad(function(x).sum(), x)[0]
    assert_close(torch.vmap(torch.func.grad(function))(x.detach()), expected)
    assert_close(torch.vmap(function)(x), function(x))


@pytest.mark.parametrize("name", ["kl_von_mises_von_mises", "implicit_gradient"])
def test_full_graphs_compile(name):
    torch._dynamo.reset()
    # Every other function is a part of these two. Code generation, which is slow, is left to the
    # test of the distribution.
    function = getattr(von_mises, name)
    args = [torch.rand(5) for _ in range(4 if name.startswith("kl") else 2)]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*args), function(*args))
    pyro.enable_validation(True)  # torch.compile switches it off


def quadrature_kl(loc_p, p, loc_q, q):
    # The rule with equal steps converges geometrically on a circle.
    t = torch.arange(2000, dtype=DOUBLE) * (2 * math.pi / 2000)
    log_p, log_q = (
        k * ((t - loc).cos() - 1) - math.log(2 * math.pi) - math.log(torch.special.i0e(k))
        for loc, k in ((loc_p, p), (loc_q, q))
    )
    return (log_p.exp() * (log_p - log_q)).mean() * 2 * math.pi


@pytest.mark.parametrize(
    "args", [(0, 3, 1, 7), (0.5, 0.2, -3, 0.7), (2, 0, 1, 5), (1, 300, 1.2, 2), (0, 40, 0, 0)]
)
def test_kl_agrees_with_quadrature(args):
    args = double(*args)
    # The oracle, not the function, is the less accurate: its terms reach 1e3.
    assert_close(kl_von_mises_von_mises(*args), quadrature_kl(*args), rtol=1e-12, atol=1e-14)


def test_kl_special_values():
    args = double(0, 3, 1, 7)
    assert_close(kl_von_mises_von_mises(*args).item(), 2.9086827208311, rtol=1e-13, atol=0)
    p = torch.tensor([0, 1e-6, 0.5, 3.0, 1e3, 1e8])
    assert kl_von_mises_von_mises(p, p, p, p).eq(0).all()
    zero = torch.zeros(())
    assert_close(kl_von_mises_von_mises(zero, p, zero, zero), kl_to_uniform(p), rtol=2e-7, atol=0)


@pytest.mark.parametrize(("p", "q"), [(1e-6, 3e-6), (0.3, 0.5), (50.0, 51.0), (1e6, 1.5e6)])
def test_kl_of_close_laws_has_a_small_relative_error(p, q):
    with mpmath.workdps(50):
        exact_p, exact_q = mpmath.mpf(p), mpmath.mpf(q)
        log_i0 = [mpmath.log(mpmath.besseli(0, k)) for k in (exact_p, exact_q)]
        a = mpmath.besseli(1, exact_p) / mpmath.besseli(0, exact_p)
        expected = float(log_i0[1] - log_i0[0] - (exact_q - exact_p) * a)
    found = kl_von_mises_von_mises(*double(0, p, 0, q)).item()
    assert_close(found, expected, rtol=1e-10, atol=0)


def test_kl_derivatives_agree_with_finite_differences():
    args = [x.requires_grad_() for x in double([0.3, 1.0], [0.4, 50.0], [1.0, 1.2], [0.7, 3.0])]
    assert gradcheck(kl_von_mises_von_mises, args)
    assert gradgradcheck(kl_von_mises_von_mises, args)


@pytest.mark.parametrize(
    ("angle", "kappa", "expected"),
    [
        (1, 0.5, -0.70894805612563),
        (2.5, 2, -0.80620392789822),
        (0.05, 1000, -2.5011471114795e-5),
    ],
)
def test_implicit_gradient_published_digits(angle, kappa, expected):
    found = implicit_gradient(*double(angle, kappa))
    assert_close(found.item(), expected, rtol=2e-14, atol=0)
    assert implicit_gradient(*double(-angle, kappa)) == -found


@pytest.mark.parametrize("kappa", [1e-3, 0.7, 4.0, 60.0, 1e4, 1e8])
@pytest.mark.parametrize("quantile", [1e-3, 0.5, 1.0, 1.5, 4.0])
def test_implicit_gradient_is_minus_the_slope_of_the_distribution_function(kappa, quantile):
    """Against finite differences, in 40 digits, of the integral of the density from 0."""
    angle = min(quantile / (kappa + 0.1) ** 0.5, 3.1)
    with mpmath.workdps(40):
        width = 10 / mpmath.sqrt(mpmath.mpf(kappa) + 0.1)
        breaks = mpmath.linspace(0, min(width, mpmath.pi), 6)
        nodes = [*[b for b in breaks if b < angle], mpmath.mpf(angle)]

        def cdf(k):
            density = lambda t: mpmath.exp(-2 * k * mpmath.sin(t / 2) ** 2)  # noqa: E731
            total = mpmath.pi * mpmath.besseli(0, k) * mpmath.exp(-k)
            return mpmath.quad(density, nodes) / total, density(mpmath.mpf(angle)) / total

        step = mpmath.mpf(kappa) * mpmath.mpf(10) ** -9
        slope = (cdf(kappa + step)[0] - cdf(kappa - step)[0]) / (2 * step)
        expected = float(-slope / cdf(mpmath.mpf(kappa))[1])
    found = implicit_gradient(*double(angle, kappa)).item()
    assert_close(found, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1.0, 1e3, 1e8])
def test_implicit_gradient_is_finite_everywhere(kappa):
    angles = torch.linspace(-math.pi, math.pi, 101)
    found = implicit_gradient(angles, torch.tensor(kappa))
    assert found.isfinite().all()
    if kappa == 0:
        assert_close(found, -angles.sin(), rtol=1e-6, atol=1e-7)


def test_expected_implicit_gradient_is_the_slope_of_the_mean_resultant():
    kappa = torch.tensor([0.3, 2.0, 30.0], dtype=DOUBLE, requires_grad=True)
    t = torch.arange(4000, dtype=DOUBLE) * (2 * math.pi / 4000) - math.pi
    t = t.unsqueeze(-1)
    density = (-2 * kappa * (0.5 * t).sin().square() - log_i0e(kappa)).exp()
    found = (density * -t.sin() * implicit_gradient(t, kappa)).mean(0)
    assert_close(found, grad(mean_resultant(kappa).sum(), kappa)[0], rtol=1e-11, atol=0)
