import functools

import mpmath
import pyro
import pytest
import torch
from pyro.ops.provenance import get_provenance, track_provenance
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from pyro_manifolds.ops.bessel_ratio import (
    bessel_ratios,
    log_normalizer,
    mean_resultant,
    resultant_slope,
    scaled_log_normalizer,
    spherical_variance,
)

DOUBLE = torch.float64
FUNCTIONS = [
    log_normalizer,
    scaled_log_normalizer,
    mean_resultant,
    spherical_variance,
    resultant_slope,
]
# With every number of steps of the recurrence: one for every two dimensions, up to 16 or 38.
DIMS = [2, 3, 4, 5, 7, 10, 15, 16, 20, 37, 38, 40, 64, 128, 1024]
CONCENTRATIONS = [1e-6, 1e-3, 0.01, 0.1, 1.0, 2.5, 9.0, 15.0, 30.0, 64.0, 200.0, 1e4, 1e6, 1e8]


@functools.cache
def exact(kappa, dim):
    """The functions in their order, and the slope of the last, from Bessel functions."""
    with mpmath.workdps(50):
        k, nu = mpmath.mpf(kappa), mpmath.mpf(dim) / 2 - 1
        bessel = mpmath.besseli(nu, k)
        g = mpmath.log(mpmath.gamma(nu + 1) * (2 / k) ** nu * bessel)
        a = mpmath.besseli(nu + 1, k) / bessel
        slope = 1 - a * a - (dim - 1) * a / k
        bend = -2 * a * slope - (dim - 1) * (slope / k - a / k**2)
        return [float(v) for v in (g, g - k, a, 1 - a, slope, bend)]


def table(kappa, dim):
    return torch.tensor([exact(k, dim) for k in kappa.tolist()], dtype=DOUBLE).T


# The result of float32 is that of float64 but for its rounding, 6e-8 at most.
@pytest.mark.parametrize(
    ("dtype", "values", "slopes"), [(torch.float32, 8e-8, 1e-7), (DOUBLE, 2e-14, 1e-13)]
)
@pytest.mark.parametrize("dim", DIMS)
def test_values_and_derivatives_agree_with_mpmath(dim, dtype, values, slopes):
    kappa = torch.tensor(CONCENTRATIONS, dtype=dtype, requires_grad=True)
    expected = table(kappa, dim)
    found = [function(kappa, dim) for function in FUNCTIONS]
    assert {f.dtype for f in found} == {dtype}
    assert_close(torch.stack(found[:4]).double(), expected[:4], rtol=values, atol=0)
    assert_close(found[4].double(), expected[4], rtol=slopes, atol=0)
    derivatives = torch.stack([grad(f.sum(), kappa)[0] for f in found[:4]]).double()
    g, _, a, variance, slope = expected[:5]
    assert_close(derivatives, torch.stack([a, -variance, slope, -slope]), rtol=slopes, atol=0)


@pytest.mark.parametrize("dim", DIMS)
def test_derivatives_of_higher_order_agree_with_mpmath(dim):
    kappa = torch.tensor(CONCENTRATIONS[1:], dtype=DOUBLE, requires_grad=True)
    expected = table(kappa, dim)
    for function in FUNCTIONS[:2]:
        (first,) = grad(function(kappa, dim).sum(), kappa, create_graph=True)
        (second,) = grad(first.sum(), kappa, create_graph=True)
        (third,) = grad(second.sum(), kappa)
        assert_close(second, expected[4], rtol=1e-13, atol=0)
        # Of third order is the first that is left to autograd.
        assert_close(third, expected[5], rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("dim", [2, 3, 20, 128])
def test_values_and_derivatives_at_zero_are_those_from_the_right(dim, dtype):
    kappa = torch.zeros((), dtype=dtype, requires_grad=True)
    found = [function(kappa, dim) for function in FUNCTIONS]
    expected = torch.tensor([0, 0, 0, 1, 1 / dim], dtype=dtype)
    assert_close(torch.stack(found), expected, rtol=1e-14 if dtype == DOUBLE else 1e-7, atol=0)
    slopes = torch.stack([grad(f, kappa)[0] for f in found])
    expected = torch.tensor([0, -1, 1 / dim, -1 / dim, 0], dtype=dtype)
    assert_close(slopes, expected, rtol=1e-7, atol=1e-15)


@pytest.mark.parametrize(
    ("dim", "kappa", "g", "resultant", "slope"),
    [
        (2, 5, 3.30468177582253, 0.893383137044085, 0.0231899430364522),
        (2, 1e4, 9994.47590378143, 0.999949998749875, 5.00025003750781e-9),
        (3, 1e-3, 1.66666661111111e-7, 3.33333311111113e-4, 0.333333266666677),
        (5, 2, 0.379514016134262, 0.361106650206708, 0.147388686763073),
        (16, 8, 1.82213485137146, 0.419450542825727, 0.0375914743249639),
        (128, 1e-3, 3.90624999988262e-9, 7.8124999995305e-6, 0.0078124999985915),
        (128, 15, 0.873067102425333, 0.11564379649301, 0.00750903535853068),
        (128, 1e6, 999366.471745435, 0.999936501984377, 6.34960312440547e-11),
        (1024, 500, 110.790246060237, 0.40736568323723, 0.000583012217291487),
    ],
)
def test_published_digits(dim, kappa, g, resultant, slope):
    kappa = torch.tensor(float(kappa), dtype=DOUBLE)
    found = torch.stack([f(kappa, dim) for f in (log_normalizer, mean_resultant, resultant_slope)])
    assert_close(found, torch.tensor([g, resultant, slope], dtype=DOUBLE), rtol=3e-14, atol=0)


@pytest.mark.parametrize("dim", [10_001, 10**6])
def test_dimensions_beyond_the_table(dim):
    kappa = torch.tensor([1.0, 3e3, 2e4], dtype=DOUBLE)
    expected = table(kappa, dim)
    found = torch.stack([function(kappa, dim) for function in FUNCTIONS])
    assert_close(found, expected[:5], rtol=1e-13, atol=0)


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 3e38), (DOUBLE, 1e100)])
@pytest.mark.parametrize("dim", [2, 3, 16, 1024])
def test_great_concentrations_are_finite(dim, dtype, largest):
    kappa = torch.tensor([1e12, 1e30, largest], dtype=dtype, requires_grad=True)
    for function in FUNCTIONS:
        value = function(kappa, dim)
        assert value.isfinite().all()
        assert grad(value.sum(), kappa)[0].isfinite().all()
    # 1 - A ~ (d - 1) / (2 kappa)
    expected = (0.5 * (dim - 1) / kappa.detach().double()).to(dtype)
    assert_close(spherical_variance(kappa, dim).detach(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 17, 50])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_agree_with_finite_differences(function, dim):
    kappa = torch.tensor([0.3, 7.0, 40.0], dtype=DOUBLE, requires_grad=True)
    assert gradcheck(lambda k: function(k, dim), kappa)
    assert gradgradcheck(lambda k: function(k, dim), kappa)


def test_all_at_once():
    kappa = torch.tensor([[0.3], [7.0]])
    found = bessel_ratios(kappa, 4, slope=True)
    assert {x.dtype for x in found} == {DOUBLE}
    for function, value in zip(FUNCTIONS, found, strict=True):
        sign = -1 if function is scaled_log_normalizer else 1
        assert_close(sign * function(kappa, 4), value.float(), rtol=0, atol=0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_vmap_and_func_grad_agree_with_autograd(function):
    kappa = torch.tensor([0.0, 0.3, 7.0, 40.0], requires_grad=True)
    expected = grad(function(kappa, 5).sum(), kappa)[0]
    slope = torch.func.grad(lambda k: function(k, 5))
    assert_close(torch.vmap(slope)(kappa.detach()), expected)
    assert_close(torch.vmap(lambda k: function(k, 5))(kappa), function(kappa, 5))
    # Second derivatives, of a map within a map.
    (second,) = grad(grad(function(kappa, 5).sum(), kappa, create_graph=True)[0].sum(), kappa)
    assert_close(torch.vmap(torch.func.grad(slope))(kappa.detach()), second, atol=1e-7, rtol=1e-5)


# Dynamo instantiates the autograd function while it traces, against torch's own advice.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_full_graph_without_steps_compiles():
    torch._dynamo.reset()

    def moments(kappa):
        return torch.stack(bessel_ratios(kappa, 128, slope=True)[:4])

    kappa = torch.rand(5, requires_grad=True)
    compiled = torch.compile(moments, fullgraph=True, backend="aot_eager")
    found, expected = compiled(kappa), moments(kappa)
    assert_close(found, expected)
    assert_close(grad(found.sum(), kappa), grad(expected.sum(), kappa))
    pyro.enable_validation(True)  # torch.compile switches it off


def test_tensors_that_record_their_origin_keep_it_and_their_gradient():
    kappa = torch.tensor(2.0, requires_grad=True)
    found = mean_resultant(track_provenance(kappa, frozenset({"x"})), 5)
    assert get_provenance(found) == {"x"}
    assert_close(grad(found, kappa)[0].item(), 0.147388686763073, rtol=1e-6, atol=0)
