"""The unit sphere."""

import math

import geoopt
import torch
from torch import Tensor

from pyro_manifolds.manifolds.spherical import SphericalQuotient, log_sphere_volume
from pyro_manifolds.ops.arcs import unit
from pyro_manifolds.ops.repulsion import log_norm_weight

__all__ = ["Sphere"]


class Sphere(SphericalQuotient, geoopt.manifolds.Sphere):
    r"""Unit sphere :math:`S^d \subset \mathbb{R}^{d+1}`.

    A point is a unit vector, event shape ``(dim + 1,)``. Unlike those of
    :class:`geoopt.manifolds.Sphere`, of which this is a subclass, distances are exact to the
    resolution of the dtype, transport is parallel, and everything has finite derivatives at
    equal and at opposite points. ``embed`` is the identity; ``unembed`` normalises, singular at
    the origin (where it returns the first axis).

    Args:
        dim: Intrinsic dimension, at least one: 2 is the sphere in space.

    Raises:
        ValueError: If ``dim`` is not positive.

    Example:
        >>> sphere = Sphere(2)
        >>> sphere.dist(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([-1.0, 0.0, 0.0]))
        tensor(3.1416)
        >>> sphere.unembed(torch.tensor([0.0, 3.0, 4.0]))
        tensor([0.0000, 0.6000, 0.8000])
    """

    name = "Sphere"
    num_sheets = 1
    periods = (2 * math.pi,)

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.embed_dim = dim + 1
        self.volume = math.exp(self.log_volume)

    def _key(self) -> tuple[object, ...]:
        return (self.dim,)

    @property
    def log_volume(self) -> float:
        return log_sphere_volume(self.dim)

    @property
    def cover(self) -> "Sphere":
        """The sphere itself."""
        return self

    def act(self, x: Tensor, sheet: Tensor) -> Tensor:
        return x

    def canonical_sheet(self, x: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.long, device=x.device)

    def nearest_sheet(self, x: Tensor, y: Tensor) -> Tensor:
        return self.canonical_sheet(x)

    def embed(self, y: Tensor) -> Tensor:
        return y

    def unembed(self, a: Tensor) -> Tensor:
        return unit(a)

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        return log_norm_weight(a, power)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Uniform: rotations leave normal vectors as they are."""
        return self._log_prob_uniform(y)
