"""Hyperbolic space, whatever its points look like."""

from __future__ import annotations

import abc
import math
from typing import Any

import geoopt
import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.geodesic import GeodesicManifold
from pyro_manifolds.ops.hyperbolic import (
    gyrate,
    half_distance,
    half_exp,
    half_log,
    half_translate,
    log_sinhc,
)

__all__ = ["HyperbolicSpace"]


class HyperbolicSpace(GeodesicManifold):
    r"""Simply connected space of constant negative curvature: one of its models.

    Every point has an orthonormal *frame*, that of the origin carried there in parallel along the
    geodesic from the origin; it is smooth on the whole space. Vectors can be given by their
    coordinates in it (:meth:`exp_frame`, :meth:`log_frame`, :meth:`to_frame`, :meth:`from_frame`).

    ``unembed`` is the exponential map at the origin, a bijection of :math:`\mathbb{R}^n`, and
    ``embed`` its inverse: normal coordinates, with the Riemannian volume element of
    :meth:`log_volume_element`. They are the same in all models, so that
    ``PoincareBall(n).unembed(Hyperboloid(n).embed(x))`` is an isometry.

    Points further from the origin than ``reach`` are not represented: draws and geodesics end
    there.

    Args:
        dim: Dimension, at least one.
        curvature: Sectional curvature, a negative number.

    Raises:
        ValueError: If ``dim`` is not positive or ``curvature`` not negative and finite.
        TypeError: If ``curvature`` requires a gradient: densities and supports depend on it.
    """

    ndim = 1
    num_sheets = 1

    def __init__(self, dim: int, curvature: float = -1.0) -> None:
        super().__init__()
        name = type(self).__name__
        if dim < 1:
            raise ValueError(f"{name}: expected dim of at least 1, got {dim}")
        if isinstance(curvature, Tensor) and curvature.requires_grad:
            raise TypeError(f"{name}: expected a fixed curvature, got a tensor that requires_grad")
        if not -math.inf < curvature < 0:
            raise ValueError(
                f"{name}: expected curvature < 0, got {curvature}; geoopt's Lorentz(k) has the "
                "curvature -1/k, its PoincareBall(c) has -c"
            )
        self.dim = self.embed_dim = dim
        self.curvature = float(curvature)
        self.radius = (-self.curvature) ** -0.5
        self.volume = math.inf
        self.scale_shape = Size([dim])
        self.periods = (self.radius,) * dim

    def _key(self) -> tuple[object, ...]:
        return (self.dim, self.curvature)

    @abc.abstractmethod
    def reach(self, dtype: torch.dtype) -> float:
        """Return the distance from the origin to which points are represented."""

    @abc.abstractmethod
    def _halve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return half-vector and complement, see :mod:`pyro_manifolds.ops.hyperbolic`."""

    @abc.abstractmethod
    def _gap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the half-vector of ``y`` minus that of ``x``, exact where they are close."""

    @abc.abstractmethod
    def _point(self, half: Tensor, square: Tensor) -> Tensor:
        """Return the point that a translation leads to, within reach."""

    @abc.abstractmethod
    def to_frame(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the coordinates ``[..., dim]`` of tangent vectors in the frame at ``x``."""

    @abc.abstractmethod
    def from_frame(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the tangent vectors with the coordinates ``v`` in the frame at ``x``."""

    def exp_frame(self, x: Tensor, v: Tensor) -> Tensor:
        """Follow the geodesic from ``x`` along the vector with coordinates ``v`` in its frame."""
        half, alpha = self._halve(x)
        step, beta = half_exp(v / self.radius)
        return self._point(*half_translate(half, alpha, beta, half + step))

    def log_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """Return, in the frame at ``x``, the vector of the geodesic that ends in ``y``."""
        half, alpha = self._halve(x)
        _, beta = self._halve(y)
        moved = half_translate(-half, alpha, beta, self._gap(x, y))
        return self.radius * half_log(*moved)

    def log_volume_element(self, v: Tensor) -> Tensor:
        r"""Return the logarithm of the volume element in normal coordinates ``v`` at any point.

        It is :math:`(n - 1) \log(\sinh r / r)` with :math:`r` the length over the radius of
        curvature.
        """
        square = (v / self.radius).square().sum(-1)
        return (self.dim - 1) * log_sinhc(square)

    def embed(self, y: Tensor) -> Tensor:
        half, alpha = self._halve(y)
        return self.radius * half_log(half / alpha, half.square().sum(-1, keepdim=True) / alpha)

    def unembed(self, a: Tensor) -> Tensor:
        half, alpha = half_exp(a / self.radius)
        return self._point(half / alpha, half.square().sum(-1, keepdim=True) / alpha)

    def preimage(self, y: Tensor) -> Tensor:
        return self.embed(y)

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        return a.new_zeros(a.shape[:-1])  # never singular

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Wrapped normal at the origin, of scale one."""
        v = self.embed(y)
        normal = -0.5 * (v.square() + math.log(2 * math.pi)).sum(-1)
        return normal - self.log_volume_element(v)

    # Simply connected: a covering of itself with one sheet.
    @property
    def cover(self) -> HyperbolicSpace:
        """The space itself."""
        return self

    def deck(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0)

    def project(self, x: Tensor) -> Tensor:
        return x

    def lift(self, y: Tensor) -> Tensor:
        return y

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exp_frame(x, self.to_frame(x, u))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.from_frame(x, self.log_frame(x, y))

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        (_, alpha), (_, beta) = self._halve(x), self._halve(y)
        return self.radius * half_distance(alpha, beta, self._gap(x, y), keepdim=keepdim)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        (half, alpha), (_, beta) = self._halve(x), self._halve(y)
        turned = gyrate(half, alpha, beta, self._gap(x, y), self.to_frame(x, v))
        return self.from_frame(y, turned)

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.transp(x, self.expmap(x, u), v)

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        first = self.to_frame(x, u)
        second = first if v is None else self.to_frame(x, v)
        return (first * second).sum(-1, keepdim=keepdim)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        return torch.linalg.vector_norm(self.to_frame(x, u), dim=-1, keepdim=keepdim)

    def random(
        self,
        *size: int | Size,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Same as :meth:`random_normal`: there is no uniform distribution."""
        return self.random_normal(*size, dtype=dtype, device=device, **kwargs)

    def random_normal(
        self,
        *size: int | Size,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Draw points of shape ``size``: normal vectors, mapped by geodesics from the origin."""
        shape = self._checked_size(*size)[:-1] + self.scale_shape
        noise = torch.randn(shape, dtype=dtype, device=device)
        return geoopt.ManifoldTensor(self.unembed(mean + std * noise), manifold=self)

    def _sample_uniform(
        self, batch: Size, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        raise NotImplementedError(f"{self}: the volume is infinite")
