"""The complex normal distribution: known values, its real twin, and what it refuses."""

import math
import warnings

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from pyro_manifolds.distributions import ComplexMultivariateNormal, ComplexNormal

PARTS = {"proper": None, "improper": 0.5 - 0.3j}
PRIORS = {"proper": None, "improper": -0.4 + 0.2j}


def number(z):
    return None if z is None else torch.tensor(z, dtype=torch.complex128)


def posterior(rho):
    return ComplexNormal(number(0.3 - 0.4j), 0.7, number(rho))


def prior(rho):
    return ComplexNormal(number(-0.2 + 0.1j), 1.2, number(rho))


def pairs(z):
    return torch.view_as_real(z)


# Calculated with mpmath from the normal density of the two parts.
@pytest.mark.parametrize(
    ("rho", "log_prob", "entropy"),
    [
        (None, -2.472196324502548, 1.431379997971935),
        (0.5 - 0.3j, -3.773405825774652, 1.223622275991103),
    ],
)
def test_density_and_entropy_at_known_values(rho, log_prob, entropy):
    d = posterior(rho)
    assert abs(d.log_prob(number(1.1 + 0.2j)).item() - log_prob) < 1e-14
    assert abs(d.entropy().item() - entropy) < 1e-14


@pytest.mark.parametrize(
    ("q", "p", "expected"),
    [
        ("proper", "proper", 0.765493001465374),
        ("proper", "improper", 0.912601781363825),
        ("improper", "proper", 0.973250723446207),
        ("improper", "improper", 1.230949781122435),
    ],
)
def test_divergence_at_known_values(q, p, expected):
    kl = kl_divergence(posterior(PARTS[q]), prior(PRIORS[p]))
    assert abs(kl.item() - expected) < 1e-14


@pytest.mark.parametrize(
    ("rho", "expected"), [(None, 0.453349887877467), (0.5 - 0.3j, 0.661107609858298)]
)
def test_divergence_to_the_standard_normal(rho, expected):
    standard = ComplexNormal(number(0j), 1.0)
    assert abs(kl_divergence(posterior(rho), standard).item() - expected) < 1e-14


def random_pair(seed):
    torch.manual_seed(seed)
    v = torch.randn(50, dtype=torch.complex128)
    args = torch.randn(50, dtype=torch.complex128), torch.rand(50, dtype=torch.float64) + 0.1
    rho = v / (1 + v.abs().square()).sqrt()
    return [ComplexNormal(*args), ComplexNormal(*args, rho)]


@pytest.mark.parametrize("q", random_pair(0), ids=["proper", "improper"])
@pytest.mark.parametrize("p", random_pair(1), ids=["proper", "improper"])
def test_everything_is_as_for_the_pair_of_parts(q, p):
    z = 2 * torch.randn(20, 50, dtype=torch.complex128)
    assert_close(q.log_prob(z), q.to_real().log_prob(pairs(z)), atol=1e-12, rtol=1e-12)
    assert_close(q.entropy(), q.to_real().entropy(), atol=1e-12, rtol=1e-12)
    real = kl_divergence(q.to_real(), p.to_real())
    assert_close(kl_divergence(q, p), real, atol=1e-12, rtol=1e-12)
    covariance = q.to_real().covariance_matrix
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    assert_close(q.variance, xx + yy)
    assert_close(q.relation, torch.complex(xx - yy, 2 * xy))


def test_divergences_are_estimated_right_by_draws():
    for q in random_pair(0):
        for p in random_pair(1):
            z = q.sample((20_000,))
            ratio = q.log_prob(z) - p.log_prob(z)
            error = 5 * ratio.std(0) / math.sqrt(len(z))
            assert bool(((ratio.mean(0) - kl_divergence(q, p)).abs() < error).all())


def test_a_divergence_to_itself_is_zero_also_at_the_edge_of_the_disk():
    for v in (0.0, 1e-8, 1.0, 1e4, 1e7):
        q = ComplexNormal.from_unconstrained(number(1j), 0.3, number(v * (0.8 - 0.6j)))
        assert abs(kl_divergence(q, q).item()) < 1e-14


def test_a_tiny_circularity_has_a_tiny_divergence():
    proper = ComplexNormal(number(0j), 1.0)
    kl = kl_divergence(ComplexNormal(number(0j), 1.0, number(1e-9 + 0j)), proper)
    assert_close(kl.item(), 0.5e-18, rtol=1e-9, atol=0)


def test_draws_are_a_widely_linear_function_of_noise(monkeypatch):
    """The vector of the note: gains 0.9519 and 0.2626 - 0.1576i."""
    noise = math.sqrt(2) * torch.tensor([0.6, -0.9], dtype=torch.float64)
    monkeypatch.setattr(torch, "randn", lambda *args, **kwargs: noise)
    expected = {"proper": 0.72 - 1.03j, "improper": 0.909388107919353 - 0.900455926057801j}
    for name, rho in PARTS.items():
        assert_close(posterior(rho).rsample(), number(expected[name]), atol=1e-12, rtol=0)


def test_moments_of_draws():
    d = posterior(PARTS["improper"])
    w = d.sample((400_000,)) - d.loc
    assert_close(w.mean(), number(0j), atol=0.005, rtol=0)
    assert_close((w * w.conj()).mean().real, d.variance, atol=0.005, rtol=0)
    assert_close((w * w).mean(), d.relation, atol=0.005, rtol=0)


@pytest.mark.parametrize(("rho", "along"), [(-0.99, 3.9), (-0.9999, 36.0)])
def test_gradients_of_draws_are_bounded_near_circularity_minus_one(rho, along):
    """Across the radius they stay near 2.1; the triangular root has 28.7 and 287."""
    circularity = torch.full((20_000,), rho + 0j, dtype=torch.complex128, requires_grad=True)
    z = ComplexNormal(number(0j), 1.0, circularity).rsample()
    # The derivative of the imaginary part across, of both along.
    (across,) = torch.autograd.grad(z.real.sum(), circularity, retain_graph=True)
    (both,) = torch.autograd.grad(z.real.sum() + z.imag.sum(), circularity)
    assert across.imag.std() < 2.5
    assert both.imag.std() < 2.5
    assert both.real.std() < 1.1 * along


def test_gradients_of_an_unconstrained_circularity_are_bounded_everywhere():
    for size in (1e2, 1e4, 1e6):
        v = torch.full((1000,), -size + 0j, dtype=torch.complex128, requires_grad=True)
        (slope,) = torch.autograd.grad(
            pairs(ComplexNormal.from_unconstrained(number(0j), 1.0, v).rsample()).sum(), v
        )
        assert slope.abs().max() < 5


@pytest.mark.parametrize("rho", [None, (0.5, -0.3), (0.0, 0.0), (-0.9, 0.3)])
def test_derivatives_agree_with_finite_differences(rho):
    leaves = [(0.3, -0.4), 0.7] + ([] if rho is None else [rho])
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in leaves]
    z, others = number(1.1 + 0.2j).requires_grad_(), [prior(x) for x in PRIORS.values()]

    def make(loc, scale, rho=None):
        numbers = [None if x is None else torch.complex(*x) for x in (loc, rho)]
        return ComplexNormal(numbers[0], scale, numbers[1])

    def draw(*parameters):
        torch.manual_seed(0)
        return make(*parameters).rsample((4,))

    def divergences(*parameters):
        d = make(*parameters)
        return torch.stack([f(*x) for p in others for f, x in [(kl_divergence, (d, p))]])

    assert torch.autograd.gradcheck(lambda z, *args: make(*args).log_prob(z), (z, *leaves))
    assert torch.autograd.gradcheck(draw, leaves)
    assert torch.autograd.gradcheck(divergences, leaves)
    assert torch.autograd.gradgradcheck(lambda z, *args: make(*args).log_prob(z), (z, *leaves))
    assert torch.autograd.gradgradcheck(draw, leaves)
    assert torch.autograd.gradgradcheck(divergences, leaves)


def test_constructors_agree():
    d = ComplexNormal.from_parts(number(1j), 0.5, 0.8, 0.3)
    assert_close(d.variance, torch.tensor(0.89, dtype=torch.float64))
    assert_close(d.relation, number(-0.39 + 0.24j))
    twins = [
        ComplexNormal.from_variance_and_relation(number(1j), 0.89, number(-0.39 + 0.24j)),
        ComplexNormal(number(1j), circularity=d.circularity, per_part_scale=math.sqrt(0.445)),
        ComplexNormal.from_unconstrained(
            number(1j), d.scale, d.circularity / (1 - d.circularity.abs().square()).sqrt()
        ),
    ]
    z = torch.randn(10, dtype=torch.complex128)
    for twin in twins:
        assert_close(twin.log_prob(z), d.log_prob(z))
        assert_close(twin.per_part_scale, d.per_part_scale)


def test_degenerate_parts_keep_their_precision():
    d = ComplexNormal.from_parts(number(0j), 1.0, 1e-9)
    z = number(0.5 + 2e-9j)
    parts = Normal(0.0, torch.tensor([1.0, 1e-9], dtype=torch.float64))
    assert_close(d.log_prob(z), parts.log_prob(pairs(z)).sum(), rtol=1e-7, atol=0)
    assert_close(d.entropy(), parts.entropy().sum(), rtol=1e-12, atol=0)


def test_a_real_location_stands_for_a_complex_one():
    d = ComplexNormal(torch.zeros(3), 1.0, 0.5)
    assert d.loc.dtype == d.circularity.dtype == d.sample().dtype == torch.complex64
    assert ComplexNormal(0.0, torch.ones(2, dtype=torch.float64)).loc.dtype == torch.complex128


def test_densities_are_real_where_those_of_torch_are_not():
    """Normal of torch squares without conjugating: wrong by far, and without a word."""
    loc, z = number(0.3 - 0.4j), number(1.1 + 0.2j)
    one = torch.tensor(1.0, dtype=torch.float64)
    trap = Normal(loc, 0.7 * one, validate_args=True)
    assert_close(trap.log_prob(z), number(-0.8480 - 0.9796j), atol=1e-4, rtol=0)
    negative = kl_divergence(Normal(number(1j), one), Normal(number(0j), one))
    assert_close(negative.real.item(), -0.5)
    standard = ComplexNormal(number(0j), 1.0)
    assert_close(kl_divergence(ComplexNormal(number(1j), 1.0), standard).item(), 1.0)
    for dtype in (torch.complex64, torch.complex128):
        point = torch.randn(2, dtype=dtype)
        laws = [
            ComplexNormal(point, 1.0),
            ComplexNormal(point, 1.0, 0.3j),
            ComplexNormal(point, 1.0).to_event(1),
            ComplexMultivariateNormal(point, scale_tril=torch.eye(2)),
        ]
        for d in laws:
            real = point.real.dtype
            assert (
                d.log_prob(point).dtype == d.entropy().dtype == kl_divergence(d, d).dtype == real
            )


def test_conjugated_views_are_numbers_like_others():
    z, d = number(1.1 + 0.2j), ComplexNormal(number(0.3 + 0.4j).conj(), 0.7, number(0.1j).conj())
    twin = ComplexNormal(number(0.3 - 0.4j), 0.7, number(-0.1j))
    assert_close(d.log_prob(z.conj()), twin.log_prob(number(1.1 - 0.2j)))
    assert isinstance(d.to_real(), MultivariateNormal)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: ComplexNormal(0j, 1j), TypeError, "real scale"),
        (lambda: ComplexNormal(0j, torch.ones(2) * 1j), TypeError, "real scale.*complex64"),
        (lambda: ComplexNormal(0j, per_part_scale=1j), TypeError, "real per_part_scale"),
        (lambda: ComplexNormal(0j), ValueError, "exactly one of scale, per_part_scale, got none"),
        (lambda: ComplexNormal(0j, 1.0, per_part_scale=1.0), ValueError, "scale and per_part"),
        (lambda: ComplexNormal(0j, 1.0, 1j), ValueError, "circularity"),
        (lambda: ComplexNormal(0j, 1.0, 0.8 + 0.8j), ValueError, "circularity"),
        (lambda: ComplexNormal(0j, -1.0), ValueError, "scale"),
        (lambda: ComplexNormal(complex("inf"), 1.0), ValueError, "loc"),
        (
            lambda: ComplexNormal(torch.zeros(3), torch.ones(2)),
            ValueError,
            r"broadcast, got loc \(3,\), scale \(2,\)",
        ),
        (lambda: ComplexNormal(0j, 1.0).log_prob(torch.ones(2)), TypeError, "complex value"),
        (lambda: ComplexNormal(torch.zeros(1).half(), 1.0), TypeError, "float16"),
        (lambda: ComplexNormal.from_parts(0j, 1.0, -1.0), ValueError, "std_imag"),
        (lambda: ComplexNormal.from_parts(0j, 1.0, 1.0, 1.0), ValueError, "correlation"),
        (lambda: ComplexNormal.from_parts(0j, 1.0, 1.0, 1j), TypeError, "real correlation"),
        (
            lambda: ComplexNormal.from_unconstrained(0j, 1.0, complex("inf")),
            ValueError,
            "direction",
        ),
        (
            lambda: ComplexNormal.from_variance_and_relation(0j, 1.0, 2j),
            ValueError,
            "circularity",
        ),
    ],
)
def test_confusions_are_refused(action, error, message):
    with pytest.raises(error, match=message):
        action()


def free_density(z, loc, log_scale, v):
    d = ComplexNormal.from_unconstrained(loc, log_scale.exp(), v, validate_args=False)
    half = ComplexNormal(loc, log_scale.exp(), 0.5 * d.circularity, validate_args=False)
    other = ComplexNormal(loc.detach() + 1, 2.0, 0.3j, validate_args=False)
    divergences = kl_divergence(d, half), kl_divergence(half, other), kl_divergence(other, d)
    return (d.log_prob(z) + half.log_prob(z) + sum(divergences)).sum()


def free_arguments():
    numbers = [torch.randn(4, dtype=torch.complex128) for _ in range(3)]
    leaves = numbers[0], numbers[1], torch.randn(4, dtype=torch.float64), numbers[2]
    return [leaf.requires_grad_() for leaf in leaves]


def test_traced_gradients_are_exact():
    """TorchScript forgets to conjugate in products of complex tensors: there are none."""
    arguments = free_arguments()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of shapes, which are constant
        warnings.filterwarnings("ignore", ".torch.jit", DeprecationWarning)
        traced = torch.jit.trace(free_density, arguments, check_trace=False)
    expected = torch.autograd.grad(free_density(*arguments), arguments)
    for _ in range(3):  # optimised from the second call on
        found = torch.autograd.grad(traced(*arguments), arguments)
    for gradient, exact in zip(found, expected, strict=True):
        assert_close(gradient, exact)


def test_hessians_by_forward_and_by_reverse_differentiation_agree():
    z, loc, log_scale, v = (leaf.detach() for leaf in free_arguments())

    def density(x):
        return free_density(z, torch.complex(x[0], x[1]), log_scale, torch.complex(x[2], x[3]))

    x = torch.stack([loc.real, loc.imag, v.real, v.imag])
    reverse = torch.autograd.functional.hessian(density, x)
    assert_close(torch.func.hessian(density)(x), reverse)
    assert_close(
        torch.vmap(torch.func.hessian(density))(x.expand(2, 4, 4)),
        reverse.expand(2, -1, -1, -1, -1),
    )


def test_single_precision_near_the_edge_of_the_disk():
    """Draws, densities and divergences in float32 are those of float64, at gaps down to 1e-6."""
    for size in (1.0, 30.0, 1e3):
        v = size * torch.tensor([0.6 + 0.8j, -1, 1j, -0.8j + 0.6])
        single = ComplexNormal.from_unconstrained(0j, 1.0, v)
        double = ComplexNormal.from_unconstrained(0j, 1.0, v.to(torch.complex128))
        torch.manual_seed(0)
        z = double.sample((1000,))
        error = (single.log_prob(z.to(torch.complex64)) - double.log_prob(z)).abs()
        assert error.median() < 1e-6 * size + 1e-6
        prior = ComplexNormal(0j, 1.0)
        kl = kl_divergence(single, prior)
        assert_close(kl.double(), kl_divergence(double, prior), rtol=1e-6, atol=1e-6)
