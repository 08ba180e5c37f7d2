r"""Power spherical law: normaliser, mean resultant length and divergence from the uniform law.

On the unit sphere of :math:`\mathbb{R}^d` the density relative to the uniform law is
:math:`e^{-h(\kappa)} ((1 + \mu \cdot x) / 2)^\kappa`. Everything is evaluated in float64 and
returned in the dtype that came in: in float32 the gamma functions below cancel by nats.

References:
    | The Power Spherical distribution (De Cao and Aziz, 2020)
    | https://arxiv.org/abs/2006.04437
"""

import math
from typing import Any

import torch
from torch import Tensor

from pyro_manifolds.ops.function import apply

__all__ = ["kl_to_uniform", "log_normalizer", "mean_resultant"]

# Stirling's series of lgamma, B_2k / (2k (2k - 1)) y^(1 - 2k), and those of its two derivatives.
# They are read at arguments beyond 7, or 8 in float64, and cut off at 1e-12 or 1e-17. The
# recurrence leads back; torch's own trigamma would limit gradients to 1e-9.
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
_TRIGAMMA = [(2 * k + 2) * c for k, c in enumerate(_DIGAMMA)]


def _plan(b: float, single: bool) -> tuple[int, int]:
    """Return how many steps up the recurrence, and how many terms of the series, are needed."""
    far, precision = (7, 1e-12) if single else (8, 1e-17)
    steps = max(0, math.ceil(far - b))
    sizes = [abs(c) * (b + steps) ** (-2 * k - 1) for k, c in enumerate(_STIRLING)]
    return steps, 1 + sum(size > precision for size in sizes[1:])


def _horner(v: Tensor, coefficients: list[float]) -> Tensor:
    total: Tensor | float = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = total * v + c
    return total * v


def _steps(kappa: Tensor, b: float, steps: int) -> Tensor:
    """Return the arguments b + kappa + k that the recurrence visits, stacked in front."""
    shifts = b + torch.arange(steps, dtype=kappa.dtype, device=kappa.device)
    return kappa + shifts.reshape((steps,) + (1,) * kappa.dim())


def _gamma_ratio(kappa: Tensor, b: float, single: bool) -> tuple[Tensor, Tensor]:
    """Return the normaliser, but for a constant, and its derivative.

    These are differences of lgamma and digamma at b + kappa and 2 b + kappa, precise also where
    both are much larger than the difference.
    """
    steps, terms = _plan(b, single)
    near = kappa + (b + steps)
    far = near + b
    inverse = torch.stack([near, far]).reciprocal()
    square = inverse * inverse
    lgamma = _horner(square, _STIRLING[:terms]) / inverse
    digamma = _horner(square, _DIGAMMA[:terms])
    rise = (b * inverse[0]).log1p()
    value = torch.add((0.5 - near) * rise, far.log(), alpha=-b) + (lgamma[0] - lgamma[1])
    slope = digamma[1] - digamma[0] - rise - (0.5 * b) * inverse[0] * inverse[1]
    if steps:
        visited = _steps(kappa, b, steps)
        ratio = b / visited
        above = ratio + 1
        value = value + above.prod(0).log()
        slope = slope - (ratio / (visited * above)).sum(0)
    return value, slope


def _trigamma_difference(kappa: Tensor, b: float) -> Tensor:
    """Return trigamma(b + kappa) - trigamma(2 b + kappa), the second derivative."""
    steps, terms = _plan(b, single=False)
    near, far = 1 / (kappa + (b + steps)), 1 / (kappa + (2 * b + steps))
    series = [x * _horner(x * x, _TRIGAMMA[:terms]) for x in (near, far)]
    bend = b * near * far * (1 + 0.5 * (near + far)) + (series[0] - series[1])
    if steps:
        visited = _steps(kappa, b, steps)
        near, far = 1 / visited, 1 / (visited + b)
        bend = bend + b * (near * far * (near + far)).sum(0)
    return bend


class _Normalizer(torch.autograd.Function):
    """Value and slope at once, in the dtype of the concentration; differentiable at any order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(kappa: Tensor, b: float, offset: float) -> tuple[Tensor, Tensor]:
        value, slope = _gamma_ratio(kappa.double(), b, kappa.dtype == torch.float32)
        return (value + offset).to(kappa.dtype), slope.to(kappa.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.b = inputs[1]
        ctx.save_for_backward(inputs[0], output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_slope: Tensor | None) -> Any:
        kappa, slope = ctx.saved_tensors
        total = None if grad is None else grad * slope
        if grad_slope is not None:
            bend = grad_slope * _trigamma_difference(kappa.double(), ctx.b).to(kappa.dtype)
            total = bend if total is None else total + bend
        return total, None, None


def _normalizer(kappa: Tensor, ambient_dim: int, factor: float) -> tuple[Tensor, Tensor]:
    b = 0.5 * (ambient_dim - 1)
    # Constants of the gamma functions join the factor, in the precision of Python.
    offset = b + math.lgamma(2 * b) - math.lgamma(b) + factor
    return apply(_Normalizer, kappa, b, offset)


def log_normalizer(concentration: Tensor, ambient_dim: int, log_factor: float = 0.0) -> Tensor:
    r"""Return :math:`h(\kappa) = \log E\, ((1 + \mu \cdot x) / 2)^\kappa` for uniform x.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.
        log_factor: Number that is added before the result is rounded; with the logarithm of the
            area of the sphere, an integral takes the place of the mean.

    Example:
        >>> log_normalizer(torch.tensor([0.5, 2.0]), 5)
        tensor([-0.3773, -1.2040])
    """
    if ambient_dim == 3:
        return log_factor - concentration.log1p()
    return _normalizer(concentration, ambient_dim, log_factor)[0]


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
    h, slope = _normalizer(kappa, ambient_dim, 0.0)
    direct = kappa * slope - h
    switch = b / 32  # the series has radius b: its remainder is 32^-11 of the value
    ratio = kappa.clamp(max=switch) / b
    n = torch.arange(2, 13, dtype=kappa.dtype, device=kappa.device)
    zeta = torch.special.zeta(n, b) - torch.special.zeta(n, 2 * b)
    coefficients = (-b) ** n * (n - 1) / n * zeta
    series = (ratio.unsqueeze(-1) ** n * coefficients).sum(-1)
    return torch.where(kappa < switch, series, direct).to(concentration.dtype)
