r"""Von Mises law on the circle: normaliser, mean resultant length, divergences, implicit gradient.

The density at an angle :math:`t`, with respect to arc length, is
:math:`e^{\kappa \cos t} / (2 \pi I_0(\kappa))`. Everything below is evaluated in float64 and
returned in the dtype that came in, for any concentration :math:`\kappa \ge 0`. The functions are
compositions of elementwise operations, so ``torch.compile``, ``vmap`` and derivatives of second
order work.

References:
    | NIST Handbook of Mathematical Functions (Olver, Lozier, Boisvert and Clark, 2010), 10.40
    | Implicit Reparameterization Gradients (Figurnov, Mohamed and Mnih, 2018)
    | https://arxiv.org/abs/1805.08498
"""

import math

import numpy as np
import torch
from torch import Tensor

from pyro_manifolds.ops.blocks import blockwise

__all__ = [
    "circular_variance",
    "implicit_gradient",
    "kl_to_uniform",
    "kl_von_mises_von_mises",
    "log_i0e",
    "mean_resultant",
]

# Where the asymptotic series takes over. With 14 terms it is exact to 2e-15 there (derivative:
# 3e-14), about where the rounding of I0 - I1, which grows with the concentration, meets it.
_LARGE = 32.0


def _gap_coefficients(order: int) -> list[float]:
    """Return q_1, ..., q_order of 1 - A ~ sum q_n / kappa^n, by A' = 1 - A / kappa - A^2."""
    q = [0.0, 0.5]
    for n in range(1, order):
        q.append((sum(q[i] * q[n + 1 - i] for i in range(1, n + 1)) + (n - 1) * q[n]) / 2)
    return q[1:]


_GAP = _gap_coefficients(14)
_LOG_TAIL = [q / n for n, q in enumerate(_GAP[1:], 1)]
_KL_TAIL = [q / n + q for n, q in enumerate(_GAP[1:], 1)]
_LOG_I0_SERIES = [1 / math.factorial(n) ** 2 for n in range(1, 11)]
_NODES, _WEIGHTS = (values.tolist() for values in np.polynomial.legendre.leggauss(32))


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """Return the sum of ``coefficients[n - 1] * x ** n`` over n >= 1."""
    total = coefficients[-1] * x
    for c in reversed(coefficients[:-1]):
        total = (total + c) * x
    return total


def _scaled_bessel(kappa: Tensor) -> tuple[Tensor, Tensor]:
    kappa = kappa.clamp(max=_LARGE)
    # torch differentiates i0e at 0 as the even function of the whole line, with derivative 0; the
    # offset, which no other concentration can feel, selects the derivative from the right.
    return torch.special.i0e(kappa + 1e-30), torch.special.i1e(kappa)


def _tail_variable(kappa: Tensor) -> Tensor:
    return 1 / kappa.clamp(min=_LARGE)


def _log_i0e(kappa: Tensor) -> Tensor:
    u = _tail_variable(kappa)
    tail = 0.5 * (u / (2 * math.pi)).log() + _polynomial(u, _LOG_TAIL)
    return torch.where(kappa > _LARGE, tail, _scaled_bessel(kappa)[0].log())


def _log_i0(kappa: Tensor) -> Tensor:
    """Return log I0, with a small relative error, for concentrations up to 1 only."""
    return _polynomial(0.25 * kappa.clamp(max=1.0).square(), _LOG_I0_SERIES).log1p()


def _gap(kappa: Tensor) -> Tensor:
    i0, i1 = _scaled_bessel(kappa)
    tail = _polynomial(_tail_variable(kappa), _GAP)
    return torch.where(kappa > _LARGE, tail, (i0 - i1) / i0)


def _mean_resultant(kappa: Tensor) -> Tensor:
    i0, i1 = _scaled_bessel(kappa)
    tail = 1 - _polynomial(_tail_variable(kappa), _GAP)
    return torch.where(kappa > _LARGE, tail, i1 / i0)


def log_i0e(concentration: Tensor) -> Tensor:
    r"""Return :math:`\log(e^{-\kappa} I_0(\kappa))`.

    The first derivative is :math:`A(\kappa) - 1` and the second :math:`A'(\kappa)`, both free of
    cancellation, with :math:`A` the :func:`mean_resultant`.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.

    Example:
        >>> log_i0e(torch.tensor([0.0, 1.0, 1e8]))
        tensor([  0.0000,  -0.7641, -10.1293])
    """
    return _log_i0e(concentration.double()).to(concentration.dtype)


def mean_resultant(concentration: Tensor) -> Tensor:
    r"""Return the mean resultant length :math:`A(\kappa) = I_1(\kappa) / I_0(\kappa) = E \cos t`.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.

    Example:
        >>> mean_resultant(torch.tensor([0.0, 1.0, 5.0]))
        tensor([0.0000, 0.4464, 0.8934])
    """
    return _mean_resultant(concentration.double()).to(concentration.dtype)


def circular_variance(concentration: Tensor) -> Tensor:
    r"""Return :math:`1 - A(\kappa)` without cancellation, where A is :func:`mean_resultant`.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.

    Example:
        >>> circular_variance(torch.tensor([0.0, 5.0, 1e8]))
        tensor([1.0000e+00, 1.0662e-01, 5.0000e-09])
    """
    return _gap(concentration.double()).to(concentration.dtype)


def kl_to_uniform(concentration: Tensor) -> Tensor:
    r"""Return the divergence of a von Mises law from the uniform law of the circle, in nats.

    It is :math:`\kappa A(\kappa) - \log I_0(\kappa)`, with derivative :math:`\kappa A'(\kappa)`;
    the relative error is at the resolution of the dtype down to :math:`\kappa^2 / 4`, the value
    for small concentrations. The differential entropy is :math:`\log 2 \pi` minus it.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.

    Example:
        >>> kl_to_uniform(torch.tensor([0.0, 1e-6, 5.0]))
        tensor([0.0000e+00, 2.5000e-13, 1.1622e+00])
    """
    kappa = concentration.double()
    i0, i1 = _scaled_bessel(kappa)
    u = _tail_variable(kappa)
    small = kappa * i1 / i0 - _log_i0(kappa)
    middle = -i0.log() - kappa.clamp(max=_LARGE) * (i0 - i1) / i0
    large = -0.5 * (u / (2 * math.pi)).log() - 0.5 - _polynomial(u, _KL_TAIL)
    kl = torch.where(kappa < 1, small, torch.where(kappa > _LARGE, large, middle))
    return kl.to(concentration.dtype)


def kl_von_mises_von_mises(
    loc_p: Tensor, concentration_p: Tensor, loc_q: Tensor, concentration_q: Tensor
) -> Tensor:
    r"""Return the divergence :math:`KL(p \| q)` of two von Mises laws, in nats.

    With locations :math:`\delta` apart, and without the difference of large terms that the
    textbook form takes, it is :math:`\log I_0(\kappa_q) - \log I_0(\kappa_p) -
    (\kappa_q - \kappa_p) A(\kappa_p) + 2 \kappa_q A(\kappa_p) \sin^2(\delta / 2)`.

    Args:
        loc_p: Angles in radians.
        concentration_p: Concentrations :math:`\kappa_p \ge 0`.
        loc_q: Angles in radians.
        concentration_q: Concentrations :math:`\kappa_q \ge 0`. All shapes broadcast.

    Example:
        >>> kl_von_mises_von_mises(*map(torch.tensor, [0.0, 3.0, 1.0, 7.0]))
        tensor(2.9087)
    """
    dtype = torch.promote_types(concentration_p.dtype, concentration_q.dtype)
    p, q = concentration_p.double(), concentration_q.double()
    half = 0.5 * (loc_p.double() - loc_q.double())
    resultant = _mean_resultant(p)
    # The first form keeps its relative precision near 0, the second at large concentrations.
    small = _log_i0(q) - _log_i0(p) - (q - p) * resultant
    large = _log_i0e(q) - _log_i0e(p) + (q - p) * _gap(p)
    spread = torch.where((p < 1) & (q < 1), small, large)
    return (spread + 2 * q * resultant * half.sin().square()).to(dtype)


def implicit_gradient(angle: Tensor, concentration: Tensor) -> Tensor:
    r"""Return :math:`d\theta / d\kappa` along which the law of location 0 is reparameterised.

    That is minus the derivative of the distribution function on :math:`[0, |\theta|]` with
    respect to :math:`\kappa`, divided by the density: an odd function of the angle. It is
    integrated by a Gauss-Legendre rule with 32 nodes over whichever of :math:`[0, |\theta|]` and
    :math:`[|\theta|, \pi]` has an integrand of one sign, so that nothing cancels; the relative
    error is below 1e-10.

    Args:
        angle: Angles in :math:`[-\pi, \pi]`.
        concentration: Concentrations :math:`\kappa \ge 0`. Both shapes broadcast.

    Example:
        >>> implicit_gradient(torch.tensor([1.0, -1.0]), torch.tensor(0.5))
        tensor([-0.7089,  0.7089])
    """
    dtype = torch.promote_types(angle.dtype, concentration.dtype)
    gradient = blockwise(_implicit_gradient, angle.double(), concentration.double())[0]
    return gradient.to(dtype)


def _implicit_gradient(angle: Tensor, kappa: Tensor) -> tuple[Tensor]:
    theta, gap = angle.abs(), _gap(kappa)
    # Beyond `reach` the density has fallen by e^-80: the root of |a| x + c x^2 / 2 = 80, from the
    # slope and the curvature of its logarithm at the angle.
    steep, curve = kappa * theta.sin(), (kappa * theta.cos()).clamp(min=0.0)
    reach = 160 / (steep.abs() + (steep.square() + 160 * curve).sqrt()).clamp(min=1e-6)
    height_0 = (0.5 * theta).sin().square()
    inner = 2 * height_0 <= gap
    start = torch.where(inner, 0.0, theta)
    stop = torch.where(inner, theta, torch.minimum(theta + reach, theta.new_tensor(math.pi)))
    middle, half_width = 0.25 * (stop + start), 0.25 * (stop - start)  # of the half angle
    total = torch.zeros_like(theta)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        height = torch.add(middle, half_width, alpha=node).sin().square()
        # kappa (cos t - cos theta): rounds like the logarithm of the density at the angle, which
        # is moderate for any draw.
        density = (2 * kappa * (height_0 - height)).exp()
        total = torch.addcmul(total, density, torch.sub(gap, height, alpha=2), value=weight)
    integral = 2 * half_width * total
    return (torch.where(inner, -integral, integral) * angle.sign(),)
