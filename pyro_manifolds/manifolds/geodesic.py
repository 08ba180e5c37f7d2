"""Manifolds on which geodesics are cheap enough to serve as the retraction."""

from __future__ import annotations

from torch import Tensor

from pyro_manifolds.manifolds.manifold import Manifold

__all__ = ["GeodesicManifold"]


class GeodesicManifold(Manifold):
    """Manifold whose retraction is the exponential map, with transport along its geodesics."""

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return self.expmap(x, u)

    def transp_follow_retr(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.transp_follow_expmap(x, u, v)

    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.expmap(x, u), self.transp_follow_expmap(x, u, v)

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.expmap_transp(x, u, v)
