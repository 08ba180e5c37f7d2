r"""Divergences of von Mises-Fisher laws, which are exact at every concentration.

With :math:`g, A` as in :mod:`pyro_manifolds.ops.bessel_ratio`, the density relative to the uniform
law of the sphere is :math:`e^{\kappa \mu \cdot x - g(\kappa)}`. Everything is evaluated in float64
and returned in the dtype that came in.
"""

import numpy as np
import torch
from torch import Tensor

from pyro_manifolds.ops import power_spherical
from pyro_manifolds.ops.bessel_ratio import bessel_ratios, resultant_slope

__all__ = ["kl_power_spherical_von_mises_fisher", "kl_to_uniform", "kl_von_mises_fisher"]

_NODES, _WEIGHTS = (x.tolist() for x in np.polynomial.legendre.leggauss(10))


def kl_to_uniform(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the divergence of a von Mises-Fisher law from the uniform law, in nats.

    It is :math:`\kappa A(\kappa) - g(\kappa)`, with derivative :math:`\kappa A'(\kappa)`. The
    error is small relative to the value, down to :math:`\kappa^2 / (2 d)`, that of small
    concentrations.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> kl_to_uniform(torch.tensor([0.0, 1e-6, 50.0]), 5)
        tensor([0.0000e+00, 1.0000e-13, 5.4592e+00])
    """
    g, gap, resultant, variance, _ = bessel_ratios(concentration, ambient_dim, slope=True)
    kappa = concentration.double()
    # In each, both terms are of the order of the difference.
    small, large = kappa * resultant - g, gap - kappa * variance
    return torch.where(2.0 * kappa < ambient_dim, small, large).to(concentration.dtype)


def kl_von_mises_fisher(
    loc_p: Tensor, concentration_p: Tensor, loc_q: Tensor, concentration_q: Tensor
) -> Tensor:
    r"""Return the divergence :math:`KL(p \| q)` of two von Mises-Fisher laws, in nats.

    It is :math:`g(\kappa_q) - g(\kappa_p) - (\kappa_q - \kappa_p) A(\kappa_p) + \kappa_q
    A(\kappa_p) |\mu_p - \mu_q|^2 / 2`. The difference is taken where it does not cancel; for
    concentrations near each other it is the integral of :math:`(\kappa_q - s) A'(s)` over s from
    :math:`\kappa_p` to :math:`\kappa_q`.

    Args:
        loc_p: Unit vectors, ``[..., d]``.
        concentration_p: Concentrations :math:`\kappa_p \ge 0`, ``[...]``.
        loc_q: Unit vectors, ``[..., d]``.
        concentration_q: Concentrations :math:`\kappa_q \ge 0`, ``[...]``. All shapes broadcast.

    Example:
        >>> pole, equator = torch.eye(2)
        >>> kl_von_mises_fisher(pole, torch.tensor(3.0), equator, torch.tensor(7.0))
        tensor(5.9721)
    """
    dtype, dim = torch.promote_types(concentration_p.dtype, concentration_q.dtype), loc_p.shape[-1]
    p, q = (x.to(dtype) for x in torch.broadcast_tensors(concentration_p, concentration_q))
    g_p, gap_p, resultant, variance, _ = bessel_ratios(p, dim, slope=True)
    g_q, gap_q = bessel_ratios(q, dim, slope=False)[:2]
    step, larger = q.double() - p.double(), torch.maximum(p, q).double()
    below, above = g_q - g_p - step * resultant, gap_p - gap_q + step * variance
    far = torch.where(2.0 * larger < dim, below, above)
    # Ten nodes integrate up to a ratio of two, and below one, to 1e-15.
    u, weights = (
        step.new_tensor(x).reshape((-1,) + (1,) * step.dim()) for x in (_NODES, _WEIGHTS)
    )
    slopes = resultant_slope(p + (0.5 + 0.5 * u) * step, dim)
    close = 0.25 * step.square() * (weights * (1.0 - u) * slopes).sum(0)
    kl = torch.where(step.abs() <= (0.5 * larger).clamp(min=1.0), close, far)
    return (kl + _pull(loc_p, loc_q, q.double() * resultant)).to(dtype)


def kl_power_spherical_von_mises_fisher(
    loc_p: Tensor, concentration_p: Tensor, loc_q: Tensor, concentration_q: Tensor
) -> Tensor:
    r"""Return the divergence :math:`KL(p \| q)` of a power spherical law p from q, in nats.

    With R the mean resultant length of p, it is its divergence from the uniform law plus
    :math:`g(\kappa_q) - \kappa_q R + \kappa_q R |\mu_p - \mu_q|^2 / 2`.

    Args:
        loc_p: Unit vectors, ``[..., d]``.
        concentration_p: Concentrations :math:`\kappa_p \ge 0`, ``[...]``.
        loc_q: Unit vectors, ``[..., d]``.
        concentration_q: Concentrations :math:`\kappa_q \ge 0`, ``[...]``. All shapes broadcast.

    Example:
        >>> pole, equator = torch.eye(2)
        >>> p, q = torch.tensor(3.0), torch.tensor(7.0)
        >>> kl_power_spherical_von_mises_fisher(pole, p, equator, q)
        tensor(5.8318)
    """
    dtype, dim = torch.promote_types(concentration_p.dtype, concentration_q.dtype), loc_p.shape[-1]
    p, q = concentration_p.double(), concentration_q.double()
    g, gap = bessel_ratios(q, dim, slope=False)[:2]
    resultant, variance = p / (p + (dim - 1.0)), (dim - 1.0) / (p + (dim - 1.0))
    cross = torch.where(2.0 * q < dim, g - q * resultant, q * variance - gap)
    kl = power_spherical.kl_to_uniform(p, dim) + cross
    return (kl + _pull(loc_p, loc_q, q * resultant)).to(dtype)


def _pull(loc_p: Tensor, loc_q: Tensor, strength: Tensor) -> Tensor:
    return 0.5 * strength * (loc_p.double() - loc_q.double()).square().sum(-1)
