"""The flat torus and the circle."""

import math

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.flat import FlatManifold
from pyro_manifolds.ops.angles import angle_of, wrap
from pyro_manifolds.ops.repulsion import log_norm_weight

__all__ = ["Circle", "Torus"]


class Circle(FlatManifold):
    r"""Circle :math:`\mathbb{R} / 2\pi\mathbb{Z}` of length :math:`2\pi`.

    A point is an angle in radians, event shape ``()``; canonical angles lie in
    :math:`[-\pi, \pi)`. ``embed`` is :math:`(\cos t, \sin t)`; ``unembed`` is the angle of a
    vector of the plane, singular at the origin (where it returns 0).

    Example:
        >>> circle = Circle()
        >>> circle.dist(torch.tensor(3.0), torch.tensor(-3.0))
        tensor(0.2832)
        >>> circle.unembed(torch.tensor([0.0, 2.0]))
        tensor(1.5708)
    """

    name = "Circle"
    ndim = 0
    dim = 1
    embed_dim = 2
    event_shape = scale_shape = Size()
    volume = 2 * math.pi
    lattice = periods = (2 * math.pi,)

    def project(self, x: Tensor) -> Tensor:
        return wrap(x)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(y - x)

    def embed(self, y: Tensor) -> Tensor:
        return torch.stack([y.cos(), y.sin()], -1)

    def unembed(self, a: Tensor) -> Tensor:
        return wrap(angle_of(a[..., 1], a[..., 0]))

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        return log_norm_weight(a, power)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Uniform: rotations of the plane leave normal vectors as they are and shift the angle."""
        return self._log_prob_uniform(y)


class Torus(FlatManifold):
    r"""Flat torus :math:`(\mathbb{R} / 2\pi\mathbb{Z})^n`.

    A point is a vector of angles in radians, event shape ``(dim,)``; canonical angles lie in
    :math:`[-\pi, \pi)`. ``embed`` lists :math:`\cos t_1, \sin t_1, \cos t_2, \ldots`, an isometry
    into :math:`\mathbb{R}^{2n}`; ``unembed`` is singular where one of the planes is at its origin.

    Args:
        dim: Number of angles, at least one.

    Raises:
        ValueError: If ``dim`` is not positive.

    Example:
        >>> torus = Torus(2)
        >>> torus.logmap(torch.tensor([3.0, 0.0]), torch.tensor([-3.0, 1.0]))
        tensor([0.2832, 1.0000])
    """

    name = "Torus"
    ndim = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"Torus: expected dim of at least 1, got {dim}")
        self.dim = dim
        self.embed_dim = 2 * dim
        self.event_shape = self.scale_shape = Size([dim])
        self.lattice = self.periods = (2 * math.pi,) * dim

    def _key(self) -> tuple[object, ...]:
        return (self.dim,)

    # On demand, for it overflows in more than 386 dimensions, where all else works.
    @property
    def volume(self) -> float:  # type: ignore[override]
        """Total volume."""
        return float((2 * math.pi) ** self.dim)

    @property
    def log_volume(self) -> float:
        return self.dim * math.log(2 * math.pi)

    def project(self, x: Tensor) -> Tensor:
        return wrap(x)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(y - x)

    def embed(self, y: Tensor) -> Tensor:
        return torch.stack([y.cos(), y.sin()], -1).flatten(-2)

    def unembed(self, a: Tensor) -> Tensor:
        planes = a.unflatten(-1, (self.dim, 2))
        return wrap(angle_of(planes[..., 1], planes[..., 0]))

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        return log_norm_weight(a.unflatten(-1, (self.dim, 2)), power).sum(-1)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Uniform: each plane has an independent angle, uniform as on the circle."""
        return self._log_prob_uniform(y)
