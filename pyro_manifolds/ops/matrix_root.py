"""Square roots of Hermitian matrices with derivatives that stay finite."""

import torch
from torch import Tensor

__all__ = ["matrix_root"]


def matrix_root(matrix: Tensor) -> Tensor:
    r"""Return the principal root of Hermitian positive definite matrices ``[..., n, n]``.

    The derivative of ``torch.linalg.eigh`` is NaN where eigenvalues meet, and at the identity they
    all do. The root itself is smooth: :math:`R\, dR + dR\, R = dM` has a solution by sums of
    roots, which do not vanish. Derivatives are right to second order. Eigenvalues below rounding
    count as rounding, so that what is singular has a root too.
    """
    start = matrix.detach()
    values, vectors = torch.linalg.eigh(start)
    roots = values.clamp(min=torch.finfo(values.dtype).eps).sqrt()
    sums = roots.unsqueeze(-1) + roots.unsqueeze(-2)
    first = root = (vectors * roots.unsqueeze(-2)) @ vectors.mH
    # Newton steps from the solution keep its value, and each adds one order of derivatives.
    for _ in range(2):
        gap = (matrix - start) - (root @ root - first @ first)
        root = root + vectors @ ((vectors.mH @ gap @ vectors) / sums) @ vectors.mH
    return root
