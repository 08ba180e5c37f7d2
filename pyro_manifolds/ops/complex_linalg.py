r"""Linear algebra of complex Gaussian vectors: factors, and vectors that broadcast with them.

A relation :math:`C = L K L^\top` next to the covariance :math:`L L^H` makes a vector improper. The
coherence :math:`K` is symmetric, not Hermitian, and is handled in real arithmetic: the parts of
the whitened vector have the covariance :math:`\tfrac12 R R^\top`, with ``R`` of
:func:`coherence_root`.
"""

from __future__ import annotations

import torch
from torch import Size, Tensor

__all__ = [
    "coherence_root",
    "join_parts",
    "log_det_tril",
    "multiply_vectors",
    "precision_to_scale_tril",
    "real_matrix",
    "solve_tril_vectors",
    "split_parts",
    "squared_norm",
]


def squared_norm(z: Tensor) -> Tensor:
    """Return the squared norm of complex vectors, real.

    Example:
        >>> squared_norm(torch.tensor([3j, 4 + 0j]))
        tensor(25.)
    """
    z = z.resolve_conj().contiguous()  # what a triangular solve returns is not
    return torch.view_as_real(z).flatten(-2).square().sum(-1)


def split_parts(z: Tensor) -> Tensor:
    """Map complex vectors of size n to real ones of size 2n: real parts, then imaginary parts.

    Example:
        >>> split_parts(torch.tensor([1 + 2j, 3 + 4j]))
        tensor([1., 3., 2., 4.])
    """
    return torch.view_as_real(z.resolve_conj()).mT.flatten(-2)


def join_parts(x: Tensor) -> Tensor:
    """Undo :func:`split_parts`.

    Example:
        >>> join_parts(torch.tensor([1.0, 3.0, 2.0, 4.0]))
        tensor([1.+2.j, 3.+4.j])
    """
    return torch.complex(*x.chunk(2, -1))


def real_matrix(m: Tensor) -> Tensor:
    """Return the real matrix that acts on the parts of vectors as a complex one acts on them.

    Example:
        >>> real_matrix(torch.tensor([[1 + 2j]]))
        tensor([[ 1., -2.],
                [ 2.,  1.]])
    """
    x, y = m.real, m.imag
    return torch.cat([torch.cat([x, -y], -1), torch.cat([y, x], -1)], -2)


def log_det_tril(tril: Tensor) -> Tensor:
    """Return the logarithm of the determinant of triangular matrices of positive diagonal.

    Example:
        >>> log_det_tril(torch.tensor([[2.0, 0.0], [1.0, 3.0]]))
        tensor(1.7918)
    """
    return tril.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


def coherence_root(coherence: Tensor) -> Tensor:
    r"""Return the Cholesky factor of :math:`I + [[\Re K, \Im K], [\Im K, -\Re K]]`.

    Where the spectral norm of the coherence is not less than one there is none, and what comes
    back means nothing; no error is raised.

    Args:
        coherence: Complex symmetric matrix :math:`K`, shape ``[..., n, n]``.

    Returns:
        Real lower triangular matrix, shape ``[..., 2n, 2n]``.

    Example:
        >>> coherence_root(torch.tensor([[0.6 + 0.0j]]))
        tensor([[1.2649, 0.0000],
                [0.0000, 0.6325]])
    """
    x, y = coherence.real, coherence.imag
    matrix = torch.cat([torch.cat([x, y], -1), torch.cat([y, -x], -1)], -2)
    matrix = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.linalg.cholesky_ex(matrix).L


def precision_to_scale_tril(precision: Tensor) -> Tensor:
    """Return the Cholesky factor of the inverse of a Hermitian matrix, without inverting it.

    Example:
        >>> precision_to_scale_tril(torch.tensor([[4.0 + 0.0j]]))
        tensor([[0.5000+0.j]])
    """
    inverse = torch.linalg.cholesky_ex(precision.flip(-2, -1)).L.flip(-2, -1).mH
    identity = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return torch.linalg.solve_triangular(inverse, identity, upper=False)


def multiply_vectors(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Multiply vectors ``[..., n]`` by matrices ``[*batch, m, n]`` that broadcast with them.

    Example:
        >>> multiply_vectors(torch.eye(2), torch.ones(5, 3, 2)).shape
        torch.Size([5, 3, 2])
    """
    rows, lead = _rows(matrix, vectors)
    return _unstack(rows @ matrix.mT, lead)


def solve_tril_vectors(tril: Tensor, vectors: Tensor) -> Tensor:
    """Multiply vectors ``[..., n]`` by inverses of triangular matrices ``[*batch, n, n]``.

    Vectors that share a matrix are the right-hand sides of one system.

    Example:
        >>> solve_tril_vectors(2 * torch.eye(2), torch.ones(5, 3, 2)).sum()
        tensor(15.)
    """
    rows, lead = _rows(tril, vectors)
    return _unstack(torch.linalg.solve_triangular(tril.mT, rows, upper=True, left=False), lead)


def _rows(matrix: Tensor, vectors: Tensor) -> tuple[Tensor, Size | None]:
    """Stack the dimensions in front of those of the matrix, as rows."""
    count = vectors.dim() - matrix.dim() + 1
    if count <= 0:
        return vectors.unsqueeze(-2), None
    return vectors.flatten(0, count - 1).movedim(0, -2), vectors.shape[:count]


def _unstack(rows: Tensor, lead: Size | None) -> Tensor:
    return rows.squeeze(-2) if lead is None else rows.movedim(-2, 0).unflatten(0, lead)
