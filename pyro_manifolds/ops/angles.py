"""Angles: wrapping to a fundamental interval and counting turns."""

import math

import torch
from torch import Tensor

__all__ = ["parity", "turns", "wrap"]


def turns(x: Tensor, period: float = 2 * math.pi) -> Tensor:
    """Count the whole periods between ``x`` and ``[-period/2, period/2)``; a constant for autograd."""
    return torch.floor(x.detach() / period + 0.5)


def wrap(x: Tensor, period: float = 2 * math.pi) -> Tensor:
    """Reduce ``x`` modulo ``period`` to ``[-period/2, period/2)``, with derivative one.

    Example:
        >>> wrap(torch.tensor([0.5, 4.0, -4.0]))
        tensor([ 0.5000, -2.2832,  2.2832])
    """
    wrapped = x - period * turns(x, period)
    # Rounding can return the excluded end exactly; it is the same point as the included one.
    return torch.where(wrapped >= period / 2, wrapped - period, wrapped)


def parity(turns: Tensor) -> Tensor:
    """Return ``(-1) ** turns`` for whole numbers stored as floats."""
    return 1 - 2 * torch.remainder(turns, 2)
