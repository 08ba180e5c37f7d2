r"""Monotone rational-quadratic splines of an interval, in both directions.

Between two knots the spline is the quotient of quadratic polynomials with the given ends and
slopes, which increases, and is inverted by solving a quadratic equation (Durkan et al., Neural
Spline Flows, 2019, arXiv 1906.04032). Equal slopes at both ends make it a smooth map of a circle.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Spline", "rational_quadratic", "rational_quadratic_inverse", "spline_of"]

# Largest ratio of widths, of heights, and of a slope to one. A factor of 100 fitted photographs no
# better, and made the gradients of draws so heavy-tailed that a guide diverged.
_STEEPEST = math.log(10)


class Spline(NamedTuple):
    """Bins of a spline of ``[-bound, bound]`` onto itself, each of shape ``[..., bins]``."""

    bound: float
    left: Tensor
    width: Tensor
    bottom: Tensor
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor


def spline_of(widths: Tensor, heights: Tensor, slopes: Tensor, bound: float) -> Spline:
    """Make a spline of unconstrained numbers; all zero make the identity.

    Args:
        widths: Logarithms of the relative widths of the bins, ``[..., bins]``.
        heights: Logarithms of the relative heights, ``[..., bins]``.
        slopes: Logarithms of the slopes at the knots, ``[..., bins + 1]``; or ``[..., bins]``,
            the first of which then also is the last.
        bound: End of the interval.

    Example:
        >>> spline = spline_of(torch.zeros(4), torch.zeros(4), torch.zeros(4), math.pi)
        >>> rational_quadratic(torch.tensor([0.5, -3.0]), spline)[0]
        tensor([ 0.5000, -3.0000])
    """
    width = 2 * bound * _limit(widths, _STEEPEST / 2).softmax(-1)
    height = 2 * bound * _limit(heights, _STEEPEST / 2).softmax(-1)
    slope = _limit(slopes, _STEEPEST).exp()
    if slopes.shape[-1] == widths.shape[-1]:
        slope = torch.cat([slope, slope[..., :1]], -1)
    left, bottom = (size.cumsum(-1) - size - bound for size in (width, height))
    return Spline(bound, left, width, bottom, height, slope[..., :-1], slope[..., 1:])


def rational_quadratic(x: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """Return the value of the spline, and the logarithm of its slope; straight beyond the ends.

    Args:
        x: Where to evaluate; broadcasts with the batch of the spline.
        spline: The spline.

    Example:
        >>> spline = spline_of(torch.zeros(2), torch.zeros(2), torch.tensor([0.0, 1.0, 0.0]), 1.0)
        >>> rational_quadratic(torch.tensor([-1.0, 0.0, 2.0]), spline)[0]
        tensor([-1.,  0.,  2.])
    """
    inside = x.clamp(-spline.bound, spline.bound)
    left, width, bottom, height, first, last = _bin(inside, spline.left, spline)
    part = ((inside - left) / width).clamp(0, 1)
    secant = height / width
    cross = part * (1 - part)
    # Sums of positive terms, not the usual differences: nothing cancels.
    denominator = secant * (1 - 2 * cross) + (first + last) * cross
    value = bottom + height * part * (secant * part + first * (1 - part)) / denominator
    log_slope = _log_slope(part, secant, first, last, denominator)
    return value + log_slope.exp() * (x - inside), log_slope


def rational_quadratic_inverse(y: Tensor, spline: Spline) -> Tensor:
    r"""Return where the spline takes the value ``y``.

    With :math:`\eta` the part of the height of the bin, secant :math:`s`, slopes :math:`d_0, d_1`
    and :math:`p = d_0 - \eta (d_0 + d_1)`, the discriminant is the sum of squares
    :math:`p^2 + 4 s^2 \eta (1 - \eta)`: rounding never makes it negative.

    Args:
        y: Value of the spline; broadcasts with its batch.
        spline: The spline.

    Example:
        >>> spline = spline_of(torch.tensor([1.0, 0.0]), torch.zeros(2), torch.zeros(3), 1.0)
        >>> rational_quadratic_inverse(rational_quadratic(torch.tensor(0.7), spline)[0], spline)
        tensor(0.7000)
    """
    inside = y.clamp(-spline.bound, spline.bound)
    left, width, bottom, height, first, last = _bin(inside, spline.bottom, spline)
    share = ((inside - bottom) / height).clamp(0, 1)
    secant = height / width
    cross = 4 * secant.square() * share * (1 - share)
    p = first - share * (first + last)
    root = (p.square() + cross).sqrt()
    # p + root, without the difference of nearly equal numbers where p is negative.
    rest = torch.where(p >= 0, root + p, cross / (root - p.clamp(max=0)))
    part = 2 * secant * share / (2 * secant * share + rest)
    cross = part * (1 - part)
    denominator = secant * (1 - 2 * cross) + (first + last) * cross
    log_slope = _log_slope(part, secant, first, last, denominator)
    return left + width * part + (y - inside) / log_slope.exp()


def _limit(x: Tensor, bound: float) -> Tensor:
    """Bring ``x`` between the bounds smoothly, with slope one at zero."""
    return bound * (x / bound).tanh()


def _bin(x: Tensor, starts: Tensor, spline: Spline) -> tuple[Tensor, ...]:
    """Return, for each of ``x``, the fields of the bin that it falls in."""
    index = (x.unsqueeze(-1) >= starts[..., 1:]).sum(-1)
    table = torch.stack(spline[1:], -1)
    table = table.expand(index.shape + table.shape[-2:])
    chosen = table.gather(-2, index[..., None, None].expand(*index.shape, 1, table.shape[-1]))
    return chosen.squeeze(-2).unbind(-1)


def _log_slope(
    part: Tensor, secant: Tensor, first: Tensor, last: Tensor, denominator: Tensor
) -> Tensor:
    rest = 1 - part
    numerator = last * part.square() + 2 * secant * part * rest + first * rest.square()
    return 2 * (secant / denominator).log() + numerator.log()
