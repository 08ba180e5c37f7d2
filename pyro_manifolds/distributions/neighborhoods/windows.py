"""Windows on rings, and the checks of their sizes."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor

__all__ = ["TABLE_LIMIT", "circulant", "expect_size", "offsets"]

# Rows and columns of the largest table that is multiplied at once; of a longer ring the rolled
# copies are added up.
TABLE_LIMIT = 2048


def offsets(kernel_size: int) -> range:
    """Return the places of a window around 0; an even one reaches one further to the right.

    Example:
        >>> from pyro_manifolds.distributions.neighborhoods.windows import offsets
        >>> list(offsets(3)), list(offsets(4))
        ([-1, 0, 1], [-1, 0, 1, 2])
    """
    return range(-((kernel_size - 1) // 2), kernel_size // 2 + 1)


def circulant(size: int, places: Iterable[int]) -> Tensor:
    """Return the matrix whose row i counts the places i + e on a ring.

    Example:
        >>> from pyro_manifolds.distributions.neighborhoods.windows import circulant
        >>> circulant(3, [0, 1])
        tensor([[1., 1., 0.],
                [0., 1., 1.],
                [1., 0., 1.]], dtype=torch.float64)
    """
    here = torch.arange(size)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for e in places:
        matrix[here, (here + e) % size] += 1
    return matrix


def expect_size(owner: str, name: str, value: int, least: int = 1) -> int:
    """Return an integer of at least some size, or raise an error that names it."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{owner}: expected {name} to be an integer >= {least}, got {value!r}")
    return int(value)
