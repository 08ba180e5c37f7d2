"""Linear algebra of complex Gaussian vectors, against dense matrices and known values."""

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.ops import complex_linalg as linalg


def randn(*shape):
    return torch.randn(*shape, dtype=torch.complex128)


def tril(*shape):
    root = randn(*shape)
    return torch.linalg.cholesky(root @ root.mH)


def test_log_determinant_of_a_coherence_at_a_known_value():
    """Log-determinant of I - K K^H, calculated with mpmath."""
    rows = [[0.3 + 0.2j, -0.1 + 0.4j], [-0.1 + 0.4j, 0.2 - 0.5j]]
    k = torch.tensor(rows, dtype=torch.complex128)
    found = 2 * linalg.log_det_tril(linalg.coherence_root(k))
    assert abs(found.item() + 1.087672348629775) < 1e-14


def test_root_of_a_coherence_makes_noise_of_that_relation():
    k = randn(3, 3)
    k = 0.9 * (k + k.mT) / torch.linalg.matrix_norm(k + k.mT, ord=2)
    root = linalg.coherence_root(k)
    # Half of root @ root^T is the covariance of the parts: rebuild E w w^T and E w w^H of it.
    (xx, xy), (yx, yy) = [rows.chunk(2, -1) for rows in (0.5 * root @ root.mT).chunk(2, -2)]
    assert_close(torch.complex(xx - yy, yx + xy), k)
    assert_close(torch.complex(xx + yy, yx - xy), torch.eye(3, dtype=k.dtype))


def test_a_coherence_of_norm_one_has_no_root_and_raises_nothing():
    root = linalg.coherence_root(torch.eye(2, dtype=torch.complex64) * 1.5)
    assert root.shape == (4, 4)


def test_factor_of_an_inverse():
    matrix = tril(4, 3, 3)
    precision = matrix @ matrix.mH
    factor = linalg.precision_to_scale_tril(precision)
    assert_close(factor @ factor.mH, torch.linalg.inv(precision))
    assert torch.equal(factor, factor.tril())


@pytest.mark.parametrize("batch", [(), (4,), (1,), (2, 1), (2, 4)])
@pytest.mark.parametrize("shape", [(), (4,), (2, 4), (5, 2, 4), (6, 5, 2, 4)])
def test_vectors_broadcast_with_matrices(batch, shape):
    matrix, vectors = tril(*batch, 3, 3), randn(*shape, 3)
    expected = (matrix @ vectors.unsqueeze(-1)).squeeze(-1)
    found = linalg.multiply_vectors(matrix, vectors)
    assert_close(found, expected)
    solved = linalg.solve_tril_vectors(matrix, found)
    assert_close(solved, vectors.expand(solved.shape))


def test_views_as_real_vectors_and_matrices():
    m, z = randn(2, 3, 3), randn(2, 3)
    product = (m @ z.unsqueeze(-1)).squeeze(-1)
    real = (linalg.real_matrix(m) @ linalg.split_parts(z).unsqueeze(-1)).squeeze(-1)
    assert_close(linalg.join_parts(real), product)
    assert_close(linalg.squared_norm(z), (z.abs() ** 2).sum(-1))
    assert_close(linalg.split_parts(z.conj()), torch.cat([z.real, -z.imag], -1))
