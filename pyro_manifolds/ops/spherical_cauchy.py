r"""Spherical Cauchy law: mean resultant length and divergences.

A concentration :math:`\rho = \tanh(r / 2)` and a location make a point :math:`\phi = \rho \mu` of
the open unit ball, at the hyperbolic distance r from its centre. The Moebius map that takes the
centre to it takes the uniform law of the sphere to the spherical Cauchy law, and moves
:math:`\log \tan(\theta / 2)`, with the angle :math:`\theta` to the location, by -r. Under the
uniform law that is a variable v with a density in proportion to :math:`\cosh^{1-d} v`, and what
follows are means over it. They are evaluated in float64, by sums with a fixed number of terms,
none of which is negative, and returned in the dtype that came in.

References:
    | Some Properties of a Cauchy Family on the Sphere Derived from the Moebius Transformations
      (Kato and McCullagh, 2020), arXiv 1510.07679
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.ops.trapezoid import spread_nodes

__all__ = ["kl_spherical_cauchy", "kl_to_uniform", "mean_resultant"]


def _nodes(ambient_dim: int, single: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return 1 / cosh^2 v at nodes v >= 0, and weights that integrate over the law of v."""
    m = ambient_dim - 1
    # Errors relative to the means below, from d = 3 on: 1e-11, and the rounding of float64.
    size, level = (32, 30.0) if single else (64, 36.0)
    zero = torch.zeros((), dtype=torch.float64, device=device)
    reach = level / m + min(math.log(2), math.sqrt(2 * level / m))
    v, weight = spread_nodes(zero, zero + reach, zero + 3 / math.sqrt(m), size)
    # The nodes below zero repeat those above, and the one at zero is there once.
    weight = weight * (torch.arange(size, device=device) > 0).to(weight.dtype).add(1)
    log_sech = math.log(2) - v - (-2 * v).exp().log1p()
    log_area = math.lgamma(0.5 * (m + 1)) - math.lgamma(0.5 * m) - 0.5 * math.log(math.pi)
    return (2 * log_sech).exp(), weight * (m * log_sech + log_area).exp()


def _kl_of_odds(odds: Tensor, ambient_dim: int, single: bool) -> Tensor:
    r"""Return the divergence to uniform at the odds :math:`\rho^2 / (1 - \rho^2)`."""
    if ambient_dim == 2:
        return odds.log1p()
    sech2, weight = _nodes(ambient_dim, single, odds.device)
    # The logarithm of the density is d - 1 times log(cosh(v - r) / cosh v) at a point moved from
    # v. The mean of the two terms at v and -v is half of the following.
    square = 4 * odds * (1 + odds)  # sinh^2 r
    terms = (square.unsqueeze(-1) * sech2).log1p()
    return 0.5 * (ambient_dim - 1) * (terms @ weight)


def mean_resultant(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the mean resultant length :math:`E\, \mu \cdot x = E \tanh(r + v)`.

    Args:
        concentration: Concentrations :math:`\rho` in [0, 1), of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> mean_resultant(torch.tensor([0.0, 0.9]), 3)
        tensor([0.0000, 0.9727])
    """
    if ambient_dim == 2:
        return concentration.clone()
    rho = concentration.double()
    sech2, weight = _nodes(ambient_dim, concentration.dtype == torch.float32, rho.device)
    complement = (1 - rho) * (1 + rho)
    sinh, cosh = 2 * rho / complement, (1 + rho.square()) / complement
    terms = sech2 / (1 + sinh.square().unsqueeze(-1) * sech2)
    return (sinh * cosh * (terms @ weight)).to(concentration.dtype)


def kl_to_uniform(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the divergence of a spherical Cauchy law from the uniform law, in nats.

    It is :math:`\frac{d-1}{2} E \log(1 + \sinh^2 r / \cosh^2 v)`, precise relative to its value.
    The derivative with respect to r is d - 1 times :func:`mean_resultant`.

    Args:
        concentration: Concentrations :math:`\rho` in [0, 1), of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> kl_to_uniform(torch.tensor([1e-3, 0.9]), 3)
        tensor([2.6667e-06, 3.9216e+00])
    """
    rho = concentration.double()
    odds = rho.square() / ((1 - rho) * (1 + rho))
    kl = _kl_of_odds(odds, ambient_dim, concentration.dtype == torch.float32)
    return kl.to(concentration.dtype)


def kl_spherical_cauchy(
    loc_q: Tensor, concentration_q: Tensor, loc_p: Tensor, concentration_p: Tensor
) -> Tensor:
    r"""Return the divergence :math:`KL(q \| p)` of two spherical Cauchy laws, in nats.

    Moebius maps of the ball move both laws alike, and one of them moves p to the uniform law: with
    :math:`\phi = \rho\mu`, the divergence is that from the uniform law at the concentration
    :math:`\rho'` with

    .. math:: \frac{\rho'^2}{1 - \rho'^2} =
        \frac{|\phi_q - \phi_p|^2}{(1 - |\phi_q|^2)(1 - |\phi_p|^2)}

    It is a function of the hyperbolic distance of the two points, and symmetric.

    Args:
        loc_q: Unit vectors, ``[..., d]``.
        concentration_q: Concentrations in [0, 1), ``[...]``.
        loc_p: Unit vectors.
        concentration_p: Concentrations in [0, 1). All shapes broadcast.

    Example:
        >>> x, y, _ = torch.eye(3)
        >>> kl_spherical_cauchy(x, torch.tensor(0.5), y, torch.tensor(0.7))
        tensor(2.6294)
    """
    dtype = torch.promote_types(concentration_q.dtype, concentration_p.dtype)
    q, p = concentration_q.double(), concentration_p.double()
    apart = (loc_q.double() - loc_p.double()).square().sum(-1)
    square = (q - p).square() + q * p * apart
    odds = square / ((1 - q) * (1 + q) * (1 - p) * (1 + p))
    return _kl_of_odds(odds, loc_q.shape[-1], dtype == torch.float32).to(dtype)
