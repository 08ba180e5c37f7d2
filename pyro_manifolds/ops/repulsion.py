r"""Weights on normal vectors and matrices that vanish where their directions are not defined.

Each is a power :math:`s^b` of an invariant :math:`s`, over its expectation.
"""

import math

import torch
from torch import Tensor

__all__ = ["log_eigenvalue_gaps_weight", "log_norm_weight", "log_singular_gaps_weight"]


def log_norm_weight(a: Tensor, power: float) -> Tensor:
    """Weigh vectors by a power of their norm.

    Example:
        >>> log_norm_weight(torch.tensor([0.0, 2.0]), 2.0)
        tensor(0.6931)
    """
    n = a.shape[-1]
    moment = power / 2 * math.log(2) + math.lgamma((n + power) / 2) - math.lgamma(n / 2)
    return power * torch.linalg.vector_norm(a, dim=-1).log() - moment


def log_eigenvalue_gaps_weight(matrix: Tensor, power: float) -> Tensor:
    """Weigh symmetric matrices by a power of the product of the gaps of their eigenvalues.

    Diagonal entries have variance one, the others a half; the expectation is Mehta's integral.

    References:
        | Random Matrices (Mehta, 2004), equation 17.6.7
    """
    n = matrix.shape[-1]
    moment = _log_mehta(n, (1 + power) / 2) - _log_mehta(n, 1 / 2)
    return power * _log_gaps(torch.linalg.eigvalsh(matrix)) - moment


def log_singular_gaps_weight(matrix: Tensor, power: float) -> Tensor:
    """Weigh square matrices by a power of the product of the gaps of squared singular values.

    Entries are standard normal; the expectation is Selberg's integral with weights of Laguerre.

    References:
        | Random Matrices (Mehta, 2004), equation 17.6.5
    """
    n = matrix.shape[-1]
    scaling = n * (n - 1) / 2 * power * math.log(2)  # halves of the squares have density e^-x
    moment = _log_laguerre(n, (1 + power) / 2) - _log_laguerre(n, 1 / 2) + scaling
    return power * _log_gaps(torch.linalg.eigvalsh(matrix.mT @ matrix)) - moment


def _log_gaps(values: Tensor) -> Tensor:
    rows, columns = torch.triu_indices(values.shape[-1], values.shape[-1], 1, device=values.device)
    return (values[..., columns] - values[..., rows]).log().sum(-1)


def _log_mehta(n: int, gamma: float) -> float:
    return sum(math.lgamma(1 + j * gamma) - math.lgamma(1 + gamma) for j in range(1, n + 1))


def _log_laguerre(n: int, gamma: float) -> float:
    return sum(
        math.lgamma(1 / 2 + j * gamma) + math.lgamma(1 + (j + 1) * gamma) - math.lgamma(1 + gamma)
        for j in range(n)
    )
