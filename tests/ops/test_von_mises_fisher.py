import functools
import math
import warnings

import mpmath
import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from pyro.ops.provenance import get_provenance, track_provenance
from torch.autograd import grad, gradcheck
from torch.testing import assert_close

from pyro_manifolds.ops.von_mises_fisher import draw_shares, implicit_gradient

DOUBLE = torch.float64
DTYPES = [torch.float32, DOUBLE]


@pytest.fixture(autouse=True)
def _fresh():
    pyro.set_rng_seed(0)


def double(*values):
    return [torch.tensor(v, dtype=DOUBLE) for v in values]


def shares(angle):
    half = 0.5 * angle
    return half.sin().square(), half.cos().square()


@functools.cache
def resultant(kappa, dim):
    with mpmath.workdps(30):
        nu = mpmath.mpf(dim) / 2 - 1
        return mpmath.besseli(nu + 1, kappa) / mpmath.besseli(nu, kappa)


gauss_legendre = functools.cache(np.polynomial.legendre.leggauss)


def mode(kappa, dim):
    """The angle of the highest density of the angle, and the width of it there."""
    m = dim - 2
    angle = math.acos(2 * kappa / (m + math.hypot(m, 2 * kappa))) if m else 0.0
    curvature = kappa * math.cos(angle) + (m / math.sin(angle) ** 2 if m else 0)
    return angle, min(curvature**-0.5, 1.5)


# Implicit gradient.


@pytest.mark.parametrize(
    ("dim", "kappa", "angle", "expected"),
    [
        (2, 0.5, 1, 0.59655921896568),
        (2, 2, 2.5, 0.48249059331428),
        (2, 1000, 0.05, 1.250052548555e-6),
        (3, 2, 1, 0.20171776975945),
        (16, 8, 1.1, 0.036826869020172),
        (128, 15, 1.6, 0.0077891802527557),
    ],
)
def test_implicit_gradient_published_digits(dim, kappa, angle, expected):
    kappa, angle = double(float(kappa), float(angle))
    found = -2 * implicit_gradient(*shares(angle), kappa, dim)  # of t = 1 - 2 near
    assert_close(found.item(), expected, rtol=3e-13, atol=0)
    single = -2 * implicit_gradient(*(x.float() for x in shares(angle)), kappa.float(), dim)
    assert_close(single.item(), expected, rtol=5e-7, atol=0)


def gradient_by_definition(angle, kappa, dim):
    """Minus the derivative of the distribution function by the concentration, over the density."""
    k, theta, a = mpmath.mpf(kappa), mpmath.mpf(angle), resultant(kappa, dim)

    def density(t):
        power = mpmath.sin(t) ** (dim - 2) / mpmath.sin(theta) ** (dim - 2)
        return mpmath.exp(k * (mpmath.cos(t) - mpmath.cos(theta))) * power

    # The integral over the whole range is zero, and one side of it does not cancel.
    width = mode(kappa, dim)[1]
    steps = [width * s for s in (0, 0.5, 1, 2, 3, 5, 8, 12)]
    if mpmath.cos(theta) >= a:
        ends = [0, *sorted(theta - s for s in steps if s < theta)]
    else:
        ends = [*(theta + s for s in steps if theta + s < mpmath.pi), mpmath.pi]
    sign = -1 if mpmath.cos(theta) >= a else 1
    integral = mpmath.quad(lambda t: density(t) * (mpmath.cos(t) - a), ends)
    return sign * integral * mpmath.sin(theta) / 2


@pytest.mark.parametrize("dim", [2, 3, 4, 5, 20, 128, 1024])
@pytest.mark.parametrize("kappa", [1e-3, 0.05, 1.0, 30.0, 1e4])
def test_implicit_gradient_is_minus_the_slope_of_the_distribution_function(kappa, dim):
    middle, width = mode(kappa, dim)
    angles = [middle + z * width for z in (-3.5, -1.0, 0.3, 1.0, 4.0)]
    angles = [angle for angle in angles if 1e-3 < angle < math.pi - 1e-3]
    with mpmath.workdps(25):
        expected = [float(gradient_by_definition(angle, kappa, dim)) for angle in angles]
    near, far = shares(torch.tensor(angles, dtype=DOUBLE))
    found = implicit_gradient(near, far, torch.tensor(kappa, dtype=DOUBLE), dim)
    assert_close(found, torch.tensor(expected, dtype=DOUBLE), rtol=2e-12, atol=0)
    # A share that float32 rounds at 0.5 is moved by 1e-6 of the width in 1024 dimensions.
    single = implicit_gradient(near.float(), far.float(), torch.tensor(kappa), dim)
    assert_close(single.double(), found, rtol=2e-6, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 4, 9, 64, 1024])
@pytest.mark.parametrize("kappa", [0.0, 0.009, 0.011, 2.0, 80.0])
def test_expected_implicit_gradient_is_the_slope_of_the_mean_resultant(kappa, dim):
    nodes, weights = (torch.from_numpy(x) for x in gauss_legendre(600))
    angle = (nodes + 1) * (math.pi / 2)
    log_density = kappa * angle.cos() + (dim - 2) * angle.sin().log()
    mass = weights * log_density.sub(log_density.max()).exp()
    gradient = -2 * implicit_gradient(*shares(angle), torch.tensor(kappa, dtype=DOUBLE), dim)
    found = (mass * gradient).sum() / mass.sum()
    with mpmath.workdps(30):
        a = resultant(kappa, dim) if kappa else 0
        slope = 1 - a * a - (dim - 1) * a / kappa if kappa else mpmath.mpf(1) / dim
    assert_close(found.item(), float(slope), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 3, 4, 16, 1024])
@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1.0, 1e3, 1e8, 1e30])
def test_implicit_gradient_is_finite_everywhere(kappa, dim, dtype):
    tiny = torch.finfo(dtype).tiny
    near = torch.tensor([tiny, 1e-20, 1e-7, 0.1, 0.5, 0.9, 1 - 1e-6, 1.0], dtype=dtype)
    found = implicit_gradient(near, (1 - near).clamp(min=tiny), near.new_tensor(kappa), dim)
    assert found.isfinite().all()
    assert (found <= 0).all()


@pytest.mark.parametrize("dim", [2, 3, 4, 20])
def test_derivatives_of_the_implicit_gradient_agree_with_finite_differences(dim):
    logits = torch.tensor([-3.0, -0.5, 0.2, 1.0], dtype=DOUBLE, requires_grad=True)
    kappa = torch.tensor([0.005, 0.5, 3.0, 20.0], dtype=DOUBLE, requires_grad=True)

    def gradient(logits, kappa):
        return implicit_gradient(logits.sigmoid(), (-logits).sigmoid(), kappa, dim)

    assert gradcheck(gradient, [logits, kappa])


# Draws.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 3, 5, 10, 20, 40, 128, 1024])
def test_mean_of_draws_is_the_mean_resultant(dim, dtype):
    kappa = torch.tensor([0.01, 1, 9, 15, 30, 64, 200, 1e4, 1e6], dtype=dtype)
    near, far = draw_shares(kappa.expand(40_000, -1), dim)
    assert near.dtype == far.dtype == dtype
    assert_close(near + far, torch.ones_like(near))
    gap = torch.tensor([float(1 - resultant(k, dim)) for k in kappa.tolist()], dtype=DOUBLE)
    twice = 2 * near.double()
    z = (twice.mean(0) - gap) / (twice.std(0) / 200)
    assert (z.abs() < 5).all(), z


def distribution_function(kappa, dim):
    """That of the angle, integrated on a fine grid."""
    middle, width = mode(kappa, dim)
    low, high = max(0.0, middle - 12 * width), min(math.pi, middle + 14 * width)
    angle = np.linspace(low, high, 40_001)
    with np.errstate(divide="ignore"):
        log_density = kappa * np.cos(angle) + ((dim - 2) * np.log(np.sin(angle)) if dim > 2 else 0)
    density = np.exp(log_density - log_density.max())
    mass = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return lambda x: np.interp(x, angle, mass / mass[-1])


@pytest.mark.parametrize("dim", [2, 3, 4, 5, 17, 128, 1024])
@pytest.mark.parametrize("kappa", [0.2, 3.0, 20.0, 500.0])
def test_draws_fit_the_law_of_the_angle(kappa, dim):
    def p_value(strength):
        near, far = draw_shares(torch.tensor(strength * kappa, dtype=DOUBLE).expand(30_000), dim)
        angle = 2 * torch.atan2(near.sqrt(), far.sqrt())
        return scipy.stats.kstest(angle.numpy(), distribution_function(kappa, dim)).pvalue

    assert p_value(1.0) > 1e-4
    if kappa > math.sqrt(dim):  # where the law depends enough on its concentration
        assert p_value(1.2) < 1e-6


def test_draws_on_the_circle_fit_von_mises():
    near, far = draw_shares(torch.tensor(3.0, dtype=DOUBLE).expand(30_000), 2)
    angle = 2 * torch.atan2(near.sqrt(), far.sqrt())
    law = scipy.stats.vonmises(3.0)
    fit = scipy.stats.kstest(angle.numpy(), lambda x: 2 * law.cdf(x) - 1)
    assert fit.pvalue > 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("dim", "kappa"), [(2, 1.0), (3, 0.001), (3, 4.0), (5, 2.0), (16, 8.0), (128, 64.0)]
)
def test_mean_gradient_of_draws_is_the_slope_of_the_mean_resultant(dim, kappa, dtype):
    many = torch.full((100_000,), kappa, dtype=dtype, requires_grad=True)
    near, far = draw_shares(many, dim)
    slopes = grad((far - near).sum(), many)[0].double()
    a = resultant(kappa, dim)
    expected = float(1 - a * a - (dim - 1) * a / kappa)
    if (dim, kappa) == (5, 2.0):
        assert abs(expected - 0.14739) < 5e-6
    assert abs(slopes.mean().item() - expected) < 5 * slopes.std().item() / math.sqrt(100_000)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_draws_have_second_derivatives(dim):
    kappa = torch.full((50_000,), 1.5, dtype=DOUBLE, requires_grad=True)
    near, far = draw_shares(kappa, dim)
    (first,) = grad((far - near).sum(), kappa, create_graph=True)
    (second,) = grad(first.sum(), kappa)
    a = resultant(1.5, dim)
    slope = 1 - a * a - (dim - 1) * a / 1.5
    expected = float(-2 * a * slope - (dim - 1) * (slope / 1.5 - a / 1.5**2))
    assert abs(second.mean().item() - expected) < 5 * second.std().item() / math.sqrt(50_000)


@pytest.mark.parametrize("dim", [2, 3, 8])
def test_nan_gives_nan_instead_of_an_endless_loop_and_infinity_the_location(dim):
    near, far = draw_shares(torch.tensor([math.nan, 1.0, math.inf]), dim)
    assert near.isnan().tolist() == far.isnan().tolist() == [True, False, False]
    assert near[2] < 1e-30


@pytest.mark.parametrize("shape", [(), (0,), (3, 1, 2)])
def test_shapes(shape):
    for dim in (3, 4):
        near, far = draw_shares(torch.ones(shape), dim)
        assert near.shape == far.shape == shape


@pytest.mark.parametrize("dim", [3, 6])
def test_vmap_heeds_its_randomness(dim):
    kappa = torch.rand(4, dtype=DOUBLE) + 1

    def near(k):
        return draw_shares(k.expand(3), dim)[0]

    different = torch.vmap(near, randomness="different")(kappa)
    assert different.unique().numel() == 12
    copies = torch.vmap(lambda _: near(kappa[0]), randomness="different")(kappa)
    assert copies.unique().numel() == 12
    same = torch.vmap(lambda _: near(kappa[0]), randomness="same")(kappa)
    assert same.unique().numel() == 3
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(near)(kappa)


@pytest.mark.parametrize("dim", [3, 6])
def test_all_ways_to_differentiate_agree(dim):
    kappa = torch.tensor([0.5, 7.0], dtype=DOUBLE)

    def near(k):
        pyro.set_rng_seed(1)
        return draw_shares(k, dim)[0]

    backward = torch.func.grad(lambda k: near(k).sum())(kappa)
    _, forward = torch.func.jvp(near, (kappa,), (torch.ones_like(kappa),))
    assert_close(forward, backward)
    assert_close(backward, implicit_gradient(near(kappa), 1 - near(kappa), kappa, dim))
    mapped = torch.vmap(torch.func.grad(lambda k: draw_shares(k, dim)[0]), randomness="different")
    assert (mapped(kappa) < 0).all()


def test_traced_draws_are_fresh_and_differentiable():
    kappa = torch.full((1000,), 2.0, requires_grad=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit", DeprecationWarning)
        # Shapes become constants of the trace, as they are meant to.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(lambda k: draw_shares(k, 5)[0], kappa, check_trace=False)
    draws = torch.stack([traced(kappa) for _ in range(20)])
    assert draws.unique().numel() > 19_000
    # The rejection loop runs as often as it needs to, not as often as in the trace.
    gap = float(1 - resultant(2.0, 5))
    assert abs(2 * draws.mean().item() - gap) < 5 * 2 * draws.std().item() / math.sqrt(20_000)
    assert (grad(draws.sum(), kappa)[0] < 0).all()


def test_tensors_that_record_their_origin_keep_it_and_their_gradient():
    kappa = torch.tensor(2.0, requires_grad=True)
    near, _ = draw_shares(track_provenance(kappa, frozenset({"x"})), 5)
    assert get_provenance(near) == {"x"}
    assert grad(near, kappa)[0] < 0
