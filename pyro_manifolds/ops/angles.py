"""Angles: wrapping to a fundamental interval and counting turns."""

import math

import torch
from torch import Tensor

__all__ = ["angle_of", "parity", "turns", "wrap"]


def angle_of(y: Tensor, x: Tensor) -> Tensor:
    """Angle of the vector ``(x, y)`` like ``torch.atan2``, with finite derivatives everywhere.

    The angle of a vector whose entries are both zero, or denormal, is zero, with derivative zero.

    Example:
        >>> angle_of(torch.tensor([1e-30, 0.0]), torch.tensor([-1e-30, 0.0]))
        tensor([2.3562, 0.0000])
    """
    # The larger entry is divided out first: squares of tiny or huge entries leave float32.
    size = torch.maximum(y.detach().abs(), x.detach().abs())
    size = size.clamp(max=torch.finfo(size.dtype).max)
    vanishes = size < torch.finfo(size.dtype).tiny
    size = torch.where(vanishes, 1, size)
    return torch.atan2(torch.where(vanishes, 0, y / size), torch.where(vanishes, 1, x / size))


def turns(x: Tensor, period: float = 2 * math.pi) -> Tensor:
    """Count the periods between ``x`` and ``[-period/2, period/2)``; a constant for autograd."""
    return torch.floor(x.detach() / period + 0.5)


def wrap(x: Tensor, period: float = 2 * math.pi) -> Tensor:
    """Reduce ``x`` modulo ``period`` to ``[-period/2, period/2)``, with derivative one.

    Example:
        >>> wrap(torch.tensor([0.5, 4.0, -4.0]))
        tensor([ 0.5000, -2.2832,  2.2832])
    """
    wrapped = torch.sub(x, turns(x, period), alpha=period)
    # Rounding can pass either end by its last digit. The constant that moves such a point to the
    # end is exact, and a clamp is many times faster than comparisons.
    fixed = wrapped.detach()
    inside = fixed.clamp(-period / 2, period / 2 * (1 - torch.finfo(x.dtype).eps))
    return wrapped + (inside - fixed)


def parity(turns: Tensor) -> Tensor:
    """Return ``(-1) ** turns`` for whole numbers stored as floats."""
    return 1 - 2 * torch.remainder(turns, 2)
