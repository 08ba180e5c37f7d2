"""Moments of a normal variable on the half line: a parabolic cylinder function."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.ops.trapezoid import spread_nodes

__all__ = ["log_half_line_moment"]

# Enough for an error of 1e-13 in float64, and of 1e-8 else, at every order from 2.
_NODES, _NODES_FLOAT64 = 56, 100
_DEPTH = 40.0  # the integrand is cut off where it has fallen by exp(-40)


def log_half_line_moment(order: float, c: Tensor) -> Tensor:
    r"""Return :math:`\log I_p(c) - \max(c, 0)^2 / 2`, for an order p of at least 2.

    .. math::
        I_p(c) = \int_0^\infty x^{p-1} e^{-x^2/2 + c x} dx = \Gamma(p) e^{c^2/4} D_{-p}(-c)

    It is the trapezoidal rule in log x around the mode :math:`x_*`, where the integrand is the
    exponential of :math:`p (\delta - (e^\delta - 1)) - x_*^2 (e^\delta - 1)^2 / 2` at
    :math:`x = x_* e^\delta`: no two large terms cancel for either sign of c. All derivatives with
    respect to c are those of the sum, the first being :math:`I_{p+1} / I_p - \max(c, 0)`.

    Args:
        order: The order p.
        c: Any real numbers.

    Example:
        >>> from pyro_manifolds.ops.parabolic_cylinder import log_half_line_moment
        >>> log_half_line_moment(2, torch.tensor([-1e3, 0.0, 1e3])).exp()
        tensor([1.0000e-06, 1.0000e+00, 2.5066e+03])
    """
    held = c.detach()
    positive = held.clamp(min=0.0)
    root = (held * held + 4 * order).sqrt()
    larger = 0.5 * (held.abs() + root)
    # The mode is the positive root of x^2 = c x + p, and p / x the modulus of the other one.
    mode = torch.where(held > 0, larger, order / larger)
    gap = torch.where(held > 0, order / larger, mode)  # of the mode to max(c, 0)
    delta, weight = _nodes(order, mode)
    rise = torch.expm1(delta)
    exponent = order * (delta - rise) - 0.5 * (mode * rise).square()
    # Adds zero, and the derivatives: the nodes do not know c.
    step = c - held
    exponent = exponent + step * (mode * rise + gap) - 0.5 * step * step * (held > 0)
    peak = order * (mode.log() - 1) + 0.5 * gap * (mode + positive)
    return peak + (exponent.exp() * weight).sum(0).log()


def _nodes(order: float, mode: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nodes of delta, in front, and their weights."""
    width = (order + mode * mode).rsqrt()
    # On the left each of the two terms alone is deep enough somewhere; on the right both count.
    ratio = math.sqrt(2 * _DEPTH) / mode
    by_square = torch.where(ratio < 0.99, -torch.log1p(-ratio.clamp(max=0.99)), math.inf)
    by_power = _DEPTH / order + math.sqrt(2 * _DEPTH / order)
    left = by_square.clamp(max=by_power)
    size = _NODES_FLOAT64 if mode.dtype == torch.float64 else _NODES
    return spread_nodes(left, math.sqrt(2 * _DEPTH) * width, width, size)
