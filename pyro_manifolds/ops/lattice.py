"""Sums of Gaussians over lattices."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["winding_vectors"]

_MAX_TERMS = 1_000_000


def winding_vectors(scale_tril: Tensor, lattice: Sequence[float | None]) -> Tensor:
    r"""Return the lattice vectors over which a Gaussian must be summed for full precision.

    With :math:`\Sigma = LL^T` and period :math:`p_i`, some lift lies within Mahalanobis distance
    :math:`\rho`, :math:`\rho^2 = \sum_i (p_i / 2 L_{ii})^2` (Babai, On Lovasz' lattice reduction,
    1986), and every lift beyond :math:`\rho^2 + T` is smaller than that one by
    :math:`e^{-T/2}`, so only lifts with :math:`|x_i| \le \sigma_i \sqrt{\rho^2 + T}` count.

    Args:
        scale_tril: Cholesky factors of the covariance, ``[..., n, n]``. The number of vectors
            depends on their values, so that a density made of it is compiled in several graphs.
        lattice: Period of each coordinate, ``None`` where it is not periodic.

    Returns:
        Multiples of the periods, ``[terms, n]``.

    Raises:
        ValueError: If more than a million terms are needed.
        NotImplementedError: If the values cannot be read, under ``vmap``, or would be frozen at
            their present ones, under ``torch.jit.trace``.

    Example:
        >>> winding_vectors(0.1 * torch.eye(2), [2 * math.pi, None])[:, 0]
        tensor([-6.2832,  0.0000,  6.2832])
    """
    periods = scale_tril.new_tensor([period or 0.0 for period in lattice])
    nearest = (
        (periods / (2 * scale_tril.diagonal(dim1=-2, dim2=-1))).square().sum(-1, keepdim=True)
    )
    # The margin of 8 nats covers the number of terms left out.
    tail = 2 * (8 - math.log(torch.finfo(scale_tril.dtype).eps))
    reach = scale_tril.square().sum(-1).sqrt() * (nearest + tail).sqrt()
    if scale_tril.requires_grad and torch.jit.is_tracing():
        raise NotImplementedError(
            "A full covariance that is learned: expected no torch.jit.trace, which would keep the "
            "number of lattice vectors of the first scale; use an ELBO or kernel without jit, or "
            "independent normals"
        )
    counts = [
        0 if period is None else math.floor(r / period + 0.5)
        for r, period in zip(_numbers(reach.detach(), len(lattice)), lattice, strict=True)
    ]
    terms = math.prod(2 * count + 1 for count in counts)
    if terms > _MAX_TERMS:
        raise ValueError(
            f"expected a covariance whose lattice sum has at most {_MAX_TERMS} terms, "
            f"got {terms}; use independent normals, whose cost does not grow with the scale"
        )
    ranges = [range(-count, count + 1) for count in counts]
    return scale_tril.new_tensor(list(itertools.product(*ranges))) * periods


def _numbers(reach: Tensor, n: int) -> list[float]:
    """Return the largest of a batch as numbers, for their count of lattice vectors."""
    try:
        return reach.reshape(-1, n).amax(0).tolist()
    except RuntimeError as error:
        raise NotImplementedError(
            "A full covariance: expected no vmap, under which the number of lattice vectors can "
            "not be read from the scale; pass the batch to log_prob, or use independent normals"
        ) from error
