"""Arrays of real and of complex numbers, as the space of a case."""

from __future__ import annotations

import math

import torch
from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor

from pyro_manifolds.distributions import complex_constraints
from pyro_manifolds.manifolds import Euclidean

__all__ = ["ComplexArrays", "RealArrays"]


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


class ComplexArrays(Euclidean):
    r"""Euclidean space whose points are arrays of complex numbers, or single ones.

    Its dimension is that of the real and imaginary parts, which ``embed`` lays side by side.

    Args:
        *shape: Event shape of the distribution.

    Example:
        >>> from pyro_manifolds.testing import ComplexArrays
        >>> pairs = ComplexArrays(2)
        >>> pairs, pairs.dim, pairs.embed(torch.tensor([1 + 2j, 3j]))
        (C^(2), 4, tensor([1., 2., 0., 3.]))
    """

    def __init__(self, *shape: int) -> None:
        super().__init__(2 * math.prod(shape))
        self.event_shape = Size(shape)
        self.ndim = len(shape)

    def __repr__(self) -> str:
        return f"C^({' x '.join(map(str, self.event_shape))})" if self.ndim else "C"

    def _key(self) -> tuple[object, ...]:
        return tuple(self.event_shape)

    @property
    def support(self) -> Constraint:
        known = (complex_constraints.complex, complex_constraints.complex_vector)
        if self.ndim < len(known):
            return known[self.ndim]
        return constraints.independent(known[0], self.ndim)

    def embed(self, y: Tensor) -> Tensor:
        return torch.view_as_real(y.resolve_conj()).flatten(-self.ndim - 1)

    def unembed(self, a: Tensor) -> Tensor:
        pairs = a.unflatten(-1, (*self.event_shape, 2))
        return torch.complex(pairs[..., 0], pairs[..., 1])

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        norm = torch.linalg.vector_norm(self.embed(u), dim=-1)
        return norm.reshape(norm.shape + (1,) * self.ndim) if keepdim else norm
