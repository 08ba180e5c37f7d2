"""Importance estimates of the density of a topographic latent with any neighbourhood."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pyro_manifolds.ops.topographic import log_prob_given

if TYPE_CHECKING:
    from collections.abc import Callable

    Map = Callable[[Tensor], Tensor]

__all__ = ["LogProbEstimate", "estimate_block_log_probs"]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class LogProbEstimate(NamedTuple):
    """An importance estimate of a log density, and how far to trust it.

    Attributes:
        value: The estimate; the density itself, not its logarithm, is unbiased.
        effective_sample_size: Of the samples, the square of the sum of the weights over the sum
            of their squares: the smallest one of all independent blocks of the event. A few
            effective samples mean that the value is too low by an unknown amount.
    """

    value: Tensor
    effective_sample_size: Tensor


def estimate_block_log_probs(
    t: Tensor,
    loc: Tensor,
    forward: Map,
    transpose: Map,
    block_sums: Map,
    dof: Tensor,
    num_samples: int,
) -> tuple[Tensor, Tensor]:
    r"""Return estimates of the log densities of blocks, and effective sample sizes.

    Half the samples of the squares :math:`x = u^2` come from their prior; the others are gamma
    variables of shape :math:`(1 + \frac12 \sum_i W_{ij} / K_i) / 2` and rate
    :math:`(1 + a_j) / 2`, with row sums K and :math:`a = W^T t^2`: the posterior if W were a
    diagonal, except for the half. All are weighted by the mixture of both densities. The first
    serve where t is typical and windows are large, the second in the tails.

    The samples carry no gradient. That of the estimate is the mean of the gradients given each
    sample, weighted, which tends to the gradient of the log density.

    Args:
        t: Values.
        loc: Noncentrality, of the same shape.
        forward: The neighbourhood, W.
        transpose: The transpose of it.
        block_sums: Adds up entries of t, or of u, over blocks that share no variable.
        dof: Row sums of W.
        num_samples: Number of samples, at least two.

    Returns:
        Both of shape ``[..., blocks]``.
    """
    with torch.no_grad():
        x, log_ratio = _proposals(t, transpose, block_sums, dof, num_samples)
    log_weight = block_sums(log_prob_given(t, loc, forward(x))) - log_ratio
    total = log_weight.logsumexp(0)
    with torch.no_grad():
        effective = (2 * total - (2 * log_weight).logsumexp(0)).exp()
    return total - math.log(num_samples), effective


def _proposals(
    t: Tensor, transpose: Map, block_sums: Map, dof: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Return samples, and the log of the proposal density in units of the prior, by blocks."""
    rate = 0.5 * (1 + transpose(t * t))
    shape = (0.5 + 0.25 * transpose(1 / dof)).expand(rate.shape)
    first = size // 2
    least = torch.finfo(t.dtype).tiny
    prior = torch.randn((first, *rate.shape), dtype=t.dtype, device=t.device).square()
    gamma = torch._standard_gamma(shape.expand(size - first, *rate.shape)) / rate
    x = torch.cat([prior, gamma]).clamp(min=least)
    log_gamma = (shape - 1) * x.log() + shape * rate.log() - shape.lgamma() - rate * x
    log_prior = -0.5 * (x.log() + x) - _HALF_LOG_2PI
    excess = block_sums(log_gamma - log_prior) + math.log((size - first) / size)
    share = torch.full_like(excess, math.log(first / size))
    return x, torch.logaddexp(excess, share)
