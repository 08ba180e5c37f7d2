import math
import pickle

import mpmath
import numpy as np
import pyro
import pytest
import torch
from pyro.distributions import constraints
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyro_manifolds.distributions.power_spherical import PowerSpherical
from pyro_manifolds.ops.power_spherical import kl_to_uniform, log_normalizer, mean_resultant

DOUBLE = torch.float64
DRAWS = 400_000


@pytest.fixture(autouse=True)
def _fresh():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)


def double(x, **kwargs):
    return torch.tensor(x, dtype=DOUBLE, **kwargs)


def pole(dim, dtype=DOUBLE):
    return torch.eye(dim, dtype=dtype)[0]


def meridian(dim, nodes=400):
    """Points on a half great circle from the first axis, with weights that integrate over S."""
    x, w = map(torch.from_numpy, np.polynomial.legendre.leggauss(nodes))
    # Nodes crowd at both ends, where odd powers are square roots.
    u = (x + 1) / 2
    angle, w = math.pi * u**2 * (3 - 2 * u), w * math.pi * 3 * u * (1 - u)
    ring = 2 * math.pi ** ((dim - 1) / 2) / math.gamma((dim - 1) / 2)  # area of S^{d-2}
    points = torch.zeros(nodes, dim, dtype=DOUBLE)
    points[:, 0], points[:, 1] = angle.cos(), angle.sin()
    return points, w * ring * angle.sin() ** (dim - 2)


def exact(kappa, dim):
    """log_normalizer and kl_to_uniform, each with its derivative, to 40 digits."""
    with mpmath.workdps(40):
        k, b = mpmath.mpf(kappa), mpmath.mpf(dim - 1) / 2
        h = mpmath.loggamma(b + k) + mpmath.loggamma(2 * b)
        h -= mpmath.loggamma(b) + mpmath.loggamma(2 * b + k)
        slope = mpmath.psi(0, b + k) - mpmath.psi(0, 2 * b + k)
        bend = mpmath.psi(1, b + k) - mpmath.psi(1, 2 * b + k)
        return [float(v) for v in (h, slope, k * slope - h, k * bend)]


@pytest.mark.parametrize("dim", [2, 3, 16, 33, 128, 1024])
@pytest.mark.parametrize("kappa", [1e-6, 1e-3, 0.015, 0.6, 2.0, 17.0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_normalizer_and_kl_agree_with_mpmath(kappa, dim, dtype):
    kappa = torch.tensor(kappa, dtype=dtype, requires_grad=True)
    expected = torch.tensor(exact(kappa.item(), dim), dtype=dtype)
    values = [log_normalizer(kappa, dim), kl_to_uniform(kappa, dim)]
    slopes = [grad(v, kappa)[0] for v in values]
    single = dtype == torch.float32
    # The normaliser is a difference of two numbers near 2 b log 2b, each rounded. The divergence
    # of small concentrations and all the slopes are free of that: their error is relative.
    assert_close(values[0], expected[0], rtol=2e-7 if single else 0, atol=2e-12)
    assert_close(values[1], expected[2], rtol=2e-7 if single else 1e-11, atol=0)
    assert_close(torch.stack(slopes), expected[[1, 3]], rtol=2e-7 if single else 2e-14, atol=0)


@pytest.mark.parametrize(
    ("dim", "kappa", "height", "resultant", "kl"),
    [
        (2, 50, 32.1264826240202, 0.980392156862745, 2.03337627900209),
        (5, 2, 0.182321556793955, 0.333333333333333, 0.303972804325936),
        (128, 15, 0.743342710116241, 0.105633802816901, 0.720073152890735),
        (1024, 1e-3, -4.88507962809899e-7, 9.77516151010605e-7, 4.89474795190849e-10),
        (1024, 1e6, 689467.80107336, 0.998978045459495, 3168.27136760085),
    ],
)
def test_published_digits(dim, kappa, height, resultant, kl):
    kappa = double(float(kappa))
    found = log_normalizer(kappa, dim) + kappa * math.log(2)
    assert_close(found, double(height), rtol=1e-13, atol=2e-12)
    assert_close(mean_resultant(kappa, dim), double(resultant), rtol=2e-14, atol=0)
    assert_close(kl_to_uniform(kappa, dim), double(kl), rtol=5e-12, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_uniform_limit(dim):
    area = {2: 1.837877066409345, 3: 2.531024246969291, 16: 1.325824906289732}[dim]
    d = PowerSpherical(pole(dim), double(0.0))
    assert_close(d.log_prob(-pole(dim)).item(), -area, rtol=1e-14, atol=0)
    assert_close(d.entropy().item(), area, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 5, 16])
@pytest.mark.parametrize("kappa", [0.0, 0.3, 7.0, 300.0])
def test_integrates_to_one_and_entropy_agrees_with_quadrature(dim, kappa):
    d = PowerSpherical(pole(dim), double(kappa))
    points, weights = meridian(dim)
    mass = d.log_prob(points).exp() * weights
    # The square-root singularity of odd powers at the antipode limits neither.
    assert_close(mass.sum(), double(1.0), rtol=0, atol=1e-10)
    assert_close(-(mass * d.log_prob(points)).sum(), d.entropy(), rtol=1e-10, atol=1e-10)
    resultant = (mass * points[:, 0]).sum()
    assert_close(resultant, mean_resultant(d.concentration, dim), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("dim", [2, 16, 128])
@pytest.mark.parametrize("kappa", [1e-6, 1.0, 1e3, 1e6])
def test_poles_have_finite_values_and_gradients(dim, kappa, dtype):
    concentration = torch.tensor(kappa, dtype=dtype, requires_grad=True)
    loc = normalize(torch.arange(1, dim + 1, dtype=dtype), dim=-1)
    eps = torch.finfo(dtype).eps
    for value in (loc, -loc):
        nearby = normalize(value + 10 * eps * pole(dim, dtype), dim=-1)
        for x in (value, nearby):
            mu = loc.clone().requires_grad_()
            found = PowerSpherical(mu, concentration).log_prob(x)
            assert found.isfinite()
            assert all(g.isfinite().all() for g in grad(found, [mu, concentration]))


def test_log_prob_keeps_its_precision_near_both_poles_in_float32():
    kappa, angle = torch.tensor(1e6), torch.tensor([1e-4, 1e-3, 3.0, math.pi - 1e-3])
    x = torch.stack([angle.cos(), angle.sin()], -1)
    d = PowerSpherical(pole(2, torch.float32), kappa)
    # The point that was given, not the angle, is the argument.
    exact_angle = torch.atan2(x[:, 1].double(), x[:, 0].double())
    height = 2e6 * (0.5 * exact_angle).cos().log()
    expected = height - math.log(2 * math.pi) - log_normalizer(kappa.double(), 2)
    assert_close(d.log_prob(x), expected.float(), rtol=1e-6, atol=1e-5)


def test_log_prob_derivatives_agree_with_finite_differences():
    mu, x = double([0.3, -1.0, 0.5]), double([1.0, 0.2, 0.4])

    def log_prob(mu, kappa, x):
        return PowerSpherical(normalize(mu, dim=-1), kappa).log_prob(normalize(x, dim=-1))

    args = [v.requires_grad_() for v in (mu, double([0.5, 40.0]), x)]
    assert gradcheck(log_prob, args)
    assert gradgradcheck(log_prob, args)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("dim", [2, 3, 16, 128, 1024])
def test_draws_lie_on_the_sphere_and_fit(dim, dtype):
    kappa = torch.tensor([1e-6, 0.5, 15.0, 1e3, 1e6], dtype=dtype)
    loc = normalize(torch.arange(1, dim + 1, dtype=dtype), dim=-1)
    d = PowerSpherical(loc, kappa)
    x = d.sample((max(1000, 40_000 // dim),))
    assert x.dtype == dtype
    assert constraints.sphere.check(x).all()
    # C = |x - mu|^2 / 4 is a beta variable: mean and second moment in their standard errors.
    c = 0.25 * (x - loc).double().square().sum(-1)
    b = double(0.5 * (dim - 1))
    beta = torch.distributions.Beta(b, b + kappa.double())
    fourth = torch.stack([beta.mean, beta.variance + beta.mean**2])
    for moment, expected in zip((c, c**2), fourth, strict=True):
        error = moment.std(0) / len(moment) ** 0.5
        # float32 assembles draws at angles of 1e-3 with an error of 1e-7: 1e-4 of C.
        assert ((moment.mean(0) - expected).abs() < 5 * error + 1e-4 * expected).all()
    # The mean vector, tangentially.
    side = normalize(pole(dim) - loc.double()[0] * loc.double(), dim=-1)
    tangent = (x.double() * side).sum(-1)
    assert (tangent.mean(0).abs() < 5 * tangent.std(0) / len(x) ** 0.5 + 1e-8).all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(
    ("dim", "kappa"), [(2, 1e-3), (2, 3.0), (2, 1e6), (3, 0.7), (5, 20.0), (16, 8.0)]
)
def test_pathwise_gradient_is_the_exact_gradient(dim, kappa, dtype):
    draws = DRAWS // max(1, dim // 3)
    mu = normalize(torch.arange(1, dim + 1, dtype=dtype).cos(), dim=-1)
    a = torch.arange(1, dim + 1, dtype=DOUBLE).sin()

    def expectation(mu, kappa):
        # E of a.x + (a.x)^2, by the moments of mu.x.
        b = 0.5 * (dim - 1)
        c = b / (2 * b + kappa)
        c2 = c * (b + 1) / (2 * b + kappa + 1)
        t, t2 = 1 - 2 * c, 1 - 4 * c + 4 * c2
        along = (a * mu).sum()
        across = a.square().sum() - along**2
        return t * along + t2 * along**2 + (1 - t2) / (dim - 1) * across

    leaf_mu, leaf_kappa = mu.double().requires_grad_(), double(kappa, requires_grad=True)
    exact_mu, exact_kappa = grad(
        expectation(normalize(leaf_mu, dim=-1), leaf_kappa), [leaf_mu, leaf_kappa]
    )
    many_mu = mu.expand(draws, dim).clone().requires_grad_()
    many_kappa = torch.full((draws,), kappa, dtype=dtype, requires_grad=True)
    x = PowerSpherical(normalize(many_mu, dim=-1), many_kappa).rsample()
    ax = (x * a.to(dtype)).sum(-1)
    found = grad((ax + ax**2).sum(), [many_mu, many_kappa])
    for per_draw, expected in zip(found, (exact_mu, exact_kappa), strict=True):
        assert per_draw.isfinite().all()
        error = per_draw.double().std(0) / draws**0.5
        # The direction is rounded, and its gradient is of order one.
        floor = 0 if per_draw.dim() == 1 else 1e-6
        assert ((per_draw.double().mean(0) - expected).abs() < 5 * error + floor).all()


@pytest.mark.parametrize("dim", [2, 3, 128])
@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1.0, 1e3, 1e6, 1e8])
def test_extreme_concentrations_are_finite_in_float32(dim, kappa):
    loc = pole(dim, torch.float32).expand(1000, dim).clone().requires_grad_()
    concentration = torch.full((1000,), kappa, requires_grad=True)
    d = PowerSpherical(loc, concentration)
    x = d.rsample()
    for quantity in (x, d.log_prob(x), d.entropy()):
        assert quantity.isfinite().all()
        gradients = grad(
            quantity.sum(), [loc, concentration], retain_graph=True, allow_unused=True
        )
        assert all(g is None or g.isfinite().all() for g in gradients)


def test_own_draws_keep_a_sane_log_prob_in_float32():
    """Their mean is minus the entropy, which a difference 1 - mu.x would miss by many nats."""
    d = PowerSpherical(pole(16, torch.float32), torch.tensor(1e6))
    log_p = d.log_prob(d.sample((20_000,)))
    assert (log_p.mean() + d.entropy()).abs() < 5 * log_p.std() / 20_000**0.5


def test_shapes():
    d = PowerSpherical(normalize(torch.ones(3, 1, 4), dim=-1), torch.ones(2))
    assert d.batch_shape == (3, 2)
    assert d.event_shape == (4,)
    assert d.rsample((5,)).shape == (5, 3, 2, 4)
    assert d.log_prob(d.sample((5,))).shape == (5, 3, 2)
    expanded = d.expand([6, 3, 2])
    assert type(expanded) is PowerSpherical
    assert expanded.expand((7, 6, 3, 2)).rsample().shape == (7, 6, 3, 2, 4)
    assert expanded.entropy().shape == (6, 3, 2)
    assert_close(expanded.mean, expanded.loc)
    assert expanded.to_event(1).event_shape == (2, 4)
    shapes = PowerSpherical.infer_shapes(loc=torch.Size([3, 1, 4]), concentration=torch.Size([2]))
    assert shapes == (d.batch_shape, d.event_shape)
    assert PowerSpherical(pole(3), 2.0).batch_shape == ()
    assert PowerSpherical(pole(3), 2.0).concentration.dtype == DOUBLE


def test_pyro_sites():
    loc = pole(3, torch.float32).requires_grad_()

    def model():
        with pyro.plate("n", 4):
            return pyro.sample("x", PowerSpherical(loc, 2.0).mask(torch.tensor(True)))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (4,)
    assert trace.nodes["x"]["value"].requires_grad


def test_pickle():
    d = PowerSpherical(pole(3), 2.0)
    assert_close(pickle.loads(pickle.dumps(d)).log_prob(pole(3)), d.log_prob(pole(3)))


@pytest.mark.parametrize(
    ("loc", "concentration", "message"),
    [
        (torch.eye(3), torch.ones(3, 1), r"got \(3, 1\); drop its last dimension"),
        (torch.eye(3), torch.ones(4), r"broadcastable to loc.shape\[:-1\] = \(3,\), got \(4,\)"),
        (torch.ones(1), torch.tensor(1.0), "d of at least 2"),
        (torch.tensor(1.0), torch.tensor(1.0), "d of at least 2"),
        (2 * torch.eye(3), torch.tensor(1.0), "norm of 2; divide it by its norm"),
        (torch.full((3,), math.nan), torch.tensor(1.0), "norm of nan"),
        (torch.eye(3), torch.tensor(-1.0), "concentration"),
    ],
)
def test_bad_arguments_are_refused(loc, concentration, message):
    with pytest.raises(ValueError, match=message):
        PowerSpherical(loc, concentration)


def test_values_off_the_sphere_are_refused():
    with pytest.raises(ValueError, match="on_manifold"):
        PowerSpherical(pole(3), 1.0).log_prob(2 * pole(3))


def log_prob(loc, concentration, value):
    return PowerSpherical(loc, concentration, validate_args=False).log_prob(value)


def batch():
    torch.manual_seed(0)
    points = [normalize(torch.randn(3, 4, dtype=DOUBLE), dim=-1) for _ in range(2)]
    return points[0], double([0.0, 2.0, 60.0]), points[1]


def test_vmap_and_func_grad():
    args = batch()
    assert_close(torch.vmap(log_prob)(*args), log_prob(*args))
    args[1].requires_grad_()
    expected = grad(log_prob(*args).sum(), args[1])[0]
    assert_close(torch.vmap(torch.func.grad(log_prob, argnums=1))(*args), expected)
    slope = torch.vmap(torch.func.grad(lambda k: kl_to_uniform(k, 4)))(args[1].detach())
    assert_close(slope, grad(kl_to_uniform(args[1], 4).sum(), args[1])[0])


def test_rsample_works_under_vmap():
    loc, concentration, _ = batch()

    def draw(loc, concentration):
        return PowerSpherical(loc, concentration, validate_args=False).rsample()

    x = torch.vmap(draw, randomness="different")(loc, concentration)
    assert constraints.sphere.check(x).all()


# The compiler itself does what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_log_prob_and_kl_compile_to_full_graphs():
    torch._dynamo.reset()
    args = batch()
    assert_close(torch.compile(log_prob, fullgraph=True)(*args), log_prob(*args))
    compiled = torch.compile(kl_to_uniform, fullgraph=True, backend="aot_eager")
    assert_close(compiled(args[1], 4), kl_to_uniform(args[1], 4))
    pyro.enable_validation(True)  # torch.compile switches it off
