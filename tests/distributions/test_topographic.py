"""Topographic Student-t latents: densities, draws, moments, and what is refused."""

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import NUTS
from scipy import stats
from torch.testing import assert_close

from pyro_manifolds.distributions import (
    Dense,
    Groups,
    Ring,
    Shifted,
    TopographicStudentT,
    Torus2d,
)

F64 = torch.float64
FEW = "TopographicStudentT: expected dof of more than 4"


def quiet(*args, **kwargs):
    """The distribution without the warning of few degrees of freedom."""
    return TopographicStudentT(*args, **kwargs, validate_args=False)


def tensor(*values):
    return torch.tensor(values, dtype=F64)


# Densities


@pytest.mark.parametrize("dof", [5, 24])
@pytest.mark.parametrize("standardize", [False, True])
def test_groups_at_loc_zero_are_the_multivariate_student_t_of_pyro(dof, standardize):
    t = torch.randn(7, 3, 4, dtype=F64)
    root = torch.eye(4, dtype=F64) / (1 if standardize else dof**0.5)
    known = dist.MultivariateStudentT(tensor(float(dof)), torch.zeros(4, dtype=F64), root)
    expected = known.log_prob(t).sum(-1)
    for loc in (0.0, torch.zeros((), dtype=F64)):
        law = TopographicStudentT(Groups(3, 4, dof), loc, tensor(1.0), standardize=standardize)
        found = law.log_prob(t.flatten(-2))
        assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("standardize", [False, True])
def test_margins_against_scipy(standardize):
    t = np.linspace(-2.0, 6.0, 9)
    law = TopographicStudentT(
        Groups(9, 1, 7), tensor(1.5), tensor(0.8), standardize=standardize
    )  # fmt: skip
    unit = 0.8 if standardize else 0.8 / 7**0.5
    expected = stats.nct.logpdf(t / unit, 7, 1.5).sum() - 9 * math.log(unit)
    assert float(law.log_prob(torch.from_numpy(t))) == pytest.approx(expected, abs=1e-8)


def test_a_scale_and_a_location_for_each_entry_change_variables():
    loc, scale = torch.randn(4, dtype=F64), torch.rand(3, 1, 4, dtype=F64) + 0.5
    t = torch.randn(2, 4, dtype=F64)
    for near in (Groups(2, 2, 5), Ring(4, 2)):
        plain, law = quiet(near, loc), quiet(near, loc, scale)
        expected = plain.log_prob(t) - scale.log().sum(-1)
        assert_close(law.log_prob(scale * t), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("kernel_size", "loc"), [(1, 0.0), (1, 2.0), (2, 1.0), (3, 0.5)])
def test_rings_against_plain_monte_carlo(kernel_size, loc):
    """The mean over draws of u of the density given u, in numpy."""
    t, size = np.array([0.6, -0.3, 0.8, 0.4]), 400_000
    u = np.random.default_rng(0).standard_normal((size, 4))
    v = sum(
        np.roll(u, -e, -1) ** 2 for e in range(-((kernel_size - 1) // 2), kernel_size // 2 + 1)
    )
    density = np.exp(stats.norm.logpdf(t * np.sqrt(v) - loc).sum(-1)) * np.sqrt(v).prod(-1)
    law = quiet(Ring(4, kernel_size), tensor(loc))
    found = float(law.log_prob(torch.from_numpy(t)).exp())
    assert abs(found - density.mean()) < 4 * density.std() / size**0.5


def test_density_of_a_pair_on_a_ring_integrates_to_one():
    s = torch.linspace(-7, 7, 56, dtype=F64)
    grid = torch.cartesian_prod(s, s)
    law = quiet(Ring(2, 2), tensor(0.7), num_nodes=32)
    mass = (law.log_prob(grid.sinh()).exp() * grid.cosh().prod(-1)).sum() * (s[1] - s[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-3)


def test_batches_of_rings_are_rings():
    law = quiet(Ring(4, 3), torch.tensor([[0.0], [1.0]], dtype=F64))
    t = torch.randn(5, 2, 4, dtype=F64)
    alone = [
        quiet(Ring(4, 3), tensor(x), num_nodes=30).log_prob(t[:, i]) for i, x in enumerate((0, 1))
    ]
    assert_close(law.log_prob(t), torch.stack(alone, -1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_locations_beyond_the_exact_range_are_refused(kernel_size):
    law = quiet(Ring(5, kernel_size), torch.full((5,), 50.0))
    with pytest.raises(
        NotImplementedError, match="abs\\(loc\\) of at most .* got 50; make u a site"
    ):
        law.log_prob(torch.ones(5))


@pytest.mark.parametrize(
    "near",
    [Ring(6, 5), Torus2d((3, 3), (3, 3)), Shifted(4, 4), Dense(torch.eye(3) + 1), Ring(2, 3)],
    ids=str,
)
def test_densities_that_are_not_known_name_what_there_is(near):
    law = quiet(near)
    names = "TopographicReparam.*log_prob_given.*log_prob_estimate.*num_samples.*lower_bound"
    with pytest.raises(NotImplementedError, match=f"(?s)no exact density for .*{names}"):
        law.log_prob(law.sample())


# The other densities


def test_density_given_the_auxiliary_variables():
    near = Shifted(4, 3, 1, 2, num_capsules=2)
    law = TopographicStudentT(near, torch.randn(4, 2, 3), torch.rand(5, 1, 1, 1) + 0.5)
    u, t = torch.randn(5, 4, 2, 3), law.sample()
    spread = law.scale / near.forward(u * u).sqrt()
    expected = dist.Normal(law.loc * spread, spread).log_prob(t).sum((-3, -2, -1))
    assert_close(law.log_prob_given(t, u), expected, atol=1e-4, rtol=1e-5)
    assert_close(law.given(u).log_prob(t), expected, atol=1e-4, rtol=1e-5)
    assert_close(law.given(-u).log_prob(t), expected, atol=1e-4, rtol=1e-5)


def test_estimates_of_groups_by_groups():
    law = TopographicStudentT(Groups(4, 2, 6), tensor(1.0), 0.7, standardize=True)
    t = law.sample((30,))
    value, effective = law.log_prob_estimate(t, num_samples=4000)
    assert value.shape == effective.shape == (30,)
    # Four groups, each with a standard error of about the inverse root of its effective size.
    error = (value - law.log_prob(t)).abs() * (effective / 4).sqrt()
    assert error.max() < 5
    assert (effective > 50).all()


def test_estimates_sum_over_capsules():
    """Capsules share no variable: two of them are as easy as one."""
    near = Shifted(4, 5, 1, 2, num_capsules=8)
    law = TopographicStudentT(near, validate_args=False)
    one = TopographicStudentT(Shifted(4, 5, 1, 2), validate_args=False)
    t = law.sample()
    apart = [one.log_prob_estimate(t[:, [c]], 4000).value for c in range(8)]
    repeats = torch.stack([law.log_prob_estimate(t, 4000).value for _ in range(10)])
    assert repeats.std() < 0.5
    assert abs(float(repeats.mean() - sum(apart))) < 1.0


def test_estimates_do_not_take_one_sample():
    with pytest.raises(ValueError, match="num_samples of at least 2, got 1"):
        quiet(Ring(4, 5)).log_prob_estimate(torch.zeros(4), num_samples=1)


def test_the_lower_bound_is_below_estimates():
    near = Torus2d((3, 4), (2, 3))
    law = TopographicStudentT(near, 0.5, 2.0, standardize=True)
    t = law.sample((20,))
    value, _ = law.log_prob_estimate(t, 4000)
    bound = law.log_prob_lower_bound(t)
    assert bound.shape == (20,)
    assert (bound < value).all()
    pair = quiet(Ring(4, 2), tensor(0.3), 2.0)
    t = pair.sample((20,))
    assert (pair.log_prob_lower_bound(t) < pair.log_prob(t)).all()


# Draws and moments


@pytest.mark.parametrize("loc", [0.0, 2.0])
def test_draws_have_the_marginal_law(loc):
    t = TopographicStudentT(Shifted(4, 4, 1, 2), loc, 1.5, standardize=True).sample((4000,))
    for entry in (t[:, 0, 0, 0], t[:, 3, 0, 2]):
        assert stats.kstest(entry.numpy() / 1.5, stats.nct(6, loc).cdf).pvalue > 1e-3


LAWS = {
    "window": TopographicStudentT(Shifted(3, 4, 1, 3), tensor(2.0), 1.5),
    "standardised": TopographicStudentT(Ring(5, 9), tensor(-1.0, 0, 1, 2, 3), standardize=True),
    "open ends": TopographicStudentT(Shifted(4, 3, 2, 3, edges="zero"), tensor(1.0)),
    "weighted": TopographicStudentT(Dense(torch.rand(3, 12, dtype=F64) + 0.1), tensor(1.0)),
    "counted twice": TopographicStudentT(Ring(6, 9), tensor(1.0)),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
def test_mean_and_variance_against_draws(law):
    t = law.sample((40_000,))
    error = (law.variance / len(t)).sqrt()
    assert law.mean.shape == law.variance.shape == law.event_shape
    assert ((t.mean(0) - law.mean).abs() < 4.5 * error).all()
    spread = (t - law.mean).square()
    assert ((spread.mean(0) - law.variance).abs() < 5 * spread.std(0) / len(t) ** 0.5).all()


@pytest.mark.parametrize(("dof", "mean", "variance"), [(1, False, "nan"), (2, True, "inf")])
def test_moments_that_do_not_exist(dof, mean, variance):
    law = quiet(Groups(2, 1, dof), 1.0)
    assert law.mean.isfinite().all() == mean
    assert law.mean.isnan().all() != mean
    assert {str(x) for x in law.variance.tolist()} == {variance}


def test_mean_and_spread_of_the_published_setting():
    law = TopographicStudentT(Shifted.band(18, 18, 13, 1), tensor(30.0))
    assert float(law.mean[0, 0, 0]) == pytest.approx(5.034838573, abs=1e-8)
    assert float(law.stddev[0, 0, 0]) == pytest.approx(0.627102614, abs=1e-8)
    wide = TopographicStudentT(Shifted.band(18, 18, 13, 1), tensor(30.0), standardize=True)
    assert float(wide.mean[0, 0, 0]) == pytest.approx(5.034838573 * 37**0.5, abs=1e-7)


@pytest.mark.parametrize("loc", [0.0, 3.0])
def test_correlations_against_draws(loc):
    law = TopographicStudentT(Ring(8, 17), loc=tensor(loc))  # some are counted thrice
    with pytest.raises(NotImplementedError, match="weights of 0 and 1"):
        law.correlation()
    law = TopographicStudentT(Shifted(6, 8, 1, 6, edges="zero"), loc=tensor(loc))
    t = law.sample((40_000,)).flatten(1)
    for found, draws in ((law.correlation(), t), (law.energy_correlation(), t.square())):
        assert found.shape == (48, 48)
        assert_close(found, torch.corrcoef(draws.mT), atol=0.04, rtol=0)
        assert_close(found, found.mT)


def test_correlations_of_a_batch():
    law = TopographicStudentT(Ring(9, 5), torch.tensor([[0.0], [10.0]], dtype=F64))
    assert law.correlation().shape == law.energy_correlation().shape == (2, 9, 9)
    assert_close(law.correlation()[0], torch.eye(9, dtype=F64))
    alone = TopographicStudentT(Ring(9, 5), tensor(10.0))
    assert_close(law.correlation()[1], alone.correlation())


def test_variance_of_pathwise_gradients():
    """E (dt_i / du_j)^2 is (1 + loc^2) / (nu (nu - 2) (nu - 4)) within the window."""
    loc, size, dof = 2.0, 60_000, 25
    u = torch.randn(size, dof, requires_grad=True)
    law = TopographicStudentT(Groups(1, 1, dof), loc)
    law.given(u).rsample().sum().backward()
    squares = u.grad.square()
    expected = (1 + loc**2) / (dof * (dof - 2) * (dof - 4))
    error = squares.std() / (size * dof) ** 0.5
    assert abs(float(squares.mean()) - expected) < 5 * error


def test_draws_carry_gradients_to_location_scale_and_learned_weights():
    weight = (torch.rand(3, 8) + 0.1).requires_grad_()
    loc, scale = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    t = TopographicStudentT(Dense(weight), loc, scale, standardize=True).rsample((100,))
    t.square().sum().backward()
    for leaf in (weight, loc, scale):
        assert leaf.grad.isfinite().all()
        assert leaf.grad.any()


@pytest.mark.parametrize("kernel_size", [1, 5])
def test_silent_fields_in_float32_stay_finite(kernel_size):
    law = quiet(Ring(6, kernel_size), 2.0)
    u = torch.zeros(6).requires_grad_()
    for field in (u, u + 1e-30):
        given = law.given(field)
        assert given.mean.isfinite().all()
        assert (given.stddev > 0).all()


# Shapes and arguments


def test_shapes_dtypes_and_expansion():
    near = Shifted(4, 3, 1, 2, num_capsules=2)
    law = TopographicStudentT(near, torch.zeros(5, 1, 1, 1, dtype=F64), torch.ones(4, 1, 1))
    assert (law.batch_shape, law.event_shape) == ((5,), (4, 2, 3))
    assert law.loc.dtype == law.scale.dtype == law.sample().dtype == F64
    wide = law.expand([7, 5])
    assert type(wide) is TopographicStudentT
    assert wide.rsample((2,)).shape == (2, 7, 5, 4, 2, 3)
    assert wide.neighborhood is near
    assert wide.support.event_dim == 3
    assert TopographicStudentT(near, 0.0, tensor(1.0)).loc.dtype == F64


def test_nuts_runs_where_the_density_is_known():
    def model():
        return pyro.sample("t", TopographicStudentT(Groups(2, 2, 7), torch.tensor(1.0)))

    kernel = NUTS(model, max_tree_depth=4)
    kernel.setup(5)
    z = kernel.initial_params
    for _ in range(5):
        z = kernel.sample(z)
    assert z["t"].shape == (4,)
    assert z["t"].isfinite().all()


@pytest.mark.parametrize("near", [Ring(5, 3), Shifted(4, 4, 1, 1), Torus2d((4, 4), (2, 2))])
def test_few_degrees_of_freedom_are_warned_of(near):
    with pytest.warns(UserWarning, match=f"{FEW}, got {int(near.dof.min())} in .*infinite"):
        law = TopographicStudentT(near)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        law.expand([3]).sample()  # once, at construction
        quiet(near)
        TopographicStudentT(Ring(6, 5))


BAD = {
    "a number": (lambda: TopographicStudentT(3), TypeError, "to be a Neighborhood, got int"),
    "a location of another shape": (
        lambda: TopographicStudentT(Ring(6, 5), torch.zeros(5)),
        ValueError,
        r"broadcast .* the event shape \(6,\) of Ring\(6, 5\), got \(5,\) and \(\)",
    ),
    "a batch of scales without event axis": (
        lambda: TopographicStudentT(Ring(6, 5), torch.zeros(4, 6), torch.ones(4)),
        ValueError,
        r"got \(4, 6\) and \(4,\)",
    ),
    "a field for one entry": (
        lambda: TopographicStudentT(Ring(1, 5), torch.zeros(4)), ValueError, r"event shape \(1,\)"
    ),
    "a negative scale": (lambda: TopographicStudentT(Ring(6, 5), 0.0, -1.0), ValueError, "scale"),
    "a NaN location": (lambda: TopographicStudentT(Ring(6, 5), math.nan), ValueError, "loc"),
    "a value of another shape": (
        lambda: TopographicStudentT(Groups(2, 3, 5)).log_prob(torch.zeros(5)), ValueError, "shape"
    ),
    "auxiliary variables of another shape": (
        lambda: TopographicStudentT(Groups(2, 3, 5)).given(torch.zeros(6)),
        ValueError,
        r"expected u2 of a shape that ends in \(10,\), got \(6,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "remedy"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_raise_and_say_what_was_expected(call, error, remedy):
    with pytest.raises(error, match=f"(?s){remedy}"):
        call()
