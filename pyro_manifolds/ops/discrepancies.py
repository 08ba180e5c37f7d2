"""How far two samples are from one distribution: kernels' mean discrepancy, energy distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "energy_distance",
    "energy_distance_test",
    "imq_kernel",
    "rbf_kernel",
    "squared_mmd",
]

Kernel = Callable[[Tensor], Tensor]


def imq_kernel(
    dim: int,
    variance: float = 1.0,
    scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
) -> Kernel:
    r"""Return the inverse multiquadratic kernel as a function of squared distances.

    .. math:: k(d^2) = \sum_s \frac{C s}{C s + d^2}, \quad C = 2 m v

    Its tails are heavy: points far from all others still have a gradient.

    References:
        | Wasserstein Auto-Encoders (Tolstikhin, Bousquet, Gelly and Schoelkopf, 2017),
          arXiv 1711.01558

    Args:
        dim: Number of coordinates, :math:`m`.
        variance: Variance :math:`v` of one coordinate of the target; 1/12 for the unit interval.
        scales: Values of :math:`s`.

    Example:
        >>> from pyro_manifolds.ops.discrepancies import imq_kernel
        >>> imq_kernel(1)(torch.tensor([0.0, 1.0]))
        tensor([7.0000, 4.2805])
    """
    widths = [2 * dim * variance * scale for scale in scales]
    return lambda squares: torch.stack([width / (width + squares) for width in widths]).sum(0)


def rbf_kernel(widths: Sequence[float] = (0.35, 1.0, 3.5)) -> Kernel:
    r"""Return a sum of Gaussian kernels as a function of squared distances.

    .. math:: k(d^2) = \sum_\sigma \exp(-d^2 / 2 \sigma^2)

    Args:
        widths: Values of :math:`\sigma`.

    Example:
        >>> from pyro_manifolds.ops.discrepancies import rbf_kernel
        >>> rbf_kernel([1.0])(torch.tensor([0.0, 2.0]))
        tensor([1.0000, 0.3679])
    """
    rates = [1 / (2 * width**2) for width in widths]
    return lambda squares: torch.stack([(-rate * squares).exp() for rate in rates]).sum(0)


def squared_mmd(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    r"""Return the unbiased estimate of the squared maximum mean discrepancy, perhaps negative.

    Args:
        x: Draws of one distribution, shape ``[n, d]`` with n at least 2.
        y: Draws of the other, shape ``[k, d]`` with k at least 2.
        kernel: Function of squared distances, such as :func:`imq_kernel` returns.

    Raises:
        ValueError: If a shape does not fit.

    Example:
        >>> from pyro_manifolds.ops.discrepancies import imq_kernel, squared_mmd
        >>> x, y = torch.tensor([[0.0], [0.5], [1.0]]), torch.tensor([[0.1], [0.4], [0.8]])
        >>> squared_mmd(x, y, imq_kernel(1, 1 / 12))
        tensor(-1.9070)
    """
    _check("squared_mmd", x, y)
    within = _mean_off_diagonal(kernel(_squares(x, x))) + _mean_off_diagonal(
        kernel(_squares(y, y))
    )
    return within - 2 * kernel(_squares(x, y)).mean()


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the unbiased estimate of the squared energy distance, perhaps negative.

    .. math:: 2 E|X - Y| - E|X - X'| - E|Y - Y'|

    It is zero only if the distributions are equal.

    References:
        | Energy statistics: a class of statistics based on distances (Szekely and Rizzo, 2013)

    Args:
        x: Draws of one distribution, shape ``[n, d]`` with n at least 2.
        y: Draws of the other, shape ``[k, d]`` with k at least 2.

    Raises:
        ValueError: If a shape does not fit.

    Example:
        >>> from pyro_manifolds.ops.discrepancies import energy_distance
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> energy_distance(x, x + 5)
        tensor(8.)
    """
    _check("energy_distance", x, y)
    within = _mean_off_diagonal(_distances(x, x)) + _mean_off_diagonal(_distances(y, y))
    return 2 * _distances(x, y).mean() - within


def energy_distance_test(
    x: Tensor, y: Tensor, num_permutations: int = 200, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the energy distance, and what it would be if all draws had one distribution.

    Args:
        x: Draws of one distribution, shape ``[n, d]``.
        y: Draws of the other, shape ``[k, d]``.
        num_permutations: Number of random ways in which the draws are dealt out again.
        seed: Seed of these.

    Returns:
        The squared distance, and those of the permutations, shape ``[num_permutations]``.

    Example:
        >>> from pyro_manifolds.ops.discrepancies import energy_distance_test
        >>> value, null = energy_distance_test(torch.randn(200, 2), torch.rand(200, 2))
        >>> (value > null.quantile(0.95)).item()
        True
    """
    _check("energy_distance_test", x, y)
    pooled, n, k = torch.cat([x, y]), len(x), len(y)
    distances = _distances(pooled, pooled)
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(num_permutations, n + k, generator=generator).argsort(-1)
    order = torch.cat([torch.arange(n + k)[None], order])
    first = (order < n).to(pooled)  # which points are dealt to the first sample
    second = 1 - first
    of_first, of_second = first @ distances, second @ distances
    between = (of_first * second).sum(-1) / (n * k)
    within = (of_first * first).sum(-1) / (n * (n - 1))
    within = within + (of_second * second).sum(-1) / (k * (k - 1))
    values = 2 * between - within
    return values[0], values[1:]


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return (x.unsqueeze(-2) - y).square().sum(-1)  # cdist loses digits of small distances


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_off_diagonal(matrix: Tensor) -> Tensor:
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


def _check(caller: str, x: Tensor, y: Tensor) -> None:
    for name, sample in (("x", x), ("y", y)):
        if sample.dim() != 2 or len(sample) < 2 or sample.shape[-1] != y.shape[-1]:
            raise ValueError(
                f"{caller}: expected {name} of shape (n, d) with n >= 2 and one d for both, "
                f"got {tuple(x.shape)} and {tuple(y.shape)}"
            )
