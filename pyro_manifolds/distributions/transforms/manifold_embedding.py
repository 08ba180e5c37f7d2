"""Embeddings of our manifolds in their ambient spaces."""

from __future__ import annotations

import math
from typing import Any

from pyro.distributions.constraints import Constraint
from torch import Tensor

from pyro_manifolds.distributions.transforms.embedding import Embedding
from pyro_manifolds.manifolds import (
    SO3,
    Circle,
    Cylinder,
    Euclidean,
    FlatManifold,
    Manifold,
    ProjectiveSpace,
    Sphere,
    Torus,
)
from pyro_manifolds.ops.tangent_frame import rotation_frame, tangent_frame
from pyro_manifolds.ops.volume_element import jacobian, push_forward

__all__ = ["ManifoldEmbedding"]


class ManifoldEmbedding(Embedding):
    """The map ``embed`` of one of our manifolds into its ambient space.

    A distribution of points, say of angles on the Klein bottle, becomes one of vectors, which a
    network reads without a seam. Densities refer to the volume of the image in the ambient space,
    which is that of the manifold for circles, tori, cylinders and spheres, proportional to it for
    rotations and projective spaces, and another for the Klein bottle and the Moebius band.

    Args:
        manifold: A flat manifold, a sphere, a projective space or SO(3).

    Raises:
        NotImplementedError: If it is another manifold.

    Example:
        >>> from pyro_manifolds.distributions.transforms import ManifoldEmbedding
        >>> from pyro_manifolds.distributions import EmbeddingPushforward
        >>> law = WrappedNormal(KleinBottle(), torch.zeros(2), 0.1 * torch.ones(2))
        >>> EmbeddingPushforward(law, ManifoldEmbedding(KleinBottle())).event_shape
        torch.Size([5])
    """

    def __init__(self, manifold: Manifold, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        if not isinstance(manifold, FlatManifold | Sphere | ProjectiveSpace | SO3 | Euclidean):
            raise NotImplementedError(
                "ManifoldEmbedding: expected a flat manifold, a Sphere, a ProjectiveSpace or "
                f"SO3, got {manifold}"
            )
        self.manifold = manifold
        self.dim, self.embed_dim = manifold.dim, manifold.embed_dim
        self.domain_shape = manifold.event_shape

    def _key(self) -> tuple[Any, ...]:
        return (self.manifold,)

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        return self.manifold.support

    def _call(self, x: Tensor) -> Tensor:
        return self.manifold.embed(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.manifold.unembed(y)

    def jacobian(self, x: Tensor) -> Tensor:
        """Return the images of an orthonormal frame of the domain, ``[..., embed_dim, dim]``."""
        manifold = self.manifold
        if isinstance(manifold, SO3):
            return rotation_frame(x)
        if isinstance(manifold, Circle):
            return jacobian(lambda z: manifold.embed(z.squeeze(-1)), x.unsqueeze(-1))
        if isinstance(manifold, Sphere | ProjectiveSpace):
            return push_forward(manifold.embed, x, tangent_frame(x))
        return jacobian(manifold.embed, x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        factor = _CONSTANT.get(type(self.manifold))
        if factor is None:
            return super().log_abs_det_jacobian(x, y)
        batch = x.shape[: x.dim() - self.manifold.ndim]
        return x.new_full(batch, self.dim * math.log(factor))


# By what every length grows, where it does so by the same factor everywhere.
_CONSTANT: dict[type[Manifold], float] = {
    Circle: 1.0,
    Cylinder: 1.0,
    Euclidean: 1.0,
    ProjectiveSpace: math.sqrt(2),
    SO3: math.sqrt(8),
    Sphere: 1.0,
    Torus: 1.0,
}
