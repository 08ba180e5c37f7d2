"""Tails of weights: known shapes, the fit of Pyro, and the cases without a tail."""

import math

import pytest
import scipy.stats
import torch
from pyro.ops.stats import fit_generalized_pareto
from torch.testing import assert_close

from pyro_manifolds.ops.pareto import generalized_pareto_shape, pareto_k


@pytest.mark.parametrize("shape", [-0.5, 0.0, 0.3, 0.7, 1.5])
@pytest.mark.parametrize("size", [25, 300])
def test_fit_is_that_of_pyro_column_by_column(shape, size):
    x = torch.tensor(scipy.stats.genpareto.rvs(shape, size=(size, 3), random_state=1))
    shapes = [fit_generalized_pareto(column)[0] for column in x.mT]
    expected = torch.tensor(shapes, dtype=torch.float64)
    assert_close(generalized_pareto_shape(x), expected, rtol=0, atol=1e-9)
    assert_close(generalized_pareto_shape(7 * x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [0.3, 0.6, 1.0])
def test_tail_of_pareto_weights_has_their_shape(shape, dtype):
    k = pareto_k(-shape * torch.rand(100_000, 4, dtype=dtype).log() - 900)
    assert k.dtype == dtype
    # The tail has 949 draws: a standard error of about (1 + shape) / sqrt(949).
    assert ((k - shape).abs() < 4 * (1 + shape) / 949**0.5).all()


def test_bounded_and_huge_weights_have_light_and_heavy_tails():
    assert pareto_k(torch.rand(2000).log()) < 0
    heavy = pareto_k(1e4 * torch.randn(2000))
    assert heavy.isfinite()
    assert heavy > 10


def test_equal_weights_have_no_tail_and_few_draws_no_estimate():
    assert (pareto_k(torch.full((100, 2), -3.7)) == -math.inf).all()
    rounded = -3.7 + 1e-7 * torch.randint(2, (100, 2))
    assert (pareto_k(rounded) == -math.inf).all()
    assert pareto_k(torch.randn(20, 2)).isnan().all()
    assert pareto_k(torch.randn(21, 2)).isfinite().all()
