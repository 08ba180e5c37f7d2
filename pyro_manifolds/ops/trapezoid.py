"""Trapezoidal sums for peaks with long tails."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["spread_nodes"]


def spread_nodes(left: Tensor, right: Tensor, width: Tensor, size: int) -> tuple[Tensor, Tensor]:
    r"""Return nodes from ``-left`` to ``right`` and their weights, for a peak around zero.

    They are equidistant in s, where the argument is :math:`w (3 s + 4 s^3)`: dense within a few
    times the width w, and far apart in the tails, which may be a hundred times longer. For
    analytic functions that vanish at both ends the error falls exponentially with the number
    of nodes, as in the plain trapezoidal rule.

    References:
        | The Exponentially Convergent Trapezoidal Rule (Trefethen and Weideman, 2014)

    Args:
        left: Lengths of the left tails, at least zero.
        right: Lengths of the right tails, of the same shape.
        width: Widths of the peaks, of the same shape.
        size: Number of nodes.

    Returns:
        Nodes and weights of shape ``[size, ...]``. Both end nodes count in full.

    Example:
        >>> reach, width = torch.tensor(9.0), torch.tensor(1.0)
        >>> x, weight = spread_nodes(reach, reach, width, 40)
        >>> ((-0.5 * x**2).exp() * weight).sum() / math.sqrt(2 * math.pi)
        tensor(1.)
    """
    first, last = -_root(left / width), _root(right / width)
    step = (last - first) / (size - 1)
    count = torch.arange(size, dtype=left.dtype, device=left.device)
    s = torch.addcmul(first, step, count.reshape((size,) + (1,) * left.dim()))
    square = s * s
    return width * (s * (4 * square + 3)), step * width * (12 * square + 3)


def _root(x: Tensor) -> Tensor:
    """Return the s with 3 s + 4 s^3 = x, for x >= 0: the sinh of a third of its asinh."""
    z = (x + (x * x + 1).sqrt()).pow(1 / 3)
    return 0.5 * (z - 1 / z)
