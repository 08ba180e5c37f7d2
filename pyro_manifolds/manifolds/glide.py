"""Quotients of the plane by a glide reflection: the half turn along and the flip across."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.flat import FlatManifold
from pyro_manifolds.manifolds.manifold import Manifold
from pyro_manifolds.ops.angles import angle_of, parity, wrap

if TYPE_CHECKING:
    from pyro_manifolds.distributions.transforms import Covering

__all__ = ["GlideQuotient"]


class GlideQuotient(FlatManifold):
    r"""Surface whose points :math:`(t + \pi, -h)` and :math:`(t, h)` are the same.

    A vector carried once round the first coordinate comes back with its second component
    reflected. :meth:`transp` carries along the shortest geodesic to the nearest lift of the
    end point; :meth:`transp_follow_expmap` along the geodesic of the given vector, whatever its
    length, which is what the optimisers of geoopt use.
    """

    ndim = 1
    dim = 2
    num_sheets = 2
    event_shape = scale_shape = Size([2])

    @property
    @abc.abstractmethod
    def cover(self) -> Manifold:
        """The orientable double cover."""

    @property
    def orientation_covering(self) -> Covering:
        """Two-sheeted covering by :attr:`cover`.

        Example:
            >>> MoebiusBand().orientation_covering.fibre(torch.tensor([0.5, 0.2]))
            tensor([[ 0.5000,  0.2000],
                    [-2.6416, -0.2000]])
        """
        from pyro_manifolds.distributions.transforms import FiniteCovering

        return FiniteCovering(self)

    def lift(self, y: Tensor) -> Tensor:
        """Lift points to :attr:`cover`, on the sheet of the canonical representative."""
        return self.projx(y)

    def _wrap_across(self, h: Tensor) -> Tensor:
        """Reduce a second coordinate, or a difference of two, to its canonical interval."""
        return h

    def deck(self, x: Tensor) -> Tensor:
        along, across = x.unbind(-1)
        return torch.stack([x, torch.stack([along + math.pi, -across], -1)])

    def project(self, x: Tensor) -> Tensor:
        along, across = x.unbind(-1)
        half_turns = torch.floor(along.detach() / math.pi)
        along = along - math.pi * half_turns
        # Rounding can return pi exactly, or just below zero: both are moved to the next zero.
        overshoot = (along >= math.pi).to(x.dtype)
        along = along - math.pi * overshoot
        along = along - along.detach().clamp(max=0)
        return torch.stack([along, self._wrap_across(parity(half_turns + overshoot) * across)], -1)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the shortest vector from ``x`` to ``y`` in the frame of ``x``."""
        direct, flipped = self._steps(x, y)
        shorter = self._norm2(flipped) < self._norm2(direct)
        return torch.where(shorter, flipped, direct)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self._flip_frame(x, self.logmap(x, y), y, v)

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._flip_frame(x, u, self.expmap(x, u), v)

    def _steps(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shortest vectors from ``x`` to the two sheets of ``y``."""
        along, across = (y - x)[..., 0], y[..., 1] - x[..., 1]
        mirrored = -y[..., 1] - x[..., 1]
        direct = torch.stack([wrap(along), self._wrap_across(across)], -1)
        flipped = torch.stack([wrap(along + math.pi), self._wrap_across(mirrored)], -1)
        return direct, flipped

    @staticmethod
    def _norm2(u: Tensor) -> Tensor:
        return u.square().sum(-1, keepdim=True)

    @staticmethod
    def _flip_frame(x: Tensor, step: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Reflect ``v`` if the lift ``x + step`` lies an odd number of sheets away from ``y``."""
        sheets = torch.round((x[..., 0] + step[..., 0] - y[..., 0]) / math.pi)
        return torch.stack([v[..., 0].expand(sheets.shape), parity(sheets) * v[..., 1]], -1)

    def _half_angle(self, a: Tensor) -> Tensor:
        """Return half the angle in [0, 2 pi] of the vector of the first two entries."""
        angle = angle_of(a[..., 1], a[..., 0])
        return torch.where(angle < 0, angle + 2 * math.pi, angle) / 2
