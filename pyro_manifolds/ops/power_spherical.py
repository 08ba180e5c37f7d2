r"""Power spherical law: normaliser, mean resultant length and divergence from the uniform law.

On the unit sphere of :math:`\mathbb{R}^d` the density relative to the uniform law is
:math:`e^{-h(\kappa)} ((1 + \mu \cdot x) / 2)^\kappa`. Everything is evaluated in float64 and
returned in the dtype that came in: in float32 the gamma functions below cancel by nats.

References:
    | The Power Spherical distribution (De Cao and Aziz, 2020)
    | https://arxiv.org/abs/2006.04437
"""

import torch
from torch import Tensor

__all__ = ["kl_to_uniform", "log_normalizer", "mean_resultant"]

# Stirling's series, B_2k / (2k (2k - 1)), is read at the argument plus _SHIFT, where 8 terms leave
# 1e-17. The recurrence leads back; torch's own trigamma would limit gradients to 1e-9.
_STIRLING = [
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
]
_DIGAMMA = [(2 * k + 1) * c for k, c in enumerate(_STIRLING)]
_SHIFT = 8


def _horner(v: Tensor, coefficients: list[float]) -> Tensor:
    total = torch.full_like(v, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * v + c
    return total


def _shifted(x: Tensor) -> tuple[Tensor, Tensor]:
    shifts = torch.arange(_SHIFT, dtype=x.dtype, device=x.device)
    return x + _SHIFT, x.unsqueeze(-1) + shifts


def _lgamma_difference(x: Tensor, b: float) -> Tensor:
    """Return lgamma(x) - lgamma(x + b), also where both are much larger than the difference."""

    def remainder(y: Tensor) -> Tensor:
        return _horner(y.square().reciprocal(), _STIRLING) / y

    y, below = _shifted(x)
    main = b - (y - 0.5) * (b / y).log1p() - b * (y + b).log()
    return main + (b / below).log1p().sum(-1) + remainder(y) - remainder(y + b)


def _digamma_difference(x: Tensor, b: float) -> Tensor:
    """Return digamma(x) - digamma(x + b), also where both are much larger than the difference."""

    def remainder(y: Tensor) -> Tensor:
        v = y.square().reciprocal()
        return _horner(v, _DIGAMMA) * v

    y, below = _shifted(x)
    main = -(b / y).log1p() - 0.5 * b / (y * (y + b))
    return main - (b / (below * (below + b))).sum(-1) - remainder(y) + remainder(y + b)


def _log_normalizer(kappa: Tensor, b: float) -> Tensor:
    # The same function at both ends: the uniform law has exactly zero.
    return _lgamma_difference(b + kappa, b) - _lgamma_difference(kappa.new_full((), b), b)


def log_normalizer(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return :math:`h(\kappa) = \log E\, ((1 + \mu \cdot x) / 2)^\kappa` for uniform x.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> log_normalizer(torch.tensor([0.0, 2.0]), 5)
        tensor([ 0.0000, -1.2040])
    """
    h = _log_normalizer(concentration.double(), 0.5 * (ambient_dim - 1))
    return h.to(concentration.dtype)


def mean_resultant(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the mean resultant length :math:`E\, \mu \cdot x = \kappa / (d - 1 + \kappa)`.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> mean_resultant(torch.tensor([0.0, 2.0]), 5)
        tensor([0.0000, 0.3333])
    """
    return concentration / (concentration + (ambient_dim - 1))


def kl_to_uniform(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the divergence of a power spherical law from the uniform law of the sphere, in nats.

    With :math:`b = (d - 1) / 2` and digamma :math:`\psi` it is :math:`\kappa (\psi(b + \kappa) -
    \psi(2 b + \kappa)) - h(\kappa)`. Small concentrations use its power series, so that the
    error is small relative to the value, which is of order :math:`\kappa^2`.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> kl_to_uniform(torch.tensor([0.0, 1e-3, 50.0]), 2)
        tensor([0.0000e+00, 1.6401e-06, 2.0334e+00])
    """
    kappa, b = concentration.double(), 0.5 * (ambient_dim - 1)
    direct = kappa * _digamma_difference(b + kappa, b) - _log_normalizer(kappa, b)
    switch = b / 32  # the series has radius b: its remainder is 32^-11 of the value
    ratio = kappa.clamp(max=switch) / b
    n = torch.arange(2, 13, dtype=kappa.dtype, device=kappa.device)
    zeta = torch.special.zeta(n, b) - torch.special.zeta(n, 2 * b)
    coefficients = (-b) ** n * (n - 1) / n * zeta
    series = (ratio.unsqueeze(-1) ** n * coefficients).sum(-1)
    return torch.where(kappa < switch, series, direct).to(concentration.dtype)
