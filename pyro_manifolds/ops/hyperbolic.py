r"""Hyperbolic space of curvature -1, by half-vectors: smooth, and exact near and far.

A point at the distance :math:`r` from the origin is held as its half-vector, of length
:math:`\tanh(r/2)` (the point of the Poincaré ball), and as the complement
:math:`\alpha = 1 / \cosh^2(r/2)`, one minus the square of that length, which half-vectors alone
lose at large distances. With the difference :math:`\delta` of half-vectors, distances are

.. math:: \sinh^2(d / 2) = |\delta|^2 / (\alpha \beta)

Nothing below cancels: errors are those of the coordinates, whose rounding turns a point at the
distance :math:`r` round the origin by an angle :math:`\epsilon`, a length of
:math:`\epsilon e^r / 2`.

References:
    | Analytic Hyperbolic Geometry and Albert Einstein's Special Theory of Relativity (Ungar, 2008)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "gyrate",
    "half_difference",
    "half_distance",
    "half_exp",
    "half_log",
    "half_translate",
    "largest_radius",
    "log_sinhc",
    "minkowski_time",
]

# Below this square the series are used: the first term left out is under 1e-16.
_SMALL = 1e-3
_TANHC = (1.0, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925)
_ASINH = (1.0, -2 / 3, 8 / 15, -16 / 35, 128 / 315, -256 / 693)
_LOG_SINHC = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250, 2 / 127702575)


def largest_radius(dtype: torch.dtype) -> float:
    """Return a distance whose exponential can still be squared: 42 in float32.

    Example:
        >>> largest_radius(torch.float64)
        352.891...
    """
    return 0.5 * math.log(torch.finfo(dtype).max) - 2


def _polynomial(s: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    total = torch.full_like(s, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * s + c
    return total


def log_sinhc(square: Tensor) -> Tensor:
    r"""Return :math:`\log(\sinh r / r)` as a smooth function of :math:`r^2 \ge 0`.

    Example:
        >>> log_sinhc(torch.tensor([0.0, 1.0, 1e4]))
        tensor([ 0.0000,  0.1614, 94.7017])
    """
    small = square < 0.1  # more terms than elsewhere: the derivative has no cancellation either
    s = torch.where(small, square, 0)
    series = s * _polynomial(s, _LOG_SINHC)
    r = torch.where(small, 1, square).sqrt()
    return torch.where(small, series, r + torch.log(-torch.expm1(-2 * r) / (2 * r)))


def half_exp(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return half-vector and complement of the point that ``v`` leads to from the origin.

    Vectors longer than :func:`largest_radius` are cut to that length.
    """
    longest = largest_radius(v.dtype) ** 2
    square = v.square().sum(-1, keepdim=True)
    v = v * (longest / square.clamp(min=longest)).sqrt()
    square = square.clamp(max=longest) / 4
    small = square < _SMALL
    r = torch.where(small, 1, square).sqrt()
    s = torch.where(small, square, 0)
    series = _polynomial(s, _TANHC)
    tanhc = torch.where(small, series, r.tanh() / r)
    # 1 - tanh^2 cancels at large radii, the hyperbolic cosine has no square root at small ones.
    complement = torch.where(small, 1 - s * series.square(), r.cosh().square().reciprocal())
    return tanhc * v / 2, complement


def minkowski_time(a: Tensor) -> Tensor:
    """Return the first coordinate of points of the hyperboloid, whose others are ``a``."""
    return (1 + a.square().sum(-1, keepdim=True)).sqrt()


def half_difference(a: Tensor, b: Tensor) -> Tensor:
    """Return the half-vector of ``b`` minus that of ``a``, exact where either is small.

    Args:
        a: Coordinates of a point of the hyperboloid without the first one.
        b: Those of another.
    """
    p, q, step = minkowski_time(a), minkowski_time(b), b - a
    near = step - a * (step * ((a + b) / (p + q))).sum(-1, keepdim=True) / (1 + p)
    far = _difference_far_away(a, b, step, p, q)
    return torch.where(a.square().sum(-1, keepdim=True) < 1, near, far) / (1 + q)


def _difference_far_away(a: Tensor, b: Tensor, step: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Return the difference times ``1 + q``, where ``a`` is at least of length one."""
    length = a.square().sum(-1, keepdim=True).clamp(min=1).sqrt()
    axis = a / length

    def along(w: Tensor) -> Tensor:
        return (axis * w).sum(-1, keepdim=True)

    # The part of b across a is that of the step, which has fewer roundings where it is shorter.
    shorter = step.square().sum(-1, keepdim=True) < b.square().sum(-1, keepdim=True)
    across = torch.where(shorter, step, b)
    across = across - along(across) * axis
    across = across - along(across) * axis  # what rounding has left
    height, drop = along(b), along(step)
    # height * p - length * q, with the difference of squares on top, where both have one sign.
    total = height.abs() * p + length * q
    square = across.square().sum(-1, keepdim=True)
    same = drop * ((height + length) / total) - square * (length / total) * length
    rise = torch.where(height > 0, drop + same, height * (1 + p) - length * (1 + q))
    return across + axis * (rise / (1 + p))


def half_distance(alpha: Tensor, beta: Tensor, delta: Tensor, *, keepdim: bool = False) -> Tensor:
    """Return the distance of points with the given complements and difference of half-vectors."""
    length = torch.linalg.vector_norm(delta, dim=-1, keepdim=True) / (alpha * beta).sqrt()
    distance = 2 * length.asinh()
    return distance if keepdim else distance.squeeze(-1)


def half_translate(x: Tensor, alpha: Tensor, beta: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    r"""Move a point by the translation that takes the origin to ``x``.

    Args:
        x: Half-vector.
        alpha: Its complement.
        beta: Complement of the point that is moved.
        total: Sum of ``x`` and the half-vector of that point, from which it may come with fewer
            roundings than it would have from the two.

    Returns:
        Half of the spatial coordinates :math:`\sinh(r) n` of the result, and
        :math:`\sinh^2(r / 2)`; their quotient by one plus the latter is its half-vector.
    """
    square = total.square().sum(-1, keepdim=True) / (alpha * beta)
    return total / beta + square * x, square


def half_log(half: Tensor, square: Tensor) -> Tensor:
    """Return the vector that leads from the origin to a result of :func:`half_translate`."""
    small = square < _SMALL
    s = torch.where(small, square, 0)
    series = _polynomial(s, _ASINH)
    t2 = torch.where(small, 1, square)
    t = t2.sqrt()
    return 2 * half * torch.where(small, series, t.asinh() / (t * (1 + t2).sqrt()))


def gyrate(x: Tensor, alpha: Tensor, beta: Tensor, delta: Tensor, v: Tensor) -> Tensor:
    """Turn ``v`` as parallel transport along the geodesic from ``x`` to ``x + delta`` does.

    Both ends have the frame that is parallel along their own geodesic from the origin; around
    a triangle a vector turns by its area.

    Args:
        x: Half-vector of the first point.
        alpha: Its complement.
        beta: Complement of the second point.
        delta: Difference of the half-vectors.
        v: Vector in the frame of the first point.
    """

    def wedge(w: Tensor) -> Tensor:
        return x * (delta * w).sum(-1, keepdim=True) - delta * (x * w).sum(-1, keepdim=True)

    gap = delta.square().sum(-1, keepdim=True)
    once = wedge(v)
    return v + ((gap + alpha + beta) * once + 2 * wedge(once)) / (gap + alpha * beta)
