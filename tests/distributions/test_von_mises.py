import math
import pickle

import mpmath
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from pyro_manifolds.distributions.von_mises import VonMises
from pyro_manifolds.ops.von_mises import kl_to_uniform, mean_resultant

DOUBLE = torch.float64
DRAWS = 400_000


@pytest.fixture(autouse=True)
def _fresh():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)


def double(x, **kwargs):
    return torch.tensor(x, dtype=DOUBLE, **kwargs)


def circle(steps=4000):
    """Nodes whose mean times 2 pi integrates periodic functions, with geometric convergence."""
    return torch.arange(steps, dtype=DOUBLE) * (2 * math.pi / steps) - math.pi


@pytest.mark.parametrize("kappa", [0.0, 1e-6, 0.7, 20.0, 31.99, 32.01, 1e4])
def test_integrates_to_one(kappa):
    total = VonMises(double(1.3), double(kappa)).log_prob(circle()).exp().mean() * 2 * math.pi
    assert_close(total, double(1.0), rtol=0, atol=1e-13)


@pytest.mark.parametrize("offset", [0.0, 1e-4, 0.3, 3.0])
@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1.0, 50.0, 1e4, 1e6, 1e8])
def test_log_prob_and_gradients_in_float32_agree_with_mpmath(kappa, offset):
    loc = torch.tensor(0.0, requires_grad=True)
    concentration = torch.tensor(kappa, requires_grad=True)
    value = torch.tensor(offset)
    found = VonMises(loc, concentration).log_prob(value)
    found = torch.stack([found.detach(), *grad(found, [loc, concentration])])
    with mpmath.workdps(40):
        k, t = mpmath.mpf(concentration.item()), mpmath.mpf(value.item())
        a = mpmath.besseli(1, k) / mpmath.besseli(0, k)
        normaliser = mpmath.log(2 * mpmath.pi * mpmath.besseli(0, k))
        expected = [k * mpmath.cos(t) - normaliser, k * mpmath.sin(t), mpmath.cos(t) - a]
    # Each term of the sum is rounded once or twice: 2e-7 of the largest.
    expected = torch.tensor([float(v) for v in expected])
    assert_close(found, expected, rtol=5e-7, atol=5e-7)


def test_log_prob_takes_any_representative():
    d = VonMises(double([0.3, 5.0]), double([2.0, 9.0]))
    value = double([1.0, -2.0])
    assert_close(d.log_prob(value + 6 * math.pi), d.log_prob(value), rtol=0, atol=1e-13)
    shifted = VonMises(d.loc - 2 * math.pi, d.concentration)
    assert_close(shifted.log_prob(value), d.log_prob(value), rtol=0, atol=1e-13)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="support"):
            d.log_prob(double(bad))


def test_log_prob_derivatives_agree_with_finite_differences():
    args = [double(x, requires_grad=True) for x in ([0.3, -2.0], [0.5, 40.0], [1.0, -1.8])]

    def log_prob(loc, concentration, value):
        return VonMises(loc, concentration).log_prob(value)

    assert gradcheck(log_prob, args)
    assert gradgradcheck(log_prob, args)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_draws_fit_and_are_canonical(dtype):
    kappa = torch.tensor([0.0, 1e-6, 0.5, 4.0, 100.0, 1e6, 1e8, 1e12], dtype=dtype)
    d = VonMises(torch.tensor(3.0, dtype=dtype), kappa)
    x = d.sample((DRAWS // 8,))
    assert x.dtype == dtype
    assert d.support.check(x).all()
    assert ((x >= -math.pi) & (x < math.pi)).all()
    # The circular variance, against E 2 sin^2(t / 2) = 1 - A, each in its own standard error; the
    # resolution of float32 around 3 hides concentrations above 1e12.
    spread = 2 * (0.5 * (x.double() - d.loc.double())).sin().square()
    expected = d.variance.double()
    error = spread.std(0) / x.shape[0] ** 0.5
    fine = expected > 100 * torch.finfo(dtype).eps ** 2
    assert (((spread.mean(0) - expected).abs() < 5 * error) | ~fine).all()
    sines = (x.double() - d.loc.double()).sin()
    assert ((sines.mean(0).abs() < 5 * sines.std(0) / x.shape[0] ** 0.5) | ~fine).all()


@pytest.mark.parametrize("kappa", [0.6, 3.0, 40.0])
def test_draws_fit_on_a_grid(kappa):
    d = VonMises(double(2.5), double(kappa))
    x = d.sample((100_000,))
    fine = circle(32_000)
    mass = (
        d.log_prob(fine + math.pi / 32_000).exp().reshape(32, 1000).sum(-1) * 2 * math.pi / 32_000
    )
    cell = ((x + math.pi) / (2 * math.pi) * 32).long()
    counts = torch.bincount(cell, minlength=32).double()
    used = mass * len(x) > 10
    expected = mass[used] * len(x)
    chi2 = ((counts[used] - expected).square() / expected).sum()
    # Mean n - 1 and variance 2 (n - 1): five standard deviations.
    freedom = used.sum() - 1
    assert chi2 < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("kappa", [0.0, 0.4, 3.0, 25.0])
def test_pathwise_gradient_is_the_gradient_by_quadrature(kappa):
    def f(t):
        return (t - 0.4).cos() + 0.5 * (2 * t + 1).sin()

    loc, concentration = double(2.9, requires_grad=True), double(kappa, requires_grad=True)
    d = VonMises(loc, concentration)
    t = circle()
    exact = grad((d.log_prob(t).exp() * f(t)).mean() * 2 * math.pi, [loc, concentration])
    many = VonMises(
        loc.detach().expand(DRAWS).clone().requires_grad_(),
        concentration.detach().expand(DRAWS).clone().requires_grad_(),
    )
    per_draw = grad(f(many.rsample()).sum(), [many.loc, many.concentration])
    for found, expected in zip(per_draw, exact, strict=True):
        assert (found.mean() - expected).abs() < 5 * found.std() / DRAWS**0.5
        assert found.std() > 0


def test_gradient_follows_the_quantiles():
    """Each draw moves so that the probability on its left stays the same."""
    kappa, step = double([0.3, 2.0, 30.0], requires_grad=True), 1e-4
    d = VonMises(double([0.0, 0.0, 0.0]), kappa)
    x = d.rsample()
    slope = grad(x.sum(), kappa)[0]

    def left(angle, k):
        nodes, weights = (
            torch.linspace(0, 1, 20_001, dtype=DOUBLE),
            torch.ones(20_001, dtype=DOUBLE),
        )
        weights[1:-1:2], weights[2:-1:2] = 4, 2  # Simpson's rule
        density = (
            VonMises(double(0.0), k.unsqueeze(-1)).log_prob(angle.unsqueeze(-1) * nodes).exp()
        )
        return (density * weights).sum(-1) * angle / 60_000

    with torch.no_grad():
        moved = [left(x + s * slope, kappa + s) for s in (step, -step)]
        still = [left(x + 0 * slope, kappa + s) for s in (step, -step)]
    # What is left is of third order in the step; without the movement it is of first order.
    assert (moved[0] - moved[1]).abs().max() < 1e-4 * (still[0] - still[1]).abs().min()


@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e8, 1e12])
def test_extreme_concentrations_are_finite_in_float32(kappa):
    loc = torch.full((1000,), 3.1, requires_grad=True)
    concentration = torch.full((1000,), kappa, requires_grad=True)
    d = VonMises(loc, concentration)
    x = d.rsample()
    for quantity in (x, d.log_prob(x), d.entropy(), d.variance):
        assert quantity.isfinite().all()
        gradients = grad(
            quantity.sum(), [loc, concentration], retain_graph=True, allow_unused=True
        )
        assert all(g is None or g.isfinite().all() for g in gradients)


def test_nan_concentration_gives_nan_instead_of_an_endless_loop():
    d = VonMises(torch.zeros(2), torch.tensor([math.nan, 1.0]), validate_args=False)
    assert d.sample().isnan().tolist() == [True, False]


def test_entropy_mean_and_variance():
    kappa = double([0.0, 1e-3, 2.0, 50.0])
    d = VonMises(double(4.0), kappa)
    log_p = d.log_prob(circle().unsqueeze(-1))
    entropy = -(log_p.exp() * log_p).mean(0) * 2 * math.pi
    assert_close(d.entropy(), entropy, rtol=0, atol=1e-13)
    assert_close(d.entropy(), math.log(2 * math.pi) - kl_to_uniform(kappa))
    assert_close(d.mean, double([4 - 2 * math.pi] * 4))
    assert_close(d.mode, d.mean)
    assert_close(d.variance, 1 - mean_resultant(kappa))


def test_uniform_and_normal_limits():
    assert_close(
        VonMises(double(1.0), double(0.0)).log_prob(circle(8)),
        double([-math.log(2 * math.pi)] * 8),
    )
    kappa = double(1e10)
    x = double([0.0, 1e-5, 3e-5])
    normal = dist.Normal(double(0.0), kappa.rsqrt())
    # The laws differ by kappa t^4 / 24 + 1 / (8 kappa).
    assert_close(VonMises(double(0.0), kappa).log_prob(x), normal.log_prob(x), rtol=0, atol=1e-9)


def test_shapes():
    d = VonMises(torch.zeros(3, 1), torch.ones(4))
    assert d.batch_shape == (3, 4)
    assert d.event_shape == ()
    assert d.rsample((5,)).shape == (5, 3, 4)
    assert d.log_prob(torch.zeros(5, 1, 1)).shape == (5, 3, 4)
    expanded = d.expand([2, 3, 4])
    assert type(expanded) is VonMises
    assert expanded.expand((6, 2, 3, 4)).rsample().shape == (6, 2, 3, 4)
    assert expanded.entropy().shape == (2, 3, 4)
    torus = VonMises(torch.zeros(5, 2), 1.0).to_event(1)
    assert torus.event_shape == (2,)
    assert torus.log_prob(torus.sample()).shape == (5,)
    assert VonMises(0.0, 1.0).sample().shape == ()
    assert VonMises.infer_shapes(loc=torch.Size([3]), concentration=()) == ((3,), ())


def test_pyro_sites():
    loc = torch.tensor(0.5, requires_grad=True)

    def model():
        with pyro.plate("n", 4):
            return pyro.sample("x", VonMises(loc, 2.0).mask(torch.tensor(True)))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (4,)
    assert trace.nodes["x"]["value"].requires_grad


def test_pickle():
    d = pickle.loads(pickle.dumps(VonMises(torch.zeros(2), torch.ones(2))))
    assert_close(d.log_prob(torch.zeros(2)), VonMises(0.0, 1.0).log_prob(torch.zeros(2)))


@pytest.mark.parametrize(
    ("loc", "concentration", "message"),
    [
        (torch.zeros(32), torch.ones(32, 1), r"got \(32, 1\); drop its last dimension"),
        (torch.zeros(3), torch.ones(4), r"broadcastable to loc.shape = \(3,\), got \(4,\)"),
        (torch.zeros(3), torch.tensor(-1.0), "concentration"),
        (torch.zeros(3), torch.tensor(math.nan), "concentration"),
        (torch.tensor(math.nan), torch.tensor(1.0), "loc"),
    ],
)
def test_bad_arguments_are_refused(loc, concentration, message):
    with pytest.raises(ValueError, match=message):
        VonMises(loc, concentration)


def log_prob(loc, concentration, value):
    return VonMises(loc, concentration, validate_args=False).log_prob(value)


def test_vmap_and_func_grad():
    args = [double([0.3, 1.0, -2.0]), double([0.0, 2.0, 60.0]), double([1.0, -1.0, 3.0])]
    assert_close(torch.vmap(log_prob)(*args), log_prob(*args))
    args[1].requires_grad_()
    expected = grad(log_prob(*args).sum(), args[1])[0]
    assert_close(torch.vmap(torch.func.grad(log_prob, argnums=1))(*args), expected)


# Inductor itself imports what torch has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_log_prob_compiles_to_a_full_graph():
    torch._dynamo.reset()
    args = [torch.tensor(x, requires_grad=True) for x in ([0.3, 1.0], [2.0, 60.0], [1.0, -1.0])]
    found, expected = torch.compile(log_prob, fullgraph=True)(*args), log_prob(*args)
    assert_close(found, expected)
    assert_close(grad(found.sum(), args), grad(expected.sum(), args))
    pyro.enable_validation(True)  # torch.compile switches it off


def test_rsample_differentiates_forward_as_well_as_backward():
    concentration = torch.tensor([0.5, 7.0])

    def draw(k):
        pyro.set_rng_seed(1)
        return VonMises(torch.zeros(2), k).rsample()

    _, forward = torch.func.jvp(draw, (concentration,), (torch.ones(2),))
    backward = torch.func.grad(lambda k: draw(k).sum())(concentration)
    assert_close(forward, backward)
    assert backward.ne(0).all()
