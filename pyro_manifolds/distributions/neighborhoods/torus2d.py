"""Windows on a torus."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Size, Tensor

from pyro_manifolds.distributions.neighborhoods.base import Neighborhood
from pyro_manifolds.distributions.neighborhoods.ring import Ring

__all__ = ["Torus2d"]


class Torus2d(Neighborhood):
    """Entries of a map whose opposite edges meet, each with the rectangle around it.

    Latents and auxiliary variables have shape ``(height, width)``. The map is the product of two
    rings, and is applied along one axis after the other: its cost does not depend on the size of
    the rectangle.

    Args:
        size: Height and width of the map.
        kernel_size: Height and width of the window, placed as in
            :class:`~pyro_manifolds.distributions.Ring`.

    Raises:
        ValueError: If one of them is no pair of positive integers.

    Example:
        >>> from pyro_manifolds.distributions import Torus2d
        >>> sheet = Torus2d((3, 4), (3, 1))
        >>> sheet.forward(torch.arange(12.0).reshape(3, 4))
        tensor([[12., 15., 18., 21.],
                [12., 15., 18., 21.],
                [12., 15., 18., 21.]])
        >>> sheet.event_shape, Torus2d((18, 18), (5, 5)).dof[0, 0]
        (torch.Size([3, 4]), tensor(25.))
    """

    def __init__(self, size: Sequence[int], kernel_size: Sequence[int]) -> None:
        for name, pair in (("size", size), ("kernel_size", kernel_size)):
            if not isinstance(pair, Sequence) or len(pair) != 2:
                raise ValueError(f"Torus2d: expected {name} to be a pair, got {pair!r}")
        self.columns = Ring(size[0], kernel_size[0])
        self.rows = Ring(size[1], kernel_size[1])
        self.event_shape = self.noise_shape = Size([self.columns.size, self.rows.size])

    def _forward(self, u2: Tensor) -> Tensor:
        return self.columns._forward(self.rows._forward(u2).mT).mT

    def _transpose(self, t2: Tensor) -> Tensor:
        return self.columns._transpose(self.rows._transpose(t2).mT).mT

    @property
    def num_terms(self) -> Tensor:
        number = int(self.columns.num_terms[0]) * int(self.rows.num_terms[0])
        return torch.full(self.event_shape, number)

    def _key(self) -> tuple[object, ...]:
        return tuple(self.event_shape), (self.columns.kernel_size, self.rows.kernel_size)
