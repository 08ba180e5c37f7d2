"""Eigenvectors with derivatives that stay finite."""

import torch
from torch import Tensor

__all__ = ["leading_eigenvector"]


def leading_eigenvector(matrix: Tensor) -> Tensor:
    r"""Return a unit eigenvector of the largest eigenvalue of symmetric matrices ``[..., n, n]``.

    The derivative of ``torch.linalg.eigh`` is NaN as soon as *any* two eigenvalues meet. Here the
    smaller ones may: the derivative :math:`\sum_j v_j v_j^\top dM v / (\lambda - \lambda_j)`
    leaves out the terms whose gap is nothing but rounding, and is right to second order. At zero
    the first axis is returned. The sign is arbitrary.
    """
    size = matrix.detach().abs().amax((-2, -1), keepdim=True)
    # The solver would raise on a matrix that is not finite: its NaN comes back in the steps below.
    usable = (size >= torch.finfo(matrix.dtype).tiny) & torch.isfinite(size)
    first = (torch.arange(matrix.shape[-1], device=matrix.device) == 0).to(matrix.dtype)
    scaled = matrix / torch.where(usable, size, 1)
    values, vectors = torch.linalg.eigh(torch.where(usable, scaled.detach(), torch.diag(first)))
    leading = vectors[..., -1]
    gaps = values[..., -1:] - values[..., :-1]
    distinct = gaps > 4 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps
    weights = torch.where(distinct, 1 / torch.where(distinct, gaps, 1), 0) * usable.squeeze(-1)
    # Newton steps from the solution keep its value, and each adds one order of derivatives.
    v = leading
    for _ in range(2):
        image = _apply(scaled, v)
        rayleigh = (v * image).sum(-1, keepdim=True) / v.square().sum(-1, keepdim=True)
        components = _apply(vectors[..., :-1].mT, image - rayleigh * v)
        v = v + _apply(vectors[..., :-1], weights * components)
    return v / torch.linalg.vector_norm(v, dim=-1, keepdim=True)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
