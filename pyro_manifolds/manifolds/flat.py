"""Flat manifolds: quotients of R^n by translations, glide reflections and reflections."""

from __future__ import annotations

import abc
import math

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.geodesic import GeodesicManifold

__all__ = ["FlatManifold"]


class FlatManifold(GeodesicManifold):
    r"""Quotient of :math:`\mathbb{R}^n` by a group of isometries, with coordinates of the cover.

    Geodesics are straight lines of the cover and vectors are constant along them there. A
    subclass says how points are identified: ``lattice`` gives the period of every coordinate
    on an intermediate cover (``None`` where it is not periodic), :meth:`deck` the finitely many
    lifts of a point to that cover, :meth:`project` the canonical representative.
    """

    lattice: tuple[float | None, ...]

    def deck(self, x: Tensor) -> Tensor:
        """Return the lifts of ``x`` modulo ``lattice``, stacked: ``[sheets, *x.shape]``."""
        return x.unsqueeze(0)

    @abc.abstractmethod
    def project(self, x: Tensor) -> Tensor:
        r"""Map any point of :math:`\mathbb{R}^n` to its canonical representative."""

    def projx(self, x: Tensor) -> Tensor:
        return self.project(x)

    def contains(self, x: Tensor) -> Tensor:
        zeros = 0 * x  # NaN where x is not finite: far cheaper than a mask for each coordinate
        return (zeros.sum(-1) if self.ndim else zeros) == 0

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.projx(x + u)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return v.expand(torch.broadcast_shapes(x.shape, y.shape, v.shape))

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.transp(x, x + u, v)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        return self.norm(x, self.logmap(x, y), keepdim=keepdim)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        return torch.linalg.vector_norm(u, dim=-1, keepdim=keepdim) if self.ndim else u.abs()

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        product = u * (u if v is None else v)
        product = product.expand(torch.broadcast_shapes(x.shape, product.shape))
        return product.sum(-1, keepdim=keepdim) if self.ndim else product

    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        product = u * (u if v is None else v)
        return product.expand(torch.broadcast_shapes(x.shape, product.shape))

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return self.proju(x, u)

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return True, None  # the tangent space is all of R^n

    def _sample_uniform(
        self, batch: Size, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        # A uniform point of the intermediate cover projects to a uniform point of the quotient.
        periods = torch.tensor(
            [math.nan if period is None else period for period in self.lattice],
            dtype=dtype,
            device=device,
        ).reshape(self.event_shape)
        unit = torch.rand(batch + self.event_shape, dtype=dtype, device=device)
        return self.project((unit - 0.5) * periods)
