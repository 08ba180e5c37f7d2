"""Windows on a ring."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from pyro_manifolds.distributions.neighborhoods.base import Neighborhood
from pyro_manifolds.distributions.neighborhoods.windows import (
    TABLE_LIMIT,
    circulant,
    expect_size,
    offsets,
)
from pyro_manifolds.ops.constant import Constant

__all__ = ["Ring"]


class Ring(Neighborhood):
    """Entries on a ring, each with the window of auxiliary variables around it.

    Latents and auxiliary variables have shape ``(size,)``. The window of entry i holds the places
    i - (K - 1) // 2 to i + K // 2 for a kernel size of K; one that is longer than the ring counts
    places as often as it meets them.

    Args:
        size: Number of entries.
        kernel_size: Length K of the window.

    Raises:
        ValueError: If one of them is no positive integer.

    Example:
        >>> from pyro_manifolds.distributions import Ring
        >>> Ring(5, 3).forward(torch.tensor([1.0, 0.0, 0.0, 2.0, 0.0]))
        tensor([1., 1., 2., 2., 3.])
    """

    def __init__(self, size: int, kernel_size: int) -> None:
        self.size = expect_size("Ring", "size", size)
        self.kernel_size = expect_size("Ring", "kernel_size", kernel_size)
        self.event_shape = self.noise_shape = Size([self.size])
        self._table = None
        if self.size <= TABLE_LIMIT:
            self._table = Constant(circulant(self.size, offsets(self.kernel_size)))

    def _forward(self, u2: Tensor) -> Tensor:
        if self._table is None:
            return _sum_rolled(u2, self.kernel_size, -1)
        return u2 @ self._table.like(u2).mT

    def _transpose(self, t2: Tensor) -> Tensor:
        if self._table is None:
            return _sum_rolled(t2, self.kernel_size, 1)
        return t2 @ self._table.like(t2)

    @property
    def num_terms(self) -> Tensor:
        return torch.full(self.event_shape, min(self.size, self.kernel_size))

    def _key(self) -> tuple[object, ...]:
        return self.size, self.kernel_size


def _sum_rolled(x: Tensor, kernel_size: int, sign: int) -> Tensor:
    first, *others = offsets(kernel_size)
    total = x.roll(sign * first, -1)
    for e in others:
        total = total + x.roll(sign * e, -1)
    return total
