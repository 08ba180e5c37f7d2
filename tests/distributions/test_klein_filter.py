"""Klein filters: density, moments and draws against a fine grid and formulas written out."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from pyro_manifolds import KleinBottle, KleinFilter, WrappedNormal
from pyro_manifolds.distributions import ManifoldMixture
from pyro_manifolds.ops.filters import klein_filters, unit_filters
from pyro_manifolds.testing import assert_mean
from tests.cases import CASES
from tests.distributions.filter_oracle import filters, klein_grid, klein_marginal, unit

KLEIN = KleinBottle()
LARGEST = {3: 0.99, 5: 0.66, 7: 0.48}  # norms of the longest filters, rounded up


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def wrapped():
    return WrappedNormal(KLEIN, double(0.7, 2.0), double(0.5, 0.9))


def mixture(components=8):
    torch.manual_seed(3)
    loc = torch.rand(components, 2).double() * double(math.pi, 2 * math.pi)
    parts = WrappedNormal(KLEIN, loc, 0.4 + 0.3 * torch.rand(components, 2).double())
    return ManifoldMixture(dist.Categorical(torch.rand(components).double()), parts)


def coloured(size):
    """Noise that is correlated between neighbours, and stronger at the bottom."""
    torch.manual_seed(1)
    n = size**2
    tril = (0.3 * torch.randn(n, n).double()).tril(-1) / math.sqrt(n)
    return tril + torch.diag(torch.linspace(0.7, 1.6, n).double())


@pytest.mark.parametrize("is_unit", [False, True], ids=["integrals", "unit"])
@pytest.mark.parametrize("ratio", [0.3, 2.0, 8.0])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_density_against_a_fine_grid(size, ratio, is_unit):
    amplitude = 0.7 * ratio / (1.0 if is_unit else LARGEST[size])
    d = KleinFilter(size, double(amplitude)[0], 0.7, unit=is_unit)
    w = d.sample((30,))
    grid = 100 + 15 * int(ratio)
    expected = klein_marginal(w, size, amplitude, 0.7, is_unit=is_unit, grid=grid)
    assert_close(d.log_prob(w), expected, atol=1e-8, rtol=0)
    # In single precision, errors of the nodes are below those of rounding.
    rounded = KleinFilter(size, amplitude, 0.7, unit=is_unit).log_prob(w.float())
    assert_close(rounded.double(), expected, atol=3e-5, rtol=3e-6)


@pytest.mark.parametrize("is_unit", [False, True], ids=["integrals", "unit"])
@pytest.mark.parametrize("size", [3, 5])
def test_density_with_coloured_noise(size, is_unit):
    tril = coloured(size)
    amplitude = 2.0 / (1.0 if is_unit else LARGEST[size])
    d = KleinFilter(size, double(amplitude)[0], 0.9, unit=is_unit, noise_tril=tril)
    w = d.sample((60,))
    expected = klein_marginal(w, size, amplitude, 0.9, is_unit=is_unit, tril=tril.numpy())
    assert_close(d.log_prob(w), expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("density", [wrapped(), mixture()], ids=["normal", "mixture"])
@pytest.mark.parametrize("size", [3, 7])
def test_density_with_a_density_of_points(size, density):
    amplitude = 2.0 / LARGEST[size]
    d = KleinFilter(size, double(amplitude)[0], 0.9, density)
    w = d.sample((60,))
    expected = klein_marginal(w, size, amplitude, 0.9, density.log_prob)
    assert_close(d.log_prob(w), expected, atol=1e-8, rtol=0)


def test_density_with_a_flow_of_points():
    """Splines have kinks in a derivative, by which a quadrature is slower to converge."""
    flow = CASES["flow-klein"].make(torch.float64)
    d = KleinFilter(3, double(2.0)[0], 0.9, flow, num_nodes=160)
    w = d.sample((40,))
    assert_close(d.log_prob(w), klein_marginal(w, 3, 2.0, 0.9, flow.log_prob), atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_unit", [False, True], ids=["integrals", "unit"])
@pytest.mark.parametrize("ratio", [0.5, 4.0])
def test_twice_as_many_nodes_change_nothing(ratio, is_unit):
    amplitude = double(ratio / (1.0 if is_unit else LARGEST[5]))[0]
    d = KleinFilter(5, amplitude, 1.0, unit=is_unit)
    finer = KleinFilter(5, amplitude, 1.0, unit=is_unit, num_nodes=2 * d._counts[0])
    w = d.sample((500,))
    assert_close(d.log_prob(w), finer.log_prob(w), atol=1e-8, rtol=0)
    coarse = KleinFilter(5, amplitude, 1.0, unit=is_unit, num_nodes=4)
    assert (coarse.log_prob(w) - d.log_prob(w)).abs().max() > 1e-4


def test_mass_is_one():
    """By importance sampling from a wider normal distribution."""
    d = KleinFilter(3, double(1.5)[0], 0.5, wrapped())
    proposal = d.rescale(1.3).matched_gaussian()
    w = proposal.sample((100_000,))
    ratios = (d.log_prob(w) - proposal.log_prob(w)).exp()
    assert_mean(ratios, torch.ones((), dtype=torch.float64), floor=1e-6, what="mass")


def test_most_draws_are_exact_and_few_are_not_far_off():
    d = KleinFilter(3, double(1.0)[0], 0.1, unit=True)
    w = d.sample((3000,))
    finer = KleinFilter(3, double(1.0)[0], 0.1, unit=True, num_nodes=320)
    error = (d.log_prob(w) - finer.log_prob(w)).abs()
    assert error.quantile(0.99) < 1e-8
    assert error.max() < 1e-4


@pytest.mark.parametrize("scale", [0.1, 0.05, 0.03])
def test_narrow_densities_get_more_nodes(scale):
    density = WrappedNormal(KLEIN, double(1.0, 1.0), double(scale, scale))
    d, finer = (KleinFilter(3, double(1.0)[0], 0.3, density, num_nodes=n) for n in (None, 400))
    w = d.sample((50,))
    assert_close(d.log_prob(w), finer.log_prob(w), atol=1e-4, rtol=0)


def test_too_few_nodes_for_a_narrow_density_are_told():
    scale = double(0.02, 0.02)
    density = WrappedNormal(KLEIN, double(1.0, 1.0), scale)
    message = "KleinFilter: expected num_nodes to be so large .* got 40 and an error"
    with pytest.raises(ValueError, match=message):
        KleinFilter(3, 1.0, 0.3, density, num_nodes=40)
    with pytest.raises(ValueError, match="KleinFilter: expected num_nodes to be so large"):
        KleinFilter(3, 1.0, 0.3, WrappedNormal(KLEIN, double(1.0, 1.0), scale / 20))
    KleinFilter(3, 1.0, 0.3, density, num_nodes=40, validate_args=False)
    scale.requires_grad_()
    learned = KleinFilter(3, 1.0, 0.3, WrappedNormal(KLEIN, double(1.0, 1.0), scale), num_nodes=40)
    with pytest.warns(UserWarning, match=message):
        learned.log_prob(torch.zeros(3, 3))


def test_plain_numbers_have_the_precision_of_the_density_and_values_take_part():
    assert KleinFilter(3, 1.0, 0.5, wrapped()).sample().dtype == torch.float64
    w, exact = torch.randn(5, 3, 3).double(), KleinFilter(3, double(1.0)[0], 0.5, unit=True)
    single = KleinFilter(3, 1.0, 0.5, unit=True)
    assert_close(single.log_prob(w), exact.log_prob(w), atol=1e-5, rtol=1e-6)
    assert_close(exact.log_prob(w.float()), exact.log_prob(w), atol=1e-5, rtol=1e-6)
    z = double(0.3, 1.0)
    assert_close(single.log_posterior(w, z), exact.log_posterior(w, z), atol=1e-5, rtol=1e-5)
    slope, exact_slope = (
        torch.func.grad(lambda w, d=d: d.log_prob(w).sum())(w) for d in (single, exact)
    )
    assert_close(slope, exact_slope, atol=1e-5, rtol=1e-5)


def test_amplitude_and_noise_set_the_dtype():
    """A density of points in double precision is rounded."""
    narrow = KleinFilter(3, torch.tensor(1.5), 0.5, wrapped())
    exact = KleinFilter(3, double(1.5)[0], 0.5, wrapped())
    w = narrow.sample((20,))
    assert w.dtype == narrow.log_prob(w).dtype == narrow.covariance_matrix.dtype == torch.float32
    assert_close(narrow.log_prob(w).double(), exact.log_prob(w.double()), atol=1e-5, rtol=1e-6)


def test_draws_have_the_density():
    """Expectations under the density, by importance weights, are the averages of draws."""
    d = KleinFilter(3, double(1.5)[0], 0.5, mixture())
    proposal = d.rescale(1.3).matched_gaussian()
    w, draws = proposal.sample((100_000,)), d.sample((100_000,))
    weights = (d.log_prob(w) - proposal.log_prob(w)).exp()
    direction = torch.randn(9, 6, dtype=torch.float64) / 2
    for f in (torch.cos, torch.sin, lambda x: x.square().square().clamp(max=20)):
        mean = (weights.unsqueeze(-1) * f(w.flatten(-2) @ direction)).mean(0)
        error = (weights.unsqueeze(-1) * f(w.flatten(-2) @ direction)).std(0) / 100_000**0.5
        found = f(draws.flatten(-2) @ direction)
        spread = (error.square() + found.var(0) / 100_000).sqrt()
        assert bool(((found.mean(0) - mean).abs() < 5 * spread + 1e-9).all())


def moments(size, amplitude, noise, log_density, is_unit, tril):
    """Covariance, and the fourth moments of the projections on a direction."""
    nodes = klein_grid(90, 90)
    family = filters(nodes[:, 0], nodes[:, 1], size)
    family = unit(family) if is_unit else family
    weights = np.ones(len(nodes))
    if log_density is not None:
        weights = log_density(torch.tensor(nodes)).exp().numpy()
    weights = weights / weights.sum()
    shape = np.eye(size**2) if tril is None else tril @ tril.T
    covariance = amplitude**2 * (family.T * weights) @ family + noise**2 * shape
    direction = np.linspace(-1, 2, size**2)
    given = amplitude**2 * (family @ direction) ** 2 + noise**2 * direction @ shape @ direction
    return torch.tensor(covariance), torch.tensor(direction), 3 * float(weights @ given**2)


@pytest.mark.parametrize(
    ("density", "is_unit", "tril"),
    [(None, False, None), (wrapped(), True, None), (mixture(), False, coloured(3))],
    ids=["uniform", "unit", "coloured"],
)
def test_moments(density, is_unit, tril):
    d = KleinFilter(3, double(1.5)[0], 0.4, density, unit=is_unit, noise_tril=tril)
    covariance, direction, fourth = moments(
        3, 1.5, 0.4, density and density.log_prob, is_unit, tril if tril is None else tril.numpy()
    )
    assert_close(d.covariance_matrix, covariance, atol=1e-10, rtol=0)
    assert_close(d.variance, covariance.diagonal().reshape(3, 3), atol=1e-10, rtol=0)
    assert not d.mean.any()
    assert d.mean.shape == (3, 3)
    w = d.sample((50_000,)).flatten(-2)
    products = w.unsqueeze(-1) * w.unsqueeze(-2)
    assert_mean(products.flatten(1), covariance.flatten(), floor=1e-9, what="covariance")
    assert_mean(w, torch.zeros(9, dtype=torch.float64), floor=1e-9, what="mean")
    assert_mean((w @ direction) ** 4, torch.tensor(fourth), floor=1e-9, what="fourth moment")


def test_the_matched_gaussian_has_the_covariance_and_another_density():
    d = KleinFilter(5, double(4.0)[0], 0.4, mixture()).expand([3])
    matched = d.matched_gaussian()
    assert matched.batch_shape == (3,)
    assert_close(matched.covariance_matrix, d.covariance_matrix)
    w = d.sample((2000,))
    assert (d.log_prob(w) - matched.log_prob(w)).mean() > 0.5  # the divergence, in nats


@pytest.mark.parametrize("factor", [3.0, -2.0, torch.tensor([0.1, 5.0]), torch.tensor([[2.0]])])
def test_rescaling_moves_the_density(factor):
    d = KleinFilter(3, double(1.0)[0], double(0.3, 0.5), mixture(), noise_tril=coloured(3))
    scaled = d.rescale(factor)
    size = torch.as_tensor(factor, dtype=torch.float64)
    w = d.sample()
    expected = d.log_prob(w) - 9 * size.abs().log()
    assert_close(scaled.log_prob(size[..., None, None] * w), expected, atol=1e-10, rtol=0)
    assert_close(scaled.covariance_matrix, size[..., None, None] ** 2 * d.covariance_matrix)
    again = scaled.rescale(1 / size)
    assert_close(again.log_prob(w), d.log_prob(w).expand(expected.shape), atol=1e-10, rtol=0)


@pytest.mark.parametrize("tril", [None, coloured(3)], ids=["white", "coloured"])
def test_filters_given_their_point_are_normal(tril):
    d = KleinFilter(3, double(1.5)[0], 0.4, unit=True, noise_tril=tril)
    z = double([0.3, 1.0], [2.0, -1.0])
    given = d.given(z)
    assert (given.batch_shape, given.event_shape) == ((2,), (3, 3))
    assert given.mean.equal(torch.zeros(2, 3, 3).double())
    covariances = 2.25 * d.family(z).square() + 0.16 * (
        1 if tril is None else tril.square().sum(-1).reshape(3, 3)
    )
    assert_close(given.variance, covariances)
    w = d.sample((5, 2))
    shape = np.eye(9) if tril is None else (tril @ tril.mT).numpy()
    for i, f in enumerate(unit(filters(z[:, 0], z[:, 1], 3))):
        normal = stats.multivariate_normal(cov=1.5**2 * np.outer(f, f) + 0.4**2 * shape)
        expected = torch.tensor(normal.logpdf(w[:, i].flatten(-2).numpy()))
        assert_close(given.log_prob(w)[:, i], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("tril", [None, coloured(3)], ids=["white", "coloured"])
@pytest.mark.parametrize("of_value", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_points", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_parameters", [torch.float32, torch.float64])
def test_densities_given_points_promote_with_values(of_parameters, of_points, of_value, tril):
    # All numbers but those of the factor are those of float32.
    z, w = double([0.25, 1.0], [2.0, -1.0]), torch.randn(3, 2, 3, 3).double()
    d = KleinFilter(3, double(1.5)[0].to(of_parameters), 0.5, unit=True, noise_tril=tril)
    given = d.given(z.to(of_points))
    assert given.sample().dtype == of_parameters
    for found in (given.log_prob(w.to(of_value)), given.expand([3, 2]).log_prob(w.to(of_value))):
        assert found.dtype == torch.promote_types(of_parameters, of_value)
        shape = np.eye(9) if tril is None else (tril @ tril.mT).numpy()
        for i, f in enumerate(unit(filters(z[:, 0], z[:, 1], 3))):
            normal = stats.multivariate_normal(cov=1.5**2 * np.outer(f, f) + 0.5**2 * shape)
            expected = torch.tensor(normal.logpdf(w[:, i].flatten(-2).numpy()))
            assert_close(found[:, i].double(), expected, atol=1e-5, rtol=2e-6)


@pytest.mark.parametrize("density", [None, mixture()], ids=["uniform", "mixture"])
def test_the_posterior_of_the_point_is_a_density_and_obeys_bayes(density):
    d = KleinFilter(5, double(4.0)[0], 0.5, density)
    w = d.sample((4,))
    nodes = torch.tensor(klein_grid(120, 120))
    log_posterior = d.log_posterior(w, nodes.unsqueeze(1))
    assert log_posterior.shape == (len(nodes), 4)
    mass = log_posterior.exp().mean(0) * 2 * math.pi**2
    assert_close(mass, torch.ones(4, dtype=torch.float64), atol=1e-8, rtol=0)
    # It is higher where filters of the point are near.
    near = (unit_filters(klein_filters(nodes, 5)).flatten(-2) @ w.flatten(-2).mT).abs()
    assert bool((log_posterior.argmax(0) != near.argmin(0)).all())


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_and_large_units(scale, dtype):
    amplitude = torch.tensor(2 * scale, dtype=dtype, requires_grad=True)
    noise = torch.tensor(0.5 * scale, dtype=dtype, requires_grad=True)
    d = KleinFilter(5, amplitude, noise)
    w = d.rsample((20,))
    log_prob = d.log_prob(w)
    plain = KleinFilter(5, torch.tensor(2.0, dtype=dtype), 0.5).log_prob(w / scale)
    assert_close(log_prob, plain - 25 * math.log(scale), rtol=2e-5, atol=1e-4)
    for gradient in torch.autograd.grad(log_prob.sum(), [amplitude, noise]):
        assert gradient.isfinite()


@pytest.mark.parametrize("distance", [0.0, 1e2, 1e4, 1e20, 1e30, math.inf])
def test_far_from_the_surface_density_and_gradient_are_finite(distance):
    w = (distance * torch.randn(10, 5, 5)).requires_grad_()
    log_prob = KleinFilter(5, 2.0, 0.3).log_prob(w)
    (slope,) = torch.autograd.grad(log_prob.sum(), w)
    assert log_prob.isfinite().all()
    assert slope.isfinite().all()
    assert distance in (0, 1e20, 1e30, math.inf) or bool(((w * slope).sum((-2, -1)) < 0).all())


def test_amplitudes_far_above_the_noise_need_their_nodes_told():
    with pytest.raises(ValueError, match=r"KleinFilter: expected filters F of an amplitude of at"):
        KleinFilter(3, 100.0, 1e-3)
    # Tensors may be draws of a prior: the nodes are as many as ever.
    extreme = KleinFilter(3, torch.tensor(100.0, requires_grad=True), 1e-3)
    assert extreme._counts[0] <= 514
    assert extreme.log_prob(torch.zeros(3, 3)).isfinite()
    assert KleinFilter(3, 100.0, 1e-3, num_nodes=8).log_prob(torch.zeros(3, 3)).isfinite()
