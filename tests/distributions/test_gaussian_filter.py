"""Gaussian filters against SciPy's normal distribution of vectors."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from pyro_manifolds import GaussianFilter
from pyro_manifolds.testing import assert_mean


def covariance(*batch, size=3, dtype=torch.float64):
    torch.manual_seed(0)
    root = torch.randn(*batch, size**2, size**2, dtype=dtype)
    return root @ root.mT + torch.eye(size**2, dtype=dtype)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_density_entropy_and_moments(size):
    matrix = covariance(size=size)
    normal = stats.multivariate_normal(np.zeros(size**2), matrix.numpy())
    d = GaussianFilter(matrix)
    w = d.sample((50,))
    expected = torch.tensor(normal.logpdf(w.flatten(1).numpy()))
    assert_close(d.log_prob(w), expected, atol=1e-9, rtol=1e-9)
    assert_close(d.entropy().item(), float(normal.entropy()), atol=1e-9, rtol=0)
    assert_close(d.covariance_matrix, matrix)
    assert_close(d.variance.flatten(), matrix.diagonal())
    assert not d.mean.any()
    draws = d.rsample((50_000,)).flatten(1)
    products = draws.unsqueeze(-1) * draws.unsqueeze(-2)
    assert_mean(products.flatten(1), matrix.flatten(), floor=1e-9, what="covariance")


def test_factor_and_matrix_are_the_same():
    matrix = covariance(4)
    by_matrix, by_factor = (
        GaussianFilter(matrix),
        GaussianFilter(scale_tril=torch.linalg.cholesky(matrix)),
    )
    w = by_matrix.sample((3,))
    assert_close(by_matrix.log_prob(w), by_factor.log_prob(w))
    assert_close(by_matrix.scale_tril, by_factor.scale_tril)
    assert_close(by_matrix.covariance_matrix, by_factor.covariance_matrix)
    assert "kernel_size: 3" in repr(by_factor)


@pytest.mark.parametrize("factor", [2.0, -1.0, torch.tensor([[0.5], [3.0]])])
def test_rescaling(factor):
    d = GaussianFilter(covariance(4)).expand([2, 4])
    scaled = d.rescale(factor)
    square = torch.as_tensor(factor, dtype=torch.float64).square()
    assert scaled.batch_shape == (2, 4)
    assert_close(scaled.covariance_matrix, square[..., None, None] * d.covariance_matrix)
    w = d.sample()
    expected = d.log_prob(w) - 4.5 * square.log()
    assert_close(scaled.log_prob(square.sqrt()[..., None, None] * w), expected)


def test_precisions_are_the_wider_one():
    matrix = covariance(4)
    w = GaussianFilter(matrix).sample((3,))
    found = GaussianFilter(matrix.float()).log_prob(w)
    expected = GaussianFilter(matrix.float().double()).log_prob(w)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert_close(GaussianFilter(matrix).log_prob(w.float()), expected, atol=1e-4, rtol=1e-4)


def test_zero_is_no_factor():
    with pytest.raises(ValueError, match="GaussianFilter: expected factor .* got tensor"):
        GaussianFilter(covariance()).rescale(0.0)
    assert GaussianFilter(covariance(4)).expand([2, -1]).batch_shape == (2, 4)


def test_one_draw_for_each_cell_of_an_expansion():
    d = GaussianFilter(covariance()).expand([1000, 2])
    w = d.sample()
    assert w.shape == (1000, 2, 3, 3)
    assert abs(torch.corrcoef(w.flatten(-2)[:, :, 0].T)[0, 1]) < 0.2
    assert d.log_prob(w).shape == (1000, 2)
    assert d.log_prob(w[0, 0]).shape == (1000, 2)
    with pytest.raises(RuntimeError):
        GaussianFilter(covariance(4)).expand([3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of covariance_matrix and scale_tril, got neither"),
        ({"covariance_matrix": torch.eye(9), "scale_tril": torch.eye(9)}, "got both"),
        ({"covariance_matrix": torch.eye(8)}, r"\(..., k \* k, k \* k\), got \(8, 8\)"),
        ({"scale_tril": torch.ones(9)}, r"expected scale_tril of shape .* got \(9,\)"),
        ({"covariance_matrix": torch.tensor(1.0)}, r"got \(\)"),
        ({"covariance_matrix": 2.0}, "expected covariance_matrix to be a tensor .* got 2.0"),
        ({"covariance_matrix": -torch.eye(9)}, "covariance_matrix"),
        ({"scale_tril": torch.ones(9, 9)}, "scale_tril"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianFilter(**arguments)
