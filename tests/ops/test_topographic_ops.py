"""Numerics of topographic latents, against mpmath, brute force and published test vectors."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.testing import assert_close

from pyro_manifolds.distributions import Dense, Groups, Ring
from pyro_manifolds.ops.parabolic_cylinder import log_half_line_moment
from pyro_manifolds.ops.ring_transfer import nodes_for_ring, ring_log_prob
from pyro_manifolds.ops.topographic import (
    central_group_log_prob,
    group_log_prob,
    log_prob_lower_bound,
)
from pyro_manifolds.ops.topographic_estimate import estimate_block_log_probs
from pyro_manifolds.ops.topographic_moments import (
    correlation,
    energy_correlation,
    inverse_moment,
    shared_inverse_moment,
    weighted_inverse_moment,
)

F64 = torch.float64
ORDERS = (2, 3, 5, 20, 100, 400)
POINTS = (-60.0, -8.0, -2.0, -1e-3, 0.0, 0.5, 2.0, 6.5, 8.5, 9.5, 20.0, 200.0)


def tensor(*values):
    return torch.tensor(values, dtype=F64)


@pytest.fixture(scope="module")
def exact_moments():
    """log I_p(c) - max(c, 0)^2 / 2 and I_{p+1} / I_p - max(c, 0), by recursion in 900 digits."""
    found = {}
    for point in POINTS:
        with mpmath.workdps(900):
            c = mpmath.mpf(point)
            moments = [None, mpmath.sqrt(mpmath.pi / 2) * mpmath.e ** (c * c / 2)]
            moments[1] *= mpmath.erfc(-c / mpmath.sqrt(2))
            moments.append(1 + c * moments[1])
            for q in range(2, max(ORDERS) + 1):
                moments.append(c * moments[q] + (q - 1) * moments[q - 1])
            positive = max(c, 0)
            for p in ORDERS:
                with mpmath.workdps(30):
                    value = mpmath.log(moments[p]) - positive**2 / 2
                ratio = moments[p + 1] / moments[p] - positive
                found[p, point] = float(value), float(ratio)
    return found


@pytest.mark.parametrize(("dtype", "error"), [(F64, 2e-13), (torch.float32, 3e-6)])
@pytest.mark.parametrize("order", ORDERS)
def test_moments_of_the_half_line_and_their_slopes(order, dtype, error, exact_moments):
    exact = tensor(*([found[k] for k in (0, 1)] for found in
                     (exact_moments[order, c] for c in POINTS)))  # fmt: skip
    c = torch.tensor(POINTS, dtype=dtype, requires_grad=True)
    value = log_half_line_moment(order, c)
    (slope,) = torch.autograd.grad(value.sum(), c)
    assert value.dtype == dtype
    # Relative to one at least: the logarithm passes through zero. c itself is rounded.
    assert_close(value.detach().double(), exact[:, 0], atol=error, rtol=error)
    assert_close(slope.double(), exact[:, 1], atol=error, rtol=20 * error)


def test_moments_agree_with_the_parabolic_cylinder_function():
    for p, c in ((2, -1.5), (4.5, 0.7), (9, 3.0)):
        d = mpmath.log(mpmath.gamma(p)) + c * c / 4 + mpmath.log(mpmath.pcfd(-p, -c))
        found = log_half_line_moment(p, tensor(c)) + max(c, 0) ** 2 / 2
        assert float(found) == pytest.approx(float(d), abs=1e-12)


def test_higher_derivatives_of_the_moments():
    c = tensor(-3.0, -0.4, 0.7, 5.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: log_half_line_moment(4, x), (c,))
    assert torch.autograd.gradgradcheck(lambda x: log_half_line_moment(4, x), (c,))


GROUPS = [
    ((0.3, -0.7, 1.1), 5, 0.0, -4.31418461335206),
    ((0.3, -0.7, 1.1), 5, 2.0, -7.83752296176450),
    ((0.3, -0.7, 1.1), 5, -2.0, -12.4510580015202),
    ((0.7,), 3, 0.0, -1.24913494520419),
    ((20.0,), 3, 30.0, -3.13272580057897),
    ((2.0,), 25, 10.0, 0.133840272090137),
    ((5.0,), 37, 30.0, -0.426198784742607),
    ((0.7,), 1, 0.0, -1.54350600580677),
]


@pytest.mark.parametrize(("t", "dof", "loc", "expected"), GROUPS)
def test_groups_at_values_found_in_multiple_precision(t, dof, loc, expected):
    t = tensor(*t)
    found = group_log_prob(t, torch.full_like(t, loc), dof)
    assert float(found) == pytest.approx(expected, abs=1e-12)
    if loc == 0:
        assert float(central_group_log_prob(t, dof)) == pytest.approx(expected, abs=1e-12)
    single = group_log_prob(t.float(), torch.full_like(t, loc).float(), dof)
    assert float(single) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("dof", [1, 3, 24])
@pytest.mark.parametrize("loc", [-2.0, 0.0, 0.7, 6.0])
def test_margins_are_non_central_student_t(dof, loc):
    t = np.array([-3.0, -0.4, 0.0, 0.2, 1.0, 8.0])
    expected = stats.nct.logpdf(np.sqrt(dof) * t, dof, loc) + 0.5 * np.log(dof)
    found = group_log_prob(torch.from_numpy(t)[:, None], tensor(loc), dof)
    # scipy itself is right to 1e-9.
    assert_close(found, torch.from_numpy(expected), atol=1e-9, rtol=1e-9)


def test_groups_with_a_location_of_their_own_for_each_entry():
    """Against the integral over the sum of squares, a chi-square variable."""
    t, loc, dof = np.array([0.5, -0.2]), np.array([1.5, -0.7]), 4

    def integrand(v):
        return stats.chi2.pdf(v, dof) * np.prod(stats.norm.pdf(t, loc / v**0.5, v**-0.5))

    expected = math.log(integrate.quad(integrand, 0, np.inf, epsabs=0, epsrel=1e-12)[0])
    found = group_log_prob(torch.from_numpy(t), torch.from_numpy(loc), dof)
    assert float(found) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_groups_far_out_are_finite_with_their_gradients(dtype):
    size = torch.tensor([1e-12, 1e-3, 1.0, 1e3, 1e12], dtype=dtype)
    t = torch.cat([size, -size])[:, None, None].expand(10, 5, 2).clone().requires_grad_()
    loc = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4], dtype=dtype)[:, None].requires_grad_()
    value = group_log_prob(t, loc, 5)
    value.sum().backward()
    assert all(x.isfinite().all() for x in (value, t.grad, loc.grad))


RINGS = [
    (2, (0.5, -1.2, 0.3, 0.9), 0.0, -5.62235320994),
    (2, (0.5, -1.2, 0.3, 0.9), 2.0, -10.44721463832),
    (3, (0.5, -1.2, 0.3, 0.9), 0.0, -5.45854363900),
    (3, (0.5, -1.2, 0.3, 0.9), 2.0, -10.20354914277),
    (3, [math.sin(i + 1) for i in range(6)], 0.0, -7.51948649245),
    (3, [math.sin(i + 1) for i in range(6)], 2.0, -17.76281794934),
    (2, [math.sin(i + 1) for i in range(18)], 0.0, -23.05365194368),
    (2, [math.sin(i + 1) for i in range(18)], 2.0, -53.11956171153),
    (2, [20 + 5 * math.sin(i + 1) for i in range(18)], 30.0, -53.8613966071),
    (3, [math.sin(i + 1) for i in range(18)], 0.0, -22.58198415717),
    (3, [5 * math.sin(i + 1) for i in range(18)], 0.0, -72.02357202902),
]


@pytest.mark.parametrize(("kernel_size", "t", "loc", "expected"), RINGS)
def test_rings_at_values_found_in_multiple_precision(kernel_size, t, loc, expected):
    nodes = nodes_for_ring(kernel_size, loc)
    found = ring_log_prob(tensor(*t), tensor(loc), kernel_size, nodes)
    error = 1e-10 if kernel_size == 2 else 2e-8
    assert float(found) == pytest.approx(expected, abs=error)
    single = ring_log_prob(tensor(*t).float(), tensor(loc).float(), kernel_size, nodes)
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_rings_against_a_grid_over_all_auxiliary_variables(kernel_size):
    """In u = exp(s - exp(-s)), where the root at zero does no harm; u and -u count alike."""
    s = np.linspace(-2.4, 2.0, 34)
    line = np.exp(s - np.exp(-s))
    mass = np.exp(-0.5 * line**2) * line * (1 + np.exp(-s)) * (s[1] - s[0]) * (2 / np.pi) ** 0.5
    squares = np.stack(np.meshgrid(*[line**2] * 4, indexing="ij", sparse=False))
    t, loc = (np.array(x)[:, None, None, None, None] for x in ([0.6, 0.9, 0.8], [1.0, 1.4, 0.8]))
    t, loc = (np.concatenate([x, 0.5 * x[:1]]) for x in (t, loc))
    v = sum(np.roll(squares, -e, 0) for e in ([0, 1] if kernel_size == 2 else [-1, 0, 1]))
    exponent = (-0.5 * (t * np.sqrt(v) - loc) ** 2 + 0.5 * np.log(v)).sum(0)
    density = np.einsum("abcd,a,b,c,d->", np.exp(exponent), mass, mass, mass, mass)
    nodes = nodes_for_ring(kernel_size, 1.4)
    t, loc = (torch.from_numpy(x.flatten()) for x in (t, loc))
    found = ring_log_prob(t, loc, kernel_size, nodes)
    assert float(found) == pytest.approx(math.log(density) - 2 * math.log(2 * math.pi), abs=5e-6)


@pytest.mark.parametrize(("kernel_size", "loc"), [(2, 0.0), (2, 10.0), (3, 0.0), (3, 1.5)])
@pytest.mark.parametrize("factor", [0.1, 1.0, -1.0, 10.0])
def test_more_nodes_change_nothing(kernel_size, loc, factor):
    """Neither at typical values nor in the tails, on either side."""
    ring = Ring(4, kernel_size)
    u, z = torch.randn(2, 3, 4, dtype=F64)
    t = factor * (z + loc) * ring.forward(u * u).rsqrt()
    nodes = nodes_for_ring(kernel_size, loc)
    found = ring_log_prob(t, tensor(loc), kernel_size, nodes)
    finer = ring_log_prob(t, tensor(loc), kernel_size, math.ceil(1.15 * nodes))
    assert_close(found, finer, atol=1e-9 if kernel_size == 2 else 4e-8, rtol=0)


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_gradients_on_rings(kernel_size):
    t = tensor(0.5, -1.2, 0.3, 0.9).requires_grad_()
    loc = tensor(0.4, -0.2, 1.0, 0.1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t, loc: ring_log_prob(t, loc, kernel_size, 32), (t, loc), atol=1e-6
    )


def test_a_location_that_needs_too_many_nodes_has_none():
    assert nodes_for_ring(2, 40.0) is None
    assert nodes_for_ring(3, 3.0) is None


def bound(near, t, loc):
    dof = near.dof.to(t)
    return log_prob_lower_bound(t, loc, near.forward, near.transpose, dof, 1)


def test_the_lower_bound_at_a_published_value():
    ring, t = Ring(4, 2), tensor(0.5, -1.2, 0.3, 0.9)
    assert_close(ring.transpose(t * t), tensor(1.06, 1.69, 1.53, 0.90))
    assert float(bound(ring, t, torch.zeros(4, dtype=F64))) == pytest.approx(
        -8.11250582794882, abs=1e-12
    )


@pytest.mark.parametrize("loc", [0.0, 1.0, -2.0, 10.0])
def test_the_lower_bound_is_below_the_density(loc):
    ring, groups = Ring(4, 2), Groups(2, 2, 5)
    t = torch.randn(60, 4, dtype=F64) * 3 + 0.2 * loc
    where = torch.full((4,), loc, dtype=F64)
    assert (bound(ring, t, where) < ring_log_prob(t, where, 2, nodes_for_ring(2, abs(loc)))).all()
    exact = group_log_prob(t.unflatten(-1, (2, 2)), where.unflatten(-1, (2, 2)), 5).sum(-1)
    assert (bound(groups, t, where) < exact).all()


def test_the_gap_of_the_lower_bound_without_neighbours():
    t = torch.randn(50, 6, dtype=F64)
    gap = central_group_log_prob(t[..., None], 1).sum(-1) - bound(Ring(6, 1), t, torch.zeros(6))
    assert_close(gap, torch.full((50,), 6 * 0.409390070086, dtype=F64), atol=1e-11, rtol=0)


def estimate(near, t, loc, size):
    loc = torch.full_like(t, loc)
    maps = near.forward, near.transpose, near.block_sums
    logs, effective = estimate_block_log_probs(t, loc, *maps, near.dof.to(t), size)
    return logs.sum(-1), effective.amin(-1)


@pytest.mark.parametrize(("factor", "expected"), [(1.0, -22.58198415717), (5.0, -72.02357202902)])
def test_estimates_are_within_three_standard_errors(factor, expected):
    """Of the density, over independent repeats at a typical and at a far value."""
    t = factor * torch.arange(1.0, 19, dtype=F64).sin().expand(60, 18)
    logs, effective = estimate(Ring(18, 3), t, 0.0, 1000)
    ratio = (logs - expected).exp()
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / 60**0.5
    assert logs.std() < 0.3
    assert (effective > 3).all()
    assert (effective < 1000).all()


@pytest.mark.parametrize("loc", [0.0, 2.0])
def test_estimates_with_a_dense_neighbourhood(loc):
    """Two entries that share one of three variables, by a published value for each location."""
    near = Dense(tensor([1.0, 1.0, 0.0], [0.0, 1.0, 1.0]))
    logs, _ = estimate(near, tensor(0.5, -1.2).expand(40, 2), loc, 2000)
    ratio = (logs - {0.0: -3.09700457276345, 2.0: -7.84733254132432}[loc]).exp()
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / 40**0.5


def test_estimates_without_neighbours_and_their_gradient():
    t = tensor(0.4, -2.0, 7.0).requires_grad_()
    logs, _ = estimate(Ring(3, 1), t, 0.0, 100_000)
    exact = central_group_log_prob(t[:, None], 1).sum()
    assert float(logs.detach()) == pytest.approx(float(exact.detach()), abs=0.03)
    found, expected = (torch.autograd.grad(x, t)[0] for x in (logs, exact))
    assert_close(found, expected, atol=0.01, rtol=0.03)


@pytest.mark.parametrize("dof", [3, 13, 25, 37])
def test_mean_and_variance_of_published_settings(dof):
    expected = {
        3: (23.936536824, 18.111935426), 13: (8.842357037, 1.929200075),
        25: (6.187827930, 0.940584153), 37: (5.034838573, 0.627102614),
    }[dof]  # fmt: skip
    nu = tensor(float(dof))
    mean = 30 * inverse_moment(nu, 0.5)
    deviation = (901 * inverse_moment(nu, 1.0) - mean**2).sqrt()
    assert_close(torch.cat([mean, deviation]), tensor(*expected), atol=1e-8, rtol=0)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_moments_of_weighted_sums(power):
    for dof in (3, 7, 37):
        weights = tensor(*[1.0] * dof, 0.0)
        assert_close(
            weighted_inverse_moment(2 * weights, power),
            2**-power * inverse_moment(tensor(float(dof)), power)[0],
            atol=0, rtol=1e-12,
        )  # fmt: skip
    weights = np.array([0.2, 1.0, 3.0, 0.5])
    v = (np.random.default_rng(0).standard_normal((400_000, 4)) ** 2 @ weights) ** -power
    found = float(weighted_inverse_moment(torch.from_numpy(weights), power))
    assert abs(found - v.mean()) < 4 * v.std() / len(v) ** 0.5
    assert weighted_inverse_moment(tensor(1.0, 0.0), power).isinf()


SHARED = [
    (9, 6, 1.0, 0.0247779607693797),
    (25, 20, 1.0, 0.00202918971345444),
    (3, 2, 0.5, math.pi / 4),
    (13, 10, 0.5, 0.089842112185),
    (25, 20, 0.5, 0.043277151789),
    (37, 34, 0.5, 0.028536647491),
]


@pytest.mark.parametrize(("dof", "shared", "power", "expected"), SHARED)
def test_moments_of_two_windows(dof, shared, power, expected):
    found = shared_inverse_moment(*tensor(dof, dof, shared), power)
    assert float(found) == pytest.approx(expected, rel=1e-10)


def pair(dof, shared):
    return tensor(dof, dof), tensor([dof, shared], [shared, dof])


def test_correlations_of_published_settings():
    expected = {
        (3, 2): (0.109124650, 0.398463497, 0.408180868),
        (13, 10): (0.031253968, 0.600263334, 0.717559705),
        (25, 20): (0.016517257, 0.535666466, 0.746267886),
        (37, 34): (0.012783605, 0.536133286, 0.847747666),
    }
    for (dof, shared), row in expected.items():
        for loc, value in zip((1.0, 10.0, 30.0), row, strict=True):
            found = correlation(tensor(loc, loc), *pair(dof, shared))
            assert_close(found, tensor([1, value], [value, 1]), atol=2e-9, rtol=0)
        assert_close(correlation(tensor(0, 0), *pair(dof, shared)), torch.eye(2, dtype=F64))


@pytest.mark.parametrize(
    ("dof", "shared", "expected"),
    [(9, 6, 0.066912524281), (25, 20, 0.032130594308), (37, 34, 0.025278276659)],
)
def test_energy_correlations_of_published_settings(dof, shared, expected):
    found = energy_correlation(tensor(0, 0), *pair(dof, shared))
    assert_close(found, tensor([1, expected], [expected, 1]), atol=1e-10, rtol=0)


def test_energy_correlations_at_a_location_against_draws():
    u, z = np.random.default_rng(1).standard_normal((2, 200_000, 30))
    squares = np.stack([(u[:, :24] ** 2).sum(-1), (u[:, 6:] ** 2).sum(-1)], -1)
    energy = (z[:, :2] + 2.0) ** 2 / squares
    found = energy_correlation(tensor(2, 2), *pair(24, 18))[0, 1]
    # The correlation of n pairs scatters by about n**-0.5.
    assert float(found) == pytest.approx(np.corrcoef(energy.T)[0, 1], abs=0.01)


def test_what_does_not_exist_is_nan():
    assert correlation(tensor(3, 3), *pair(2, 1)).isnan().all()
    assert energy_correlation(tensor(0, 0), *pair(4, 1)).isnan().all()
