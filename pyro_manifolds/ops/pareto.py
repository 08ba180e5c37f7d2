"""Tails of importance weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["generalized_pareto_shape", "pareto_k"]

_FEWEST = 5  # draws in a tail to fit


def pareto_k(log_weights: Tensor) -> Tensor:
    r"""Estimate the shape of the tail of importance weights, Pareto k, over the first dimension.

    Moments of the weights of order :math:`1/k` and above are infinite. An average of weights can
    be trusted up to a k of about 0.7; above, it may hang on a weight that has not been drawn.

    References:
        | Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao and Gabry, 2024)

    Args:
        log_weights: Logarithms of weights, shape ``[draws, ...]``.

    Returns:
        Shape ``[...]``: NaN for less than 21 draws, too few for a tail; minus infinity where the
        largest weights are equal, so that there is none.

    Example:
        >>> uniform = (torch.arange(4000) + 0.5) / 4000
        >>> pareto_k(-0.3 * uniform.log()), pareto_k(-0.9 * uniform.log())
        (tensor(0.3123), tensor(0.8703))
    """
    num_draws = len(log_weights)
    size = math.ceil(min(num_draws / 5, 3 * math.sqrt(num_draws)))
    if size < _FEWEST:
        return log_weights.new_full(log_weights.shape[1:], math.nan)
    top = log_weights.topk(size + 1, dim=0).values.double()
    largest, cutoff = top[0], top[-1]
    resolution = 10 * torch.finfo(log_weights.dtype).eps
    flat = largest - cutoff <= resolution * cutoff.abs().clamp(min=1)
    # Weights beyond the cutoff in units of the largest, without overflow and cancellation.
    excess = -(top[:-1] - largest).exp() * (cutoff - top[:-1]).expm1()
    shape = generalized_pareto_shape(torch.where(flat, 1.0, excess))
    return torch.where(flat, -math.inf, shape).to(log_weights.dtype)


def generalized_pareto_shape(x: Tensor) -> Tensor:
    r"""Fit the shape :math:`k` of a generalized Pareto distribution over the first dimension.

    The posterior mean under the weak prior of Vehtari et al., ten observations of a half.

    References:
        | A New and Efficient Estimation Method for the Generalized Pareto Distribution (Zhang and
          Stephens, 2009)
        | Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao and Gabry, 2024)

    Args:
        x: Positive observations, shape ``[n, ...]``.

    Example:
        >>> uniform = (torch.arange(4000) + 0.5) / 4000
        >>> generalized_pareto_shape((uniform**-0.5 - 1) / 0.5)
        tensor(0.5001)
    """
    n, x = len(x), x.sort(0).values.clamp(min=torch.finfo(x.dtype).tiny)
    num_nodes = 30 + math.isqrt(n)
    nodes = [
        1 / x[-1] + (1 - math.sqrt(num_nodes / (j + 0.5))) / (3 * x[(n + 2) // 4 - 1])
        for j in range(num_nodes)
    ]
    shapes = torch.stack([torch.log1p(-b * x).mean(0) for b in nodes])
    rates = torch.stack(nodes)
    log_likelihoods = n * ((-rates / shapes).log() - shapes - 1)
    rate = (log_likelihoods.softmax(0) * rates).sum(0)
    return (n * torch.log1p(-rate * x).mean(0) + 5) / (n + 10)
