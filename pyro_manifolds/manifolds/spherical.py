"""Quotients of the sphere by a finite group of isometries."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.geodesic import GeodesicManifold
from pyro_manifolds.ops.arcs import (
    arc_exp,
    arc_length,
    arc_log,
    arc_transport,
    arc_transport_between,
    unit,
)

if TYPE_CHECKING:
    from pyro_manifolds.manifolds.sphere import Sphere

__all__ = ["SphericalQuotient", "log_sphere_volume", "tangential"]


def log_sphere_volume(dim: int) -> float:
    """Return the logarithm of the volume of the unit sphere of dimension ``dim``."""
    half = (dim + 1) / 2
    return math.log(2) + half * math.log(math.pi) - math.lgamma(half)


def tangential(x: Tensor, u: Tensor) -> Tensor:
    """Remove from ``u`` its part along the unit vector ``x``."""
    return u - (x * u).sum(-1, keepdim=True) * x


class SphericalQuotient(GeodesicManifold):
    r"""Quotient of :math:`S^d` by a group of linear isometries without fixed points.

    A point is a unit vector that stands for its orbit; every method takes any representative and
    returns the canonical one. Tangent vectors belong to the representative: where a geodesic ends
    on another sheet than the canonical one, :meth:`transp_follow_expmap` moves the vector along by
    the same group element. :meth:`transp` carries along the shortest geodesic, to the
    representative that was given.

    Attributes:
        num_sheets: Order of the group.
    """

    ndim = 1
    num_sheets: int
    scale_shape = Size()

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"{type(self).__name__}: expected dim of at least 1, got {dim}")
        self.dim = dim
        self.event_shape = Size([dim + 1])

    @property
    def cover(self) -> Sphere:
        """The sphere above."""
        from pyro_manifolds.manifolds.sphere import Sphere

        return Sphere(self.dim)

    @abc.abstractmethod
    def act(self, x: Tensor, sheet: Tensor) -> Tensor:
        """Move ``x`` by the group elements of the given numbers; a sum of numbers composes."""

    @abc.abstractmethod
    def canonical_sheet(self, x: Tensor) -> Tensor:
        """Return the number of the group element that makes ``x`` canonical."""

    def nearest_sheet(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the number of the group element that brings ``y`` nearest to ``x``."""
        x, y = torch.broadcast_tensors(x.detach(), y.detach())
        return (x * self.deck(y)).sum(-1).argmax(0)

    def deck(self, x: Tensor) -> Tensor:
        """Return the whole fibre of the points of the sphere ``x``: ``[num_sheets, *x.shape]``."""
        sheets = torch.arange(self.num_sheets, device=x.device)
        return self.act(x.unsqueeze(0), sheets.reshape([-1] + [1] * (x.ndim - 1)))

    def project(self, x: Tensor) -> Tensor:
        """Map points of the sphere to the canonical representatives of their orbits."""
        return self.act(x, self.canonical_sheet(x))

    def lift(self, y: Tensor) -> Tensor:
        """Lift points to the sphere: the canonical representative."""
        return self.project(y)

    def projx(self, x: Tensor) -> Tensor:
        return self.project(unit(x))

    def contains(self, x: Tensor) -> Tensor:
        tolerance = 10 * torch.finfo(x.dtype).eps * math.sqrt(x.shape[-1])
        return (torch.linalg.vector_norm(x, dim=-1) - 1).abs() < tolerance

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.project(arc_exp(x, u))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the shortest tangent vector from ``x`` to a representative of ``y``."""
        return arc_log(x, self.act(y, self.nearest_sheet(x, y)))

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        return arc_length(x, self.act(y, self.nearest_sheet(x, y)), keepdim=keepdim)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        sheet = self.nearest_sheet(x, y)
        return self.act(arc_transport_between(x, self.act(y, sheet), v), -sheet)

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.act(arc_transport(x, u, v), self.canonical_sheet(arc_exp(x, u)))

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        product = u * (u if v is None else v)
        product = product.expand(torch.broadcast_shapes(x.shape, product.shape))
        return product.sum(-1, keepdim=keepdim)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        u = u.expand(torch.broadcast_shapes(x.shape, u.shape))
        return torch.linalg.vector_norm(u, dim=-1, keepdim=keepdim)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return tangential(x, u)

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return tangential(x, u)

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        radial = self.inner(x, x, u)
        if torch.allclose(radial, torch.zeros_like(radial), atol=atol, rtol=rtol):
            return True, None
        return False, f"some vectors are not tangent to {self}: <x, u> is not 0"

    def _sample_uniform(
        self, batch: Size, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        return self.projx(torch.randn(batch + self.event_shape, dtype=dtype, device=device))
