"""Lattice sums of correlated Gaussians against a window far larger than needed."""

import itertools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from pyro_manifolds.ops.lattice import winding_vectors

PERIOD = 2 * math.pi
TRILS = {
    "narrow": [[0.1, 0.0], [0.0, 0.2]],
    "correlated": [[0.8, 0.0], [0.7, 0.1]],
    "anti-correlated": [[1.0, 0.0], [-2.0, 0.3]],
    "anisotropic": [[3.0, 0.0], [0.0, 0.05]],
    "needle": [[2.0, 0.0], [2.0, 0.02]],
    "wide": [[2.5, 0.0], [0.5, 1.5]],
}


def brute_force(scale_tril, x, window=40):
    """Log of the sum over all windings up to ``window``, in float64."""
    tril = scale_tril.double()
    turns = list(itertools.product(range(-window, window + 1), repeat=2))
    lifts = x.double().unsqueeze(-2) + PERIOD * torch.tensor(turns).double()
    return (
        MultivariateNormal(torch.zeros(2).double(), scale_tril=tril).log_prob(lifts).logsumexp(-1)
    )


@pytest.mark.parametrize("tril", TRILS.values(), ids=TRILS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sum_over_the_winding_vectors_equals_a_huge_window(tril, dtype):
    tril = torch.tensor(tril, dtype=dtype)
    grid = torch.linspace(-math.pi, math.pi, 7, dtype=dtype)
    x = torch.cartesian_prod(grid, grid)
    shifts = winding_vectors(tril, [PERIOD, PERIOD])
    # The lifts are rounded in float64 on both sides, so that only the choice of terms is compared.
    lifts = x.double().unsqueeze(-2) + PERIOD * torch.round(shifts.double() / PERIOD)
    base = MultivariateNormal(torch.zeros(2).double(), scale_tril=tril.double())
    found = base.log_prob(lifts).logsumexp(-1)
    tolerance = 4 * torch.finfo(dtype).eps
    assert_close(found, brute_force(tril, x), rtol=tolerance, atol=tolerance)


def test_batches_take_the_union_of_the_windows_they_need():
    wide, narrow = torch.tensor(TRILS["wide"]), torch.tensor(TRILS["narrow"])
    both = winding_vectors(torch.stack([wide, narrow]), [PERIOD, PERIOD])
    assert_close(both, winding_vectors(wide, [PERIOD, PERIOD]))


def test_coordinates_without_a_period_are_never_shifted():
    shifts = winding_vectors(torch.tensor(TRILS["wide"]), [None, 1.0])
    assert not shifts[:, 0].any()
    assert shifts[:, 1].unique().numel() == len(shifts) > 3


def test_multiples_of_the_periods_are_distinct_symmetric_and_hold_zero():
    shifts = winding_vectors(torch.eye(2, dtype=torch.float64), [1.0, 3.0])
    rows = {tuple(row) for row in (shifts / torch.tensor([1.0, 3.0])).round().tolist()}
    assert len(rows) == len(shifts)
    assert (0.0, 0.0) in rows
    assert rows == {(-a, -b) for a, b in rows}


def test_a_huge_covariance_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="independent normals"):
        winding_vectors(1e3 * torch.eye(2), [PERIOD, PERIOD])


def test_the_choice_of_terms_is_a_constant_for_autograd():
    tril = torch.eye(2, requires_grad=True)
    assert not winding_vectors(tril, [PERIOD, PERIOD]).requires_grad
