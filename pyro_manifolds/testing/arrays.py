"""Arrays of real numbers, as the space of a case."""

from __future__ import annotations

import math

from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor

from pyro_manifolds.manifolds import Euclidean

__all__ = ["RealArrays"]


class RealArrays(Euclidean):
    r"""Euclidean space whose points are arrays: the ``manifold`` of a case of ordinary events.

    Args:
        *shape: Event shape of the distribution.

    Example:
        >>> from pyro_manifolds.testing import RealArrays
        >>> matrices = RealArrays(3, 3)
        >>> matrices, matrices.event_shape, matrices.embed(torch.zeros(5, 3, 3)).shape
        (R^(3 x 3), torch.Size([3, 3]), torch.Size([5, 9]))
    """

    def __init__(self, *shape: int) -> None:
        super().__init__(math.prod(shape))
        self.event_shape = Size(shape)
        self.ndim = len(shape)

    def __repr__(self) -> str:
        return f"R^({' x '.join(map(str, self.event_shape))})"

    def _key(self) -> tuple[object, ...]:
        return tuple(self.event_shape)

    @property
    def support(self) -> Constraint:
        return constraints.independent(constraints.real, self.ndim)

    def embed(self, y: Tensor) -> Tensor:
        return y.flatten(-self.ndim)

    def unembed(self, a: Tensor) -> Tensor:
        return a.unflatten(-1, self.event_shape)
