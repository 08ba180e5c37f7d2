r"""Moments of topographic latents, by way of those of the sums of squares :math:`v = W u^2`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "correlation",
    "energy_correlation",
    "inverse_moment",
    "shared_inverse_moment",
    "weighted_inverse_moment",
]

_NODES = 160


def inverse_moment(dof: Tensor, power: float) -> Tensor:
    r"""Return :math:`E v^{-r}` for a chi-square variable v, infinite where it does not exist.

    Args:
        dof: Degrees of freedom.
        power: The power r.

    Example:
        >>> from pyro_manifolds.ops.topographic_moments import inverse_moment
        >>> inverse_moment(torch.tensor([1.0, 3.0, 37.0]), 0.5)
        tensor([   inf, 0.7979, 0.1678])
    """
    excess = 0.5 * dof - power
    log_moment = excess.clamp(min=1e-6).lgamma() - (0.5 * dof).lgamma() - power * math.log(2)
    return torch.where(excess > 0, log_moment.exp(), math.inf)


def weighted_inverse_moment(weights: Tensor, power: float) -> Tensor:
    r"""Return :math:`E v^{-r}` for :math:`v = \sum_j w_j u_j^2`, by quadrature.

    Args:
        weights: Weights ``[..., m]``, not negative.
        power: The power r. It must be less than half the number of positive weights for the
            moment to exist; otherwise the result is infinite.

    Example:
        >>> from pyro_manifolds.ops.topographic_moments import weighted_inverse_moment
        >>> weighted_inverse_moment(torch.tensor([1.0, 1.0, 1.0, 0.0]), 0.5)
        tensor(0.7979)
    """
    x, log_weight = _half_line(weights, power)
    total = weights.sum(-1, keepdim=True)
    # In units of the sum of the weights, so that the nodes lie where they matter.
    factors = torch.log1p(2 * x * (weights / total)[..., None])
    moment = (log_weight - 0.5 * factors.sum(-2)).exp().sum(-1) / math.gamma(power)
    exists = (weights > 0).sum(-1) > 2 * power
    return torch.where(exists, moment * total[..., 0].pow(-power), math.inf)


def shared_inverse_moment(first: Tensor, second: Tensor, shared: Tensor, power: float) -> Tensor:
    r"""Return :math:`E (v_1 v_2)^{-r}` for two chi-square variables that share some terms.

    It is, with :math:`\nu_i` degrees of freedom of which s are shared,

    .. math::
        \frac{1}{\Gamma(r)^2} \int_0^\infty \int_0^\infty (xy)^{r-1} (1 + 2x + 2y)^{-s/2}
        (1 + 2x)^{-(\nu_1 - s)/2} (1 + 2y)^{-(\nu_2 - s)/2} dx dy

    by the trapezoidal rule in variables in which the integrand falls off double exponentially.

    Args:
        first: Degrees of freedom, more than 2r.
        second: Degrees of freedom, more than 2r.
        shared: How many of them are shared. Together there must be more than 4r.
        power: The power r.

    Example:
        >>> from pyro_manifolds.ops.topographic_moments import shared_inverse_moment
        >>> shared_inverse_moment(*torch.tensor([9.0, 9.0, 6.0]), 1.0)
        tensor(0.0248)
    """
    x, log_weight = _half_line(first, power)
    own = torch.log1p(2 * x)
    both = torch.log1p(2 * x[:, None] + 2 * x)
    total = log_weight[:, None] + log_weight
    for dof, log_factor in (
        (first - shared, own[:, None]),
        (second - shared, own),
        (shared, both),
    ):
        total = total - 0.5 * dof[..., None, None] * log_factor
    moment = total.exp().sum((-2, -1)) / math.gamma(power) ** 2
    exists = (torch.minimum(first, second) > 2 * power) & (first + second - shared > 4 * power)
    return torch.where(exists, moment, math.inf)


def correlation(loc: Tensor, dof: Tensor, shared: Tensor) -> Tensor:
    """Return correlations of entries ``[..., n, n]``, NaN at two degrees of freedom or fewer.

    Args:
        loc: Noncentrality ``[..., n]``.
        dof: Degrees of freedom ``[n]``.
        shared: How many each two entries share, ``[n, n]``.

    Example:
        >>> from pyro_manifolds.ops.topographic_moments import correlation
        >>> dof, shared = torch.tensor([3.0, 3.0]), torch.tensor([[3.0, 2.0], [2.0, 3.0]])
        >>> correlation(torch.tensor([30.0, 30.0]), dof, shared)[0]
        tensor([1.0000, 0.4082])
    """
    mean = loc * inverse_moment(dof, 0.5)
    cross = _outer(loc) * _all_pairs(dof, shared, 0.5)
    variance = (1 + loc.square()) * inverse_moment(dof, 1.0) - mean.square()
    return _normalised(cross - _outer(mean), variance, dof > 2)


def energy_correlation(loc: Tensor, dof: Tensor, shared: Tensor) -> Tensor:
    """Return correlations of squares ``[..., n, n]``, NaN at four degrees of freedom or fewer.

    Args:
        loc: Noncentrality ``[..., n]``.
        dof: Degrees of freedom ``[n]``.
        shared: How many each two entries share, ``[n, n]``.

    Example:
        >>> from pyro_manifolds.ops.topographic_moments import energy_correlation
        >>> dof, shared = torch.tensor([9.0, 9.0]), torch.tensor([[9.0, 6.0], [6.0, 9.0]])
        >>> energy_correlation(torch.zeros(2), dof, shared)[0]
        tensor([1.0000, 0.0669])
    """
    square = 1 + loc.square()
    mean = square * inverse_moment(dof, 1.0)
    cross = _outer(square) * _all_pairs(dof, shared, 1.0)
    fourth = square.square() + 4 * square - 2  # of a normal variable of this mean
    variance = fourth * inverse_moment(dof, 2.0) - mean.square()
    return _normalised(cross - _outer(mean), variance, dof > 4)


def _outer(x: Tensor) -> Tensor:
    return x[..., :, None] * x[..., None, :]


def _all_pairs(dof: Tensor, shared: Tensor, power: float) -> Tensor:
    """Return E (v_i v_j)^-r of all pairs; most of them are alike."""
    first, second = torch.broadcast_tensors(dof[:, None], dof)
    pairs = torch.stack([first, second, shared], -1).flatten(0, 1)
    kinds, place = pairs.unique(dim=0, return_inverse=True)
    one, two, common = kinds.unbind(-1)
    return shared_inverse_moment(one, two, common, power)[place].reshape(shared.shape)


def _normalised(covariance: Tensor, variance: Tensor, exists: Tensor) -> Tensor:
    deviation = variance.where(exists, math.nan).sqrt()
    matrix = covariance / _outer(deviation)
    eye = torch.eye(len(exists), dtype=torch.bool, device=matrix.device)
    return torch.where(eye & exists, 1.0, matrix)


def _half_line(like: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Return nodes x of (0, inf), and the log of the weights for x^(power - 1) dx."""
    size = _NODES
    s = torch.linspace(-4.5, 4.5, size, dtype=like.dtype, device=like.device)
    log_x = 0.5 * math.pi * s.sinh()
    log_step = math.log(9.0 / (size - 1) * 0.5 * math.pi)
    return log_x.exp(), power * log_x + s.cosh().log() + log_step
