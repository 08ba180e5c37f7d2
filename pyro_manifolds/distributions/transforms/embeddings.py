"""Embeddings by formula, of the unit cube and of Euclidean space as tori and spheres."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Size, Tensor

from pyro_manifolds.distributions.transforms.embedding import Embedding
from pyro_manifolds.manifolds import Manifold, Sphere
from pyro_manifolds.ops.angles import angle_of

__all__ = [
    "EqualAreaSphereEmbedding",
    "FlatTorusEmbedding",
    "RevolutionTorusEmbedding",
    "StereographicEmbedding",
]

_TURN = 2 * math.pi
_UNIT_CUBE = constraints.independent(constraints.unit_interval, 1)


def _share_of_turn(sin: Tensor, cos: Tensor) -> Tensor:
    """Return the angle of a vector, from zero to one."""
    share = angle_of(sin, cos) / _TURN
    share = share - share.detach().floor()
    # A tiny negative angle is rounded to a full turn, on which densities on [0, 1) vanish.
    return share.clamp(max=1 - torch.finfo(share.dtype).eps / 2)


class FlatTorusEmbedding(Embedding):
    r"""The unit cube as the flat torus: :math:`(\cos 2\pi z_i, \sin 2\pi z_i)` for each entry.

    With one dimension it is the unit circle. Opposite faces of the cube have the same image, a
    seam of volume zero. The log-determinant is :math:`m \log 2\pi`.

    Args:
        dim: Number of entries :math:`m`; the torus lies in :math:`\mathbb{R}^{2m}`.

    Raises:
        ValueError: If ``dim`` is not positive.

    Example:
        >>> from pyro_manifolds.distributions.transforms import FlatTorusEmbedding
        >>> FlatTorusEmbedding(2)(torch.tensor([0.0, 0.25])).round(decimals=4)
        tensor([1., 0., -0., 1.])
    """

    domain = _UNIT_CUBE

    def __init__(self, dim: int = 1, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        if dim < 1:
            raise ValueError(f"FlatTorusEmbedding: expected dim of at least 1, got {dim}")
        self.dim, self.embed_dim, self.domain_shape = dim, 2 * dim, Size([dim])

    def _key(self) -> tuple[Any, ...]:
        return (self.dim,)

    @property
    def uniform_image(self) -> Manifold | None:
        return Sphere(1) if self.dim == 1 else None

    def _call(self, x: Tensor) -> Tensor:
        angles = _TURN * x
        return torch.stack([angles.cos(), angles.sin()], -1).flatten(-2)

    def _inverse(self, y: Tensor) -> Tensor:
        cos, sin = y.unflatten(-1, (self.dim, 2)).unbind(-1)
        return _share_of_turn(sin, cos)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_full(x.shape[:-1], self.dim * math.log(_TURN))


class RevolutionTorusEmbedding(Embedding):
    r"""The unit square as a torus of revolution in :math:`\mathbb{R}^3`.

    .. math:: ((R + r \cos 2\pi z_2) \cos 2\pi z_1, \; (R + r \cos 2\pi z_2) \sin 2\pi z_1, \;
        r \sin 2\pi z_2)

    The uniform law on the square does not become uniform by area: the log-determinant is
    :math:`\log 4\pi^2 r (R + r \cos 2\pi z_2)`.

    Args:
        major: Distance :math:`R` of the centre of the tube from the axis.
        minor: Radius :math:`r` of the tube.

    Raises:
        ValueError: Unless ``major > minor > 0``, for the torus would meet itself.

    Example:
        >>> from pyro_manifolds.distributions.transforms import RevolutionTorusEmbedding
        >>> RevolutionTorusEmbedding(2.0, 0.5)(torch.zeros(2))
        tensor([2.5000, 0.0000, 0.0000])
    """

    domain = _UNIT_CUBE
    dim, embed_dim, domain_shape = 2, 3, Size([2])

    def __init__(self, major: float = 2.0, minor: float = 1.0, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        if not major > minor > 0:
            raise ValueError(
                f"RevolutionTorusEmbedding: expected major > minor > 0, got {major} and {minor}"
            )
        self.major, self.minor = float(major), float(minor)

    def _key(self) -> tuple[Any, ...]:
        return (self.major, self.minor)

    def _from_axis(self, x: Tensor) -> Tensor:
        return self.major + self.minor * (_TURN * x[..., 1]).cos()

    def _call(self, x: Tensor) -> Tensor:
        around, distance = _TURN * x[..., 0], self._from_axis(x)
        height = self.minor * (_TURN * x[..., 1]).sin()
        return torch.stack([distance * around.cos(), distance * around.sin(), height], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm(y[..., :2], dim=-1)
        around = _share_of_turn(y[..., 1], y[..., 0])
        return torch.stack([around, _share_of_turn(y[..., 2], distance - self.major)], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return (_TURN**2 * self.minor * self._from_axis(x)).log()


class EqualAreaSphereEmbedding(Embedding):
    r"""The unit square as the sphere in :math:`\mathbb{R}^3`, with equal areas (Archimedes).

    The first entry is the longitude in turns, the second goes from the south pole to the north
    pole in proportion to the height. The uniform law on the square becomes the uniform law on the
    sphere; the log-determinant is :math:`\log 4\pi`. One meridian is the seam, and each pole the
    image of an edge, near to which derivatives grow without bound.

    Example:
        >>> from pyro_manifolds.distributions.transforms import EqualAreaSphereEmbedding
        >>> EqualAreaSphereEmbedding()(torch.tensor([0.0, 0.5]))
        tensor([1., 0., 0.])
    """

    domain = _UNIT_CUBE
    dim, embed_dim, domain_shape = 2, 3, Size([2])

    def _key(self) -> tuple[Any, ...]:
        return ()

    @property
    def uniform_image(self) -> Manifold | None:
        return Sphere(2)

    def _call(self, x: Tensor) -> Tensor:
        longitude, share = _TURN * x[..., 0], x[..., 1]
        distance = 2 * (share * (1 - share)).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
        return torch.stack(
            [distance * longitude.cos(), distance * longitude.sin(), 2 * share - 1], -1
        )

    def _inverse(self, y: Tensor) -> Tensor:
        height = y[..., 2]
        # Near the south pole 1 + height would cancel; the distance from the axis does not.
        small = y[..., :2].square().sum(-1) / (1 + height.abs())
        share = torch.where(height < 0, small, 1 + height) / 2
        return torch.stack([_share_of_turn(y[..., 1], y[..., 0]), share.clamp(0, 1)], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_full(x.shape[:-1], math.log(4 * math.pi))


class StereographicEmbedding(Embedding):
    r"""Euclidean space as the sphere without its north pole.

    .. math:: (2z, \; |z|^2 - 1) \, / \, (|z|^2 + 1), \qquad \tfrac12 \log\det J^\top J
        = m \log \frac{2}{1 + |z|^2}

    Args:
        dim: Dimension :math:`m` of the space and of the sphere.

    Raises:
        ValueError: If ``dim`` is not positive.

    Example:
        >>> from pyro_manifolds.distributions.transforms import StereographicEmbedding
        >>> StereographicEmbedding(2)(torch.zeros(2))
        tensor([ 0.,  0., -1.])
    """

    domain = constraints.real_vector

    def __init__(self, dim: int, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        if dim < 1:
            raise ValueError(f"StereographicEmbedding: expected dim of at least 1, got {dim}")
        self.dim, self.embed_dim, self.domain_shape = dim, dim + 1, Size([dim])

    def _key(self) -> tuple[Any, ...]:
        return (self.dim,)

    def _call(self, x: Tensor) -> Tensor:
        square = x.square().sum(-1, keepdim=True)
        return torch.cat([2 * x, square - 1], -1) / (square + 1)

    def _inverse(self, y: Tensor) -> Tensor:
        rest, height = y[..., :-1], y[..., -1:]
        # Near the pole 1 - height would cancel; what is left of the unit length does not.
        small = rest.square().sum(-1, keepdim=True) / (1 + height.abs())
        below = torch.where(height > 0, small, 1 - height)
        return rest / below.clamp(min=torch.finfo(y.dtype).tiny)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.dim * (math.log(2) - torch.log1p(x.square().sum(-1)))
