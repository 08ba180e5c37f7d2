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

# Stirling's series of lgamma, B_2k / (2k (2k - 1)) y^(1 - 2k), and that of the logarithm of
# gamma(y + 1/2) / gamma(y) in w = y - 1/4, -E_2k / (k 4^(2k + 1)) w^-2k after log(w) / 2. Torch's
# own trigamma would limit gradients to 1e-9.
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
_EULER = [-1, 5, -61, 1385, -50521, 2702765, -199360981, 19391512145]
_HALF = [-e / (k * 4 ** (2 * k + 1)) for k, e in enumerate(_EULER, 1)]
# Up to here the product of d / 2 factors cannot overflow, and from here on Stirling's series needs
# no recurrence.
_LARGEST_PRODUCT = 16


def _terms(coefficients: list[float], x: float, precision: float) -> int:
    """Return how many terms of the series in x^-2 are needed."""
    sizes = [abs(c) * x ** (-2 * k) for k, c in enumerate(coefficients)]
    return 1 + sum(size > precision for size in sizes[1:])


def _series(x: Tensor, *coefficients: list[float]) -> Tensor:
    """Return sums of ``c[k] * x ** (k + 1)``, one for each list, stacked in front."""
    powers = x.flatten().expand(len(coefficients[0]), -1).cumprod(0)
    return (x.new_tensor(coefficients) @ powers).view((-1,) + x.shape)


def _factors(ambient_dim: int, far: float) -> tuple[list[float], list[float], float | None]:
    """Return shifts of kappa that write the ratio of gamma functions as a product.

    It is the product of the second over that of the first. For even dimensions 2 b is half a step
    off, and gamma(y + 1/2) / gamma(y) remains, at y beyond ``far``, whose shift is the third.
    """
    b, n = 0.5 * (ambient_dim - 1), (ambient_dim - 1) // 2
    if ambient_dim % 2:
        return [], [b + j for j in range(n)], None
    steps = max(0, math.ceil(far - b))
    above = [b + 0.5 + j for j in range(n, steps)]
    below = [b + j for j in range(steps)] + [b + 0.5 + j for j in range(steps, n)]
    return above, below, b + steps


def _shifted(kappa: Tensor, shifts: list[float]) -> Tensor:
    return kappa + kappa.new_tensor(shifts).reshape((-1,) + (1,) * kappa.dim())


def _product(kappa: Tensor, ambient_dim: int, single: bool) -> tuple[Tensor, Tensor]:
    far, precision = (7, 1e-12) if single else (10, 1e-17)
    above, below, shift = _factors(ambient_dim, far)
    factors = _shifted(kappa, below)
    product, slope = factors.prod(0), factors.reciprocal().sum(0)
    if above:
        factors = _shifted(kappa, above)
        product, slope = product / factors.prod(0), slope - factors.reciprocal().sum(0)
    if shift is None:
        return product.log(), slope
    terms = _terms(_HALF, shift - 0.25, precision)
    slopes = [2 * k * c for k, c in enumerate(_HALF[:terms], 1)]
    w = kappa + (shift - 0.25)
    inverse = w.reciprocal()
    series = _series(inverse * inverse, _HALF[:terms], slopes)
    return (product * w.sqrt()).log() + series[0], slope + (0.5 - series[1]) * inverse


def _stirling(kappa: Tensor, b: float, single: bool) -> tuple[Tensor, Tensor]:
    # Written so that it is precise also where both gamma functions are much larger than their
    # ratio.
    near = kappa + b
    far = near + b
    inverse = torch.stack([near, far]).reciprocal()
    terms = _terms(_STIRLING, b, 1e-12 if single else 1e-17)
    slopes = [(2 * k - 1) * c for k, c in enumerate(_STIRLING[:terms], 1)]
    lgamma, digamma = _series(inverse * inverse, _STIRLING[:terms], slopes)
    lgamma = lgamma / inverse
    rise = (b * inverse[0]).log1p()
    value = torch.add((near - 0.5) * rise, far.log(), alpha=b) + (lgamma[1] - lgamma[0]) - b
    slope = digamma[0] - digamma[1] + rise + (0.5 * b) * inverse[0] * inverse[1]
    return value, slope


def _gamma_ratio(kappa: Tensor, ambient_dim: int, single: bool) -> tuple[Tensor, Tensor]:
    """Return log(gamma(2 b + kappa) / gamma(b + kappa)) and its derivative, in float64."""
    if ambient_dim <= _LARGEST_PRODUCT:
        return _product(kappa, ambient_dim, single)
    return _stirling(kappa, 0.5 * (ambient_dim - 1), single)


def _trigamma_difference(kappa: Tensor, ambient_dim: int) -> Tensor:
    """Return trigamma(b + kappa) - trigamma(2 b + kappa), the second derivative of h."""
    if ambient_dim > _LARGEST_PRODUCT:
        b = 0.5 * (ambient_dim - 1)
        slopes = [2 * k * (2 * k - 1) * c for k, c in enumerate(_STIRLING, 1)]
        near, far = 1 / (kappa + b), 1 / (kappa + 2 * b)
        rests = [x * _series(x * x, slopes)[0] for x in (near, far)]
        return b * near * far * (1 + 0.5 * (near + far)) + (rests[0] - rests[1])
    above, below, shift = _factors(ambient_dim, 10)
    bend = _shifted(kappa, below).reciprocal().square().sum(0)
    if above:
        bend = bend - _shifted(kappa, above).reciprocal().square().sum(0)
    if shift is None:
        return bend
    inverse = 1 / (kappa + (shift - 0.25))
    slopes = [2 * k * (2 * k + 1) * c for k, c in enumerate(_HALF, 1)]
    series = _series(inverse * inverse, slopes)[0]
    return bend + inverse * inverse * (0.5 - series)


class _Normalizer(torch.autograd.Function):
    """Value and slope at once, in the dtype of the concentration; differentiable at any order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(kappa: Tensor, ambient_dim: int, offset: float) -> tuple[Tensor, Tensor]:
        value, slope = _gamma_ratio(kappa.double(), ambient_dim, kappa.dtype == torch.float32)
        return (offset - value).to(kappa.dtype), -slope.to(kappa.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.ambient_dim = inputs[1]
        ctx.save_for_backward(inputs[0], output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_slope: Tensor | None) -> Any:
        kappa, slope = ctx.saved_tensors
        total = None if grad is None else grad * slope
        if grad_slope is not None:
            bend = _trigamma_difference(kappa.double(), ctx.ambient_dim).to(kappa.dtype)
            bend = grad_slope * bend
            total = bend if total is None else total + bend
        return total, None, None


def _normalizer(kappa: Tensor, ambient_dim: int, factor: float) -> tuple[Tensor, Tensor]:
    # Constants of the gamma functions join the factor, in the precision of Python.
    offset = math.lgamma(ambient_dim - 1) - math.lgamma(0.5 * (ambient_dim - 1)) + factor
    return apply(_Normalizer, kappa, ambient_dim, offset)


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
