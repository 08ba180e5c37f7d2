import functools
import math
import pickle

import mpmath
import pyro
import pytest
import scipy.stats
import torch
from pyro.distributions import constraints
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.distributions import kl_divergence
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyro_manifolds.distributions import ManifoldUniform, PowerSpherical, VonMises, VonMisesFisher
from pyro_manifolds.manifolds import Sphere

DOUBLE = torch.float64
DTYPES = [torch.float32, DOUBLE]
DIMS = [2, 3, 5, 10, 16, 20, 40, 64, 128, 1024]
CONCENTRATIONS = [0.0, 1e-3, 0.01, 1.0, 9.0, 15.0, 30.0, 64.0, 200.0, 1e4, 1e6]


@pytest.fixture(autouse=True)
def _fresh():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)


def double(x, **kwargs):
    return torch.tensor(x, dtype=DOUBLE, **kwargs)


def pole(dim, dtype=DOUBLE):
    return torch.eye(dim, dtype=dtype)[0]


def direction(dim, dtype=DOUBLE):
    return normalize(torch.arange(1, dim + 1, dtype=dtype).cos(), dim=-1)


@functools.cache
def exact(kappa, dim):
    """The log-density at the mode, and the mean resultant length."""
    with mpmath.workdps(50):
        k, half = mpmath.mpf(kappa), mpmath.mpf(dim) / 2
        area = mpmath.log(2) + half * mpmath.log(mpmath.pi) - mpmath.loggamma(half)
        if not kappa:
            return -area, mpmath.mpf(0)
        bessel = mpmath.besseli(half - 1, k)
        g = mpmath.log(mpmath.gamma(half) * (2 / k) ** (half - 1) * bessel)
        return k - g - area, mpmath.besseli(half, k) / bessel


def points_around(loc):
    """The location, its antipode, and points at many distances."""
    noise = normalize(torch.randn(6, len(loc), dtype=loc.dtype), dim=-1)
    near = [loc + s * x for s, x in zip((1e-4, 1e-2, 0.3, 1, 3, -100), noise, strict=True)]
    return torch.stack([loc, -loc, *(normalize(x, dim=-1) for x in near)])


def half_squared_chord(loc, points):
    """1 - mu.x between the unit vectors that are meant, to all digits."""
    with mpmath.workdps(50):
        mu = mpmath.matrix(loc.tolist())
        mu /= mpmath.norm(mu)
        found = []
        for point in points.tolist():
            x = mpmath.matrix(point)
            found.append(mpmath.norm(x / mpmath.norm(x) - mu) ** 2 / 2)
        return found


# Density.


# The error is counted in units of the largest of 1, |log p| and the two terms, the peak and the
# fall from it, that log p is the difference of; float32 rounds unit vectors to 1e-7.
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 4e-7), (DOUBLE, 2e-14)])
@pytest.mark.parametrize("dim", DIMS)
def test_log_prob_and_its_slopes_agree_with_mpmath(dim, dtype, rtol):
    loc = direction(dim, dtype).requires_grad_()
    x = points_around(loc.detach())
    chords = half_squared_chord(loc.detach(), x)
    for kappa in CONCENTRATIONS:
        concentration = torch.full((8,), kappa, dtype=dtype, requires_grad=True)
        log_prob = VonMisesFisher(loc, concentration).log_prob(x)
        assert log_prob.dtype == dtype
        peak, a = exact(concentration[0].item(), dim)
        falls = [concentration[0].item() * chord for chord in chords]
        expected = double([float(peak - fall) for fall in falls])
        unit = double([float(max(1, abs(peak), fall)) for fall in falls])
        assert ((log_prob.double() - expected).abs() <= rtol * unit).all()
        # mu.x - A, in units of the larger of 1 - A and 1 - mu.x.
        by_loc, slope = grad(log_prob.sum(), [loc, concentration])
        expected = double([float((1 - a) - chord) for chord in chords])
        unit = double([float(max(1 - a, chord)) for chord in chords])
        assert ((slope.double() - expected).abs() <= rtol * unit).all()
        assert by_loc.isfinite().all()


def test_log_prob_on_the_circle_is_that_of_von_mises():
    angle, kappa = double([0.3, -2.0, 3.1]), double([0.0, 2.0, 500.0])
    x = torch.stack([angle.cos(), angle.sin()], -1)
    expected = VonMises(double(0.5), kappa).log_prob(angle)
    loc = double([math.cos(0.5), math.sin(0.5)])
    found = VonMisesFisher(loc, kappa)
    assert_close(found.log_prob(x), expected, rtol=0, atol=1e-12)
    assert_close(found.entropy(), VonMises(double(0.5), kappa).entropy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dim", [2, 3, 8])
def test_log_prob_and_entropy_agree_with_scipy(dim):
    loc, x = direction(dim), points_around(direction(dim))
    law = scipy.stats.vonmises_fisher(loc.numpy(), 7.0)
    d = VonMisesFisher(loc, double(7.0))
    assert_close(d.log_prob(x), torch.from_numpy(law.logpdf(x.numpy())), rtol=0, atol=1e-12)
    assert_close(d.entropy().item(), law.entropy(), rtol=0, atol=1e-12)


def test_uniform_limit():
    for dim, area in {2: 1.837877066409345, 3: 2.531024246969291, 16: 1.325824906289732}.items():
        d = VonMisesFisher(pole(dim), double(0.0))
        assert_close(d.log_prob(-pole(dim)).item(), -area, rtol=1e-14, atol=0)
        assert_close(d.entropy().item(), area, rtol=1e-14, atol=0)
        assert d.kl_to_uniform() == d.mean_resultant == 0


@pytest.mark.parametrize("dim", [3, 20])
def test_log_prob_derivatives_agree_with_finite_differences(dim):
    mu, x = direction(dim), torch.arange(dim, dtype=DOUBLE).sin()

    def log_prob(mu, kappa, x):
        return VonMisesFisher(normalize(mu, dim=-1), kappa).log_prob(normalize(x, dim=-1))

    args = [v.requires_grad_() for v in (mu, double([0.5, 40.0]), x)]
    assert gradcheck(log_prob, args)
    assert gradgradcheck(log_prob, args)


# Draws.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 3, 16, 128, 1024])
def test_draws_lie_on_the_sphere_and_fit(dim, dtype):
    kappa = torch.tensor([0.0, 1e-3, 0.5, 15.0, 1e3, 1e6], dtype=dtype)
    loc = direction(dim, dtype)
    d = VonMisesFisher(loc, kappa)
    x = d.sample((max(1000, 40_000 // dim),))
    assert x.dtype == dtype
    assert constraints.sphere.check(x).all()
    # 1 - mu.x, by the chord, has the mean 1 - A.
    gap = 0.5 * (x - loc).double().square().sum(-1)
    expected = double([float(1 - exact(k, dim)[1]) for k in kappa.tolist()])
    error = gap.std(0) / len(x) ** 0.5
    # float32 assembles draws at angles of 1e-3 with an error of 1e-7: 1e-4 of the gap.
    assert ((gap.mean(0) - expected).abs() < 5 * error + 1e-4 * expected).all()
    # Across, nothing is preferred: neither in the mean nor in the square.
    side = normalize(pole(dim) - loc.double()[0] * loc.double(), dim=-1)
    tangent = (x.double() * side).sum(-1)
    assert (tangent.mean(0).abs() < 5 * tangent.std(0) / len(x) ** 0.5 + 1e-8).all()
    square = tangent.square() - gap * (2 - gap) / (dim - 1)
    assert (square.mean(0).abs() < 5 * square.std(0) / len(x) ** 0.5 + 1e-4 * expected).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("dim", "kappa"), [(2, 1e-3), (2, 3.0), (2, 1e6), (3, 0.7), (5, 2.0), (16, 8.0), (128, 64.0)]
)
def test_pathwise_gradient_is_the_exact_gradient(dim, kappa, dtype):
    draws = 200_000 // max(1, dim // 3)
    mu, a = direction(dim, dtype), torch.arange(1, dim + 1, dtype=DOUBLE).sin()

    def expectation(mu, kappa):
        # E of a.x + (a.x)^2, where E t^2 = 1 - (d - 1) A / kappa with t = mu.x.
        t, t2 = double(float(exact(kappa, dim)[1])), double(0.0)
        with mpmath.workdps(40):
            t2 = double(float(1 - (dim - 1) * exact(kappa, dim)[1] / kappa))
        along = (a * mu).sum()
        across = a.square().sum() - along**2
        return t * along + t2 * along**2 + (1 - t2) / (dim - 1) * across

    leaf = mu.double().requires_grad_()
    (exact_mu,) = grad(expectation(normalize(leaf, dim=-1), kappa), leaf)
    step = 1e-4 * kappa
    with torch.no_grad():
        sides = [expectation(normalize(leaf, dim=-1), kappa + s) for s in (step, -step)]
    exact_kappa = (sides[0] - sides[1]) / (2 * step)
    many_mu = mu.expand(draws, dim).clone().requires_grad_()
    many_kappa = torch.full((draws,), kappa, dtype=dtype, requires_grad=True)
    x = VonMisesFisher(normalize(many_mu, dim=-1), many_kappa).rsample()
    ax = (x * a.to(dtype)).sum(-1)
    found = grad((ax + ax**2).sum(), [many_mu, many_kappa])
    for per_draw, expected in zip(found, (exact_mu, exact_kappa), strict=True):
        assert per_draw.isfinite().all()
        error = per_draw.double().std(0) / draws**0.5
        # The direction is rounded, and its gradient is of order one.
        floor = 1e-4 * abs(expected) if per_draw.dim() == 1 else 1e-6
        assert ((per_draw.double().mean(0) - expected).abs() < 5 * error + floor).all()


@pytest.mark.parametrize("dim", [2, 3, 4, 128])
@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1.0, 1e3, 1e6, 1e8])
def test_extreme_concentrations_are_finite_in_float32(dim, kappa):
    loc = pole(dim, torch.float32).expand(1000, dim).clone().requires_grad_()
    concentration = torch.full((1000,), kappa, requires_grad=True)
    d = VonMisesFisher(loc, concentration)
    x = d.rsample()
    values = x, d.log_prob(x), d.log_prob(loc), d.log_prob(-loc), d.entropy(), d.mean_resultant
    for quantity in values:
        assert quantity.isfinite().all()
        gradients = grad(
            quantity.sum(), [loc, concentration], retain_graph=True, allow_unused=True
        )
        assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("dim", [3, 16])
def test_own_draws_keep_a_sane_log_prob_in_float32(dim):
    """Their mean is minus the entropy, which a difference 1 - mu.x would miss by many nats."""
    d = VonMisesFisher(pole(dim, torch.float32), torch.tensor(1e6))
    log_p = d.log_prob(d.sample((20_000,)))
    assert (log_p.mean() + d.entropy()).abs() < 5 * log_p.std() / 20_000**0.5


def test_nan_concentration_gives_nan_instead_of_an_endless_loop():
    concentration = torch.tensor([math.nan, 1.0])
    d = VonMisesFisher(pole(5, torch.float32), concentration, validate_args=False)
    assert d.sample().isnan().any(-1).tolist() == [True, False]


# Divergences.


@pytest.mark.parametrize("family", [VonMisesFisher, PowerSpherical])
@pytest.mark.parametrize("dim", [2, 3, 6])
def test_divergences_agree_with_draws(dim, family):
    q = family(direction(dim), double([0.5, 20.0]))
    p = VonMisesFisher(normalize(direction(dim) + 0.3 * pole(dim), dim=-1), double(5.0))
    x = q.sample((100_000,))
    draws = q.log_prob(x) - p.log_prob(x)
    error = draws.std(0) / len(x) ** 0.5
    assert ((draws.mean(0) - kl_divergence(q, p)).abs() < 5 * error).all()


def test_divergences_broadcast_and_vanish_between_equal_laws():
    q = VonMisesFisher(torch.eye(3), torch.tensor([0.0, 2.0, 1e6]))
    assert not kl_divergence(q, q).any()
    p = VonMisesFisher(torch.eye(3)[0], 2.0).expand((4, 1))
    assert kl_divergence(q, p).shape == (4, 3)
    assert kl_divergence(PowerSpherical(torch.eye(3), 2.0), p).shape == (4, 3)
    assert_close(kl_divergence(q, ManifoldUniform(Sphere(2))), q.kl_to_uniform())
    uniform = VonMisesFisher(torch.eye(3)[1], 0.0)
    assert_close(kl_divergence(q, uniform), q.kl_to_uniform(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", [VonMisesFisher, PowerSpherical])
def test_laws_on_different_spheres_are_refused(family):
    q, p = family(torch.eye(3), 1.0), VonMisesFisher(torch.eye(4)[:3], 1.0)
    with pytest.raises(NotImplementedError, match=f"{family.__name__}.*VonMisesFisher"):
        kl_divergence(q, p)
    with pytest.raises(NotImplementedError, match=r"needs Sphere\(2\)"):
        kl_divergence(VonMisesFisher(torch.eye(3), 1.0), ManifoldUniform(Sphere(3)))


# In Pyro.


def test_shapes():
    d = VonMisesFisher(normalize(torch.ones(3, 1, 4), dim=-1), torch.ones(2))
    assert d.batch_shape == (3, 2)
    assert d.event_shape == (4,)
    assert d.rsample((5,)).shape == (5, 3, 2, 4)
    assert d.log_prob(d.sample((5,))).shape == (5, 3, 2)
    expanded = d.expand([6, 3, 2])
    assert type(expanded) is VonMisesFisher
    assert expanded.expand((7, 6, 3, 2)).rsample().shape == (7, 6, 3, 2, 4)
    assert expanded.entropy().shape == expanded.mean_resultant.shape == (6, 3, 2)
    assert_close(expanded.mean, expanded.loc)
    assert expanded.to_event(1).event_shape == (2, 4)
    shapes = VonMisesFisher.infer_shapes(loc=torch.Size([3, 1, 4]), concentration=torch.Size([2]))
    assert shapes == (d.batch_shape, d.event_shape)
    assert VonMisesFisher(pole(3), 2.0).batch_shape == ()
    assert VonMisesFisher(pole(3), 2.0).concentration.dtype == DOUBLE


def test_pyro_sites():
    loc = pole(5, torch.float32).requires_grad_()

    def model():
        with pyro.plate("n", 4):
            return pyro.sample("x", VonMisesFisher(loc, 2.0).mask(torch.tensor(True)))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (4,)
    assert trace.nodes["x"]["value"].requires_grad


def test_pickle():
    d = VonMisesFisher(pole(3), 2.0)
    assert_close(pickle.loads(pickle.dumps(d)).log_prob(pole(3)), d.log_prob(pole(3)))


@pytest.mark.parametrize(
    ("loc", "concentration", "message"),
    [
        (torch.eye(3), torch.ones(3, 1), r"got \(3, 1\); drop its last dimension"),
        (torch.eye(3), torch.ones(4), r"broadcastable to loc.shape\[:-1\] = \(3,\), got \(4,\)"),
        (torch.ones(1), torch.tensor(1.0), "d of at least 2"),
        (torch.tensor(1.0), torch.tensor(1.0), "d of at least 2"),
        (2 * torch.eye(3), torch.tensor(1.0), "norm of 2; divide it by its norm"),
        (torch.eye(3), torch.tensor(-1.0), "concentration"),
        (torch.eye(3), torch.tensor(math.nan), "concentration"),
    ],
)
def test_bad_arguments_are_refused(loc, concentration, message):
    with pytest.raises(ValueError, match=message):
        VonMisesFisher(loc, concentration)


@pytest.mark.parametrize("dim", [3, 4])
def test_rsample_works_under_vmap(dim):
    loc = normalize(torch.randn(5, dim, dtype=DOUBLE), dim=-1)
    concentration = double([0.0, 0.5, 2.0, 60.0, 1e6])

    def draw(loc, concentration):
        return VonMisesFisher(loc, concentration, validate_args=False).rsample()

    x = torch.vmap(draw, randomness="different")(loc, concentration)
    assert constraints.sphere.check(x).all()

    def loss(concentration, loc):
        return draw(loc, concentration)[0]

    slopes = torch.vmap(torch.func.grad(loss), randomness="different")(concentration, loc)
    assert slopes.isfinite().all()
    assert slopes[:3].all()


def test_an_empty_batch_has_an_empty_density():
    d = VonMisesFisher(torch.eye(3), torch.tensor(2.0)).expand((0, 3))
    assert d.log_prob(d.sample()).shape == (0, 3)


def test_the_wider_type_is_kept_and_infinity_refused():
    loc = torch.tensor([1, 0, 0])
    wide = VonMisesFisher(loc.float(), torch.tensor(2.5, dtype=torch.float64))
    assert wide.log_prob(loc.double()).dtype == torch.float64
    narrow = VonMisesFisher(loc, 2.5).log_prob(loc.float())
    assert_close(narrow.double(), wide.log_prob(loc.double()))
    with pytest.raises(ValueError, match=r"VonMisesFisher: expected a finite concentration.*inf"):
        VonMisesFisher(loc.float(), torch.inf)
