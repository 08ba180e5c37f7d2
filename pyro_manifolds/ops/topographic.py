r"""Densities of topographic latents :math:`t = (z + \mu) / \sqrt{W u^2}`.

Here z and u are standard normal, and :math:`\mu` is the noncentrality ``loc``. All densities are
with respect to Lebesgue measure on t.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_manifolds.ops.parabolic_cylinder import log_half_line_moment

if TYPE_CHECKING:
    from collections.abc import Callable

    Map = Callable[[Tensor], Tensor]

__all__ = [
    "central_group_log_prob",
    "group_log_prob",
    "log_prob_given",
    "log_prob_lower_bound",
]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
# Half the mean logarithm of a squared standard normal variable.
_MEAN_LOG_NORMAL = -0.635181422730739


def log_prob_given(t: Tensor, loc: Tensor, v: Tensor) -> Tensor:
    """Return the log density of each entry given the sums of squares v.

    Example:
        >>> from pyro_manifolds.ops.topographic import log_prob_given
        >>> log_prob_given(torch.tensor(0.5), torch.tensor(1.0), torch.tensor(4.0))
        tensor(-0.2258)
    """
    return 0.5 * v.log() - 0.5 * (t * v.sqrt() - loc).square() - _HALF_LOG_2PI


def central_group_log_prob(t: Tensor, dof: int) -> Tensor:
    r"""Return the log density of groups at :math:`\mu = 0`, a multivariate Student-t.

    Args:
        t: Entries of the groups, ``[..., n]``, which share all their auxiliary variables.
        dof: Number m of those.

    Example:
        >>> from pyro_manifolds.ops.topographic import central_group_log_prob
        >>> central_group_log_prob(torch.tensor([0.3, -0.7, 1.1]), 5)
        tensor(-4.3142)
    """
    half, n = 0.5 * (dof + t.shape[-1]), t.shape[-1]
    constant = math.lgamma(half) - math.lgamma(0.5 * dof) - 0.5 * n * math.log(math.pi)
    return constant - half * t.square().sum(-1).log1p()


def group_log_prob(t: Tensor, loc: Tensor, dof: int) -> Tensor:
    r"""Return the log density of groups at any location.

    With :math:`A^2 = 1 + |t|^2`, :math:`c = t \cdot \mu / A` and p = m + n it is

    .. math::
        \log \frac{2^{1 - m/2}}{\Gamma(m/2) (2 \pi)^{n/2}} - \frac{|\mu|^2}{2} - p \log A
        + \log \int_0^\infty x^{p-1} e^{-x^2/2 + c x} dx

    The quadratic terms, which grow with the location and cancel, are put together as the sum of
    two squares.

    Args:
        t: Entries of the groups, ``[..., n]``.
        loc: Noncentrality of each entry, of a shape that broadcasts.
        dof: Number m of auxiliary variables of a group.

    Example:
        >>> from pyro_manifolds.ops.topographic import group_log_prob
        >>> group_log_prob(torch.tensor([0.3, -0.7, 1.1]), torch.full((3,), 2.0), 5)
        tensor(-7.8375)
    """
    n = t.shape[-1]
    square = 1 + t.square().sum(-1)
    product = (t * loc).sum(-1)
    # Where the product is positive, |loc|^2 - c^2 is the least of |loc - x t|^2 + x^2.
    slope = product.clamp(min=0) / square
    residual = (loc - slope[..., None] * t).square().sum(-1) + slope.square()
    constant = (1 - 0.5 * dof) * math.log(2) - math.lgamma(0.5 * dof) - n * _HALF_LOG_2PI
    moment = log_half_line_moment(dof + n, product * square.rsqrt())
    return constant - 0.5 * residual - 0.5 * (dof + n) * square.log() + moment


def log_prob_lower_bound(
    t: Tensor, loc: Tensor, forward: Map, transpose: Map, dof: Tensor, event_dim: int
) -> Tensor:
    r"""Return a lower bound of the log density, by Jensen's inequality.

    With :math:`a = W^T t^2` and independent standard normal :math:`\epsilon`, the density is an
    expectation of :math:`\prod_i \sqrt{w_i} e^{\mu_i t_i \sqrt{w_i}}`, where
    :math:`w_i = \sum_j W_{ij} \epsilon_j^2 / (1 + a_j)`; the logarithm is taken inside, and
    within the sums over j. At :math:`\mu = 0` this is a product of Student-t energy with an
    explicit constant.

    Args:
        t: Values.
        loc: Noncentrality.
        forward: The neighbourhood, W.
        transpose: The transpose of it.
        dof: Row sums of W.
        event_dim: Number of event dimensions.

    Example:
        >>> from pyro_manifolds.ops.topographic import log_prob_lower_bound
        >>> from pyro_manifolds.distributions import Ring
        >>> ring = Ring(4, 2)
        >>> t = torch.tensor([0.5, -1.2, 0.3, 0.9])
        >>> log_prob_lower_bound(t, torch.zeros(4), ring.forward, ring.transpose, ring.dof, 1)
        tensor(-8.1125)
    """
    a = transpose(t * t)
    log_a = a.log1p()
    # E log sqrt(w_i) is at least this.
    half_log = 0.5 * (dof.log() - forward(log_a) / dof) + _MEAN_LOG_NORMAL
    pull = loc * t
    # E sqrt(w_i) is at least exp(E log sqrt(w_i)), and at most the root of E w_i.
    linear = pull.clamp(min=0) * half_log.exp()
    linear = linear + pull.clamp(max=0) * forward(1 / (1 + a)).sqrt()
    each = half_log + linear - _HALF_LOG_2PI - 0.5 * loc.square()
    return _sum(each, event_dim) - 0.5 * _sum(log_a, event_dim)


def _sum(x: Tensor, event_dim: int) -> Tensor:
    return x.flatten(x.dim() - event_dim).sum(-1)
