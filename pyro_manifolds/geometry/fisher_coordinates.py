"""Square roots of the Fisher information of the families that decoders return."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_manifolds.distributions import ComplexMultivariateNormal, ComplexNormal

__all__ = ["fisher_coordinates"]


@singledispatch
def fisher_coordinates(distribution: Any, at: Any) -> tuple[Tensor, ...]:
    r"""Return coordinates :math:`c` of a distribution in which its Fisher metric is Euclidean.

    It is so at one point: the derivative of :math:`c` by the parameters of ``distribution``, at
    ``distribution = at``, is a square root of the Fisher information, so that

    .. math:: \mathrm{KL}(p_\theta \,\|\, p_{\theta + \varepsilon})
        = \tfrac12 \Bigl|\frac{\partial c}{\partial \theta} \varepsilon\Bigr|^2 + o(\varepsilon^2).

    The values of the coordinates mean nothing. Metrics of decoders are made of their derivatives;
    register a function to have them for a distribution of your own::

        @fisher_coordinates.register(dist.Exponential)
        def _(distribution, at):
            return (distribution.rate / at.rate,)

    Normal, Poisson, Bernoulli, categorical and multivariate normal distributions are known, and
    their complex counterparts; ``Independent`` is looked through.

    Args:
        distribution: Distribution that depends on the variables of differentiation.
        at: Distribution of the same kind, with the values of the point.

    Returns:
        Real tensors that begin with the batch shape of the distributions.

    Raises:
        TypeError: If nothing is registered for the kind of the distribution.

    Example:
        >>> from pyro_manifolds.geometry import fisher_coordinates
        >>> rate, at = torch.tensor(4.0, requires_grad=True), dist.Poisson(4.0)
        >>> (c,) = fisher_coordinates(dist.Poisson(rate), at)
        >>> torch.autograd.grad(c, rate)[0] ** 2  # the Fisher information, 1 / rate
        tensor(0.2500)
    """
    raise TypeError(
        "fisher_coordinates: expected a distribution of a registered kind, got "
        f"{type(distribution).__name__}; register a function for it"
    )


@fisher_coordinates.register(td.Independent)
def _independent(distribution: td.Independent, at: td.Independent) -> tuple[Tensor, ...]:
    return fisher_coordinates(distribution.base_dist, at.base_dist)


@fisher_coordinates.register(td.Normal)
def _normal(distribution: td.Normal, at: td.Normal) -> tuple[Tensor, ...]:
    return distribution.loc / at.scale, math.sqrt(2) * distribution.scale / at.scale


@fisher_coordinates.register(td.Poisson)
def _poisson(distribution: td.Poisson, at: td.Poisson) -> tuple[Tensor, ...]:
    return (distribution.rate / at.rate.sqrt(),)


@fisher_coordinates.register(td.Bernoulli)
def _bernoulli(distribution: td.Bernoulli, at: td.Bernoulli) -> tuple[Tensor, ...]:
    # The root of p (1 - p) from both sigmoids, which keeps its digits where p rounds to one.
    root = (logsigmoid(at.logits) / 2 + logsigmoid(-at.logits) / 2).exp()
    return (distribution.logits * root,)


@fisher_coordinates.register(td.Categorical)
@fisher_coordinates.register(td.OneHotCategorical)
def _categorical(
    distribution: td.Categorical | td.OneHotCategorical,
    at: td.Categorical | td.OneHotCategorical,
) -> tuple[Tensor, ...]:
    # Logits are normalised, so that the mean of their derivative is zero already.
    return (distribution.logits * (at.logits / 2).exp(),)


@fisher_coordinates.register(ComplexNormal)
def _complex_normal(distribution: ComplexNormal, at: ComplexNormal) -> tuple[Tensor, ...]:
    if distribution.circularity is not None:
        return fisher_coordinates(distribution.to_real(), at.to_real())
    loc, unit = distribution.loc, at.scale / math.sqrt(2)
    return loc.real / unit, loc.imag / unit, 2 * distribution.scale / at.scale


@fisher_coordinates.register(ComplexMultivariateNormal)
def _complex_multivariate_normal(
    distribution: ComplexMultivariateNormal, at: ComplexMultivariateNormal
) -> tuple[Tensor, ...]:
    if distribution.coherence is not None:
        return fisher_coordinates(distribution.to_real(), at.to_real())
    parts = _gaussian(distribution.loc, distribution.scale_tril, at.scale_tril)
    return tuple(math.sqrt(2) * part for z in parts for part in (z.real, z.imag))


@fisher_coordinates.register(td.MultivariateNormal)
def _multivariate_normal(
    distribution: td.MultivariateNormal, at: td.MultivariateNormal
) -> tuple[Tensor, ...]:
    return _gaussian(distribution.loc, distribution.scale_tril, at.scale_tril)


def _gaussian(loc: Tensor, scale_tril: Tensor, at: Tensor) -> tuple[Tensor, ...]:
    """Return coordinates where the triangle of the covariance is ``at``."""
    mean = torch.linalg.solve_triangular(at, loc.unsqueeze(-1), upper=False).squeeze(-1)
    triangle = torch.linalg.solve_triangular(at, scale_tril, upper=False)
    # At T = 1 the covariance T T' moves by dT + dT', half of whose square is that of these.
    return mean, math.sqrt(2) * triangle.diagonal(dim1=-2, dim2=-1), triangle.tril(-1)
