r"""Spherical Cauchy law: mean resultant length and divergences.

All of them rest on the mean :math:`L(\rho)` of :math:`\log |u + \rho\mu|^2` over uniform unit
vectors :math:`u` of :math:`\mathbb{R}^d`,

.. math:: L(\rho) = -\sum_{k \ge 1} \frac{e_k}{k} \rho^{2k}, \qquad
    e_0 = 1, \quad e_k = e_{k-1} \frac{k - 1 - a}{k + a}, \quad a = \frac{d}{2} - 1,

a polynomial where d is even. Everything is evaluated in float64 and returned in the dtype that
came in.

References:
    | Some properties of a Cauchy family on the sphere derived from the Moebius transformations
      (Kato and McCullagh, 2020), arXiv 1510.07679
"""

import torch
from torch import Tensor

__all__ = ["kl_spherical_cauchy", "kl_to_uniform", "mean_resultant"]

# Terms are left out where they are below _SMALL; those beyond _MOST add up to less than 4e-12, in
# five dimensions at a concentration of one, and to less in others but three.
_SMALL, _MOST = 1e-18, 512


def _coefficients(ambient_dim: int) -> list[float]:
    """Return -e_k / k for k = 1, 2, ..."""
    a, e, found = 0.5 * ambient_dim - 1, 1.0, [0.0]
    for k in range(1, _MOST + 1):
        e *= (k - 1 - a) / (k + a)
        if abs(e) / k < _SMALL:
            break
        found.append(-e / k)
    return found[1:] or found


def _series(square: Tensor, ambient_dim: int) -> tuple[Tensor, Tensor]:
    """Return L and its derivative by the square of the concentration."""
    c = square.new_tensor(_coefficients(ambient_dim))
    k = torch.arange(len(c), dtype=c.dtype, device=c.device)
    powers = square.unsqueeze(-1) ** k
    return square * (powers @ c), powers @ ((k + 1) * c)


def _in_three_dimensions(square: Tensor, complement: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same in closed form, for squares of at least a quarter."""
    square = square.clamp(min=0.25)
    rho = square.sqrt()
    over, under = 1 + rho, complement / (1 + rho)
    log_over, log_under = over.log(), under.log()
    value = (over**2 * log_over - under**2 * log_under) / (2 * rho) - 1
    slope = (over * log_over + under * log_under - value) / (2 * square)
    return value, slope


def _mean_log(square: Tensor, complement: Tensor, ambient_dim: int) -> tuple[Tensor, Tensor]:
    """Return L and its derivative; ``complement`` is one minus ``square``."""
    if ambient_dim != 3:
        return _series(square, ambient_dim)
    small, slope = _series(square.clamp(max=0.25), 3)
    large, steep = _in_three_dimensions(square, complement.clamp(min=1e-300))
    is_small = square < 0.25
    return torch.where(is_small, small, large), torch.where(is_small, slope, steep)


def mean_resultant(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the mean resultant length :math:`E\, \mu \cdot x`.

    Args:
        concentration: Concentrations :math:`\rho` in [0, 1), of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> mean_resultant(torch.tensor([0.5, 0.5]), 2), mean_resultant(torch.tensor(0.9), 3)
        (tensor([0.5000, 0.5000]), tensor(0.9727))
    """
    rho = concentration.double()
    complement = (1 - rho) * (1 + rho)
    _, slope = _mean_log(rho.square(), complement, ambient_dim)
    return (rho * (1 + complement * slope)).to(concentration.dtype)


def kl_to_uniform(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the divergence from the uniform law, :math:`(d - 1)(L(\rho) - \log(1 - \rho^2))`.

    Args:
        concentration: Concentrations :math:`\rho` in [0, 1), of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> kl_to_uniform(torch.tensor([0.0, 0.9]), 3)
        tensor([0.0000, 3.9216])
    """
    rho = concentration.double()
    odds = rho.square() / ((1 - rho) * (1 + rho))
    return _kl_of_odds(odds, ambient_dim).to(concentration.dtype)


def kl_spherical_cauchy(
    loc_q: Tensor, concentration_q: Tensor, loc_p: Tensor, concentration_p: Tensor
) -> Tensor:
    r"""Return the divergence :math:`KL(q \| p)` of two spherical Cauchy laws, in nats.

    Moebius maps of the ball move both laws alike, and one of them moves p to the uniform law: with
    :math:`\phi = \rho\mu`, the divergence is that from the uniform law at the concentration
    :math:`\rho'` with

    .. math:: \frac{\rho'^2}{1 - \rho'^2} =
        \frac{|\phi_q - \phi_p|^2}{(1 - |\phi_q|^2)(1 - |\phi_p|^2)}

    It is symmetric.

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
    return _kl_of_odds(odds, loc_q.shape[-1]).to(dtype)


def _kl_of_odds(odds: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the divergence to uniform at the odds :math:`\rho^2 / (1 - \rho^2)`."""
    value, _ = _mean_log(odds / (1 + odds), 1 / (1 + odds), ambient_dim)
    return (ambient_dim - 1) * (value + odds.log1p())
