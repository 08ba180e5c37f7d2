"""Disjoint groups."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from pyro_manifolds.distributions.neighborhoods.base import Neighborhood
from pyro_manifolds.distributions.neighborhoods.windows import expect_size

__all__ = ["Groups"]


class Groups(Neighborhood):
    """Groups of neighbours that share all their auxiliary variables, and none with others.

    Latents have shape ``(num_groups * group_size,)``, auxiliary variables
    ``(num_groups * dof,)``. Each group is a multivariate Student-t, of which the density is known
    at every location.

    Args:
        num_groups: Number of groups.
        group_size: Entries of each group; 1 for independent entries.
        dof: Auxiliary variables of each group: its degrees of freedom.

    Raises:
        ValueError: If one of them is no positive integer.

    Example:
        >>> from pyro_manifolds.distributions import Groups
        >>> pairs = Groups(2, 2, 3)
        >>> pairs.forward(torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.5]))
        tensor([6.0000, 6.0000, 0.5000, 0.5000])
        >>> pairs.transpose(torch.tensor([1.0, 2.0, 0.0, 4.0]))
        tensor([3., 3., 3., 4., 4., 4.])
        >>> pairs.dof
        tensor([3., 3., 3., 3.])
    """

    def __init__(self, num_groups: int, group_size: int, dof: int) -> None:
        self.num_groups = expect_size("Groups", "num_groups", num_groups)
        self.group_size = expect_size("Groups", "group_size", group_size)
        self.group_dof = expect_size("Groups", "dof", dof)
        self.event_shape = Size([self.num_groups * self.group_size])
        self.noise_shape = Size([self.num_groups * self.group_dof])

    def _forward(self, u2: Tensor) -> Tensor:
        return self._spread(u2, self.group_dof, self.group_size)

    def _transpose(self, t2: Tensor) -> Tensor:
        return self._spread(t2, self.group_size, self.group_dof)

    def _spread(self, x: Tensor, size: int, copies: int) -> Tensor:
        total = x.unflatten(-1, (self.num_groups, size)).sum(-1, keepdim=True)
        return total.expand(*total.shape[:-1], copies).flatten(-2)

    @property
    def num_terms(self) -> Tensor:
        return torch.full(self.event_shape, self.group_dof)

    def block_sums(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_groups, -1)).sum(-1)

    def _key(self) -> tuple[object, ...]:
        return self.num_groups, self.group_size, self.group_dof
