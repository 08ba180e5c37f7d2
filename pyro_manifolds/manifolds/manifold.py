"""What every manifold of the library offers."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING

import geoopt
import torch
from geoopt.utils import size2shape
from torch import Size, Tensor

if TYPE_CHECKING:
    from pyro.distributions.constraints import Constraint

    from pyro_manifolds.distributions.transforms import Covering

__all__ = ["Manifold"]


class Manifold(geoopt.Manifold):
    r"""Riemannian manifold with an embedding, a volume, a support and a covering.

    To geoopt's own methods (``projx``, ``proju``, ``expmap``, ``logmap``, ``transp``,
    ``inner``, ``dist``, ...), for which geoopt's optimisers work on it, this class adds what
    probability needs. Manifolds without parameters of their own compare equal by type and
    by ``_key()``.

    Attributes:
        dim: Intrinsic dimension.
        event_shape: Shape of one point.
        embed_dim: Dimension :math:`N` of the ambient space of :meth:`embed`.
        volume: Total Riemannian volume, ``math.inf`` where it is infinite.
        scale_shape: Shape of the scale of a wrapped normal: ``(dim,)`` where a parallel frame
            exists on the cover, ``()`` where only an isotropic scale makes sense.
        periods: Length of a closed geodesic along each entry of the scale, or else the width (one
            where there is none): the yardstick for initial scales.
    """

    dim: int
    event_shape: Size
    embed_dim: int
    volume: float
    scale_shape: Size
    periods: tuple[float, ...]
    reversible = False

    def _key(self) -> tuple[object, ...]:
        """Return what tells two instances of one class apart."""
        return ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._key() == self._key()

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self._key()))})"

    @property
    def is_compact(self) -> bool:
        """Whether the manifold has a finite volume."""
        return math.isfinite(self.log_volume)

    @property
    def log_volume(self) -> float:
        """Logarithm of the volume, finite also where the volume leaves the range of a float."""
        return math.log(self.volume)

    # Imported late: the geometry below knows nothing of distributions; these are views for users.
    @property
    def support(self) -> Constraint:
        """Constraint that accepts every representative of a point."""
        from pyro_manifolds.distributions.constraints import on_manifold

        return on_manifold(self)

    @property
    def covering(self) -> Covering:
        """Covering map from the space on which samples are drawn."""
        from pyro_manifolds.distributions.transforms import covering_of

        return covering_of(self)

    @abc.abstractmethod
    def embed(self, y: Tensor) -> Tensor:
        """Map points ``[..., *event_shape]`` smoothly, one to one, to ``[..., embed_dim]``."""

    @abc.abstractmethod
    def unembed(self, a: Tensor) -> Tensor:
        """Map ``[..., embed_dim]`` to the manifold, a finite left inverse of :meth:`embed`.

        Continuous as a map into the manifold away from a singular set of codimension two or
        more, on which some point is returned.
        """

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Return the log-density of ``unembed(z)`` for standard normal ``z``, at ``y``.

        The density is with respect to the Riemannian volume.

        Raises:
            NotImplementedError: If it has no closed form on this manifold.

        Example:
            >>> KleinBottle().log_prob_unembed(torch.tensor([0.3, 1.0]))
            tensor(-2.9826)
        """
        raise NotImplementedError(
            f"{self}: the law of unembed(z) for normal z has no density of closed form, which "
            "ManifoldReparam needs; move the site to its cover first, by CoveringReparam, or use "
            "a guide on the manifold itself, AutoWrappedNormal or a WrappedNormal of your own"
        )

    def _log_prob_uniform(self, y: Tensor) -> Tensor:
        """Return the log-density of the uniform distribution at points of any batch shape."""
        return y.new_full(y.shape[: y.dim() - self.ndim], -self.log_volume)

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        r"""Return :math:`\log s(a)^b / E[s(z)^b]`, where ``unembed`` is singular at :math:`s = 0`.

        For standard normal :math:`z`, :math:`s(z)` and ``unembed(z)`` are independent, so that
        weighting :math:`z` by it leaves the law of ``unembed(z)`` as it is.

        Raises:
            NotImplementedError: As for :meth:`log_prob_unembed`.

        Example:
            >>> Circle().log_repulsion(torch.tensor([0.0, 2.0]), 2.0)
            tensor(0.6931)
        """
        raise NotImplementedError(f"{self}: no function of closed form vanishes with unembed")

    def preimage(self, y: Tensor) -> Tensor:
        """Map points to vectors that ``unembed`` maps back, about as long as standard normal ones.

        Where ``unembed`` forgets the length of its argument, ``embed`` may return vectors much
        closer to its singular set than typical normal ones; these are as far away.

        Example:
            >>> Circle().preimage(torch.tensor(0.0))
            tensor([1.4142, 0.0000])
        """
        a = self.embed(y)
        return a * (math.sqrt(self.embed_dim) / torch.linalg.vector_norm(a, dim=-1, keepdim=True))

    @abc.abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Tell, for each of the points ``[..., *event_shape]``, whether it represents a point."""

    def equivalent(self, x: Tensor, y: Tensor, *, atol: float | None = None) -> Tensor:
        """Tell whether ``x`` and ``y`` represent the same point, to a distance of ``atol``.

        ``atol`` defaults to the square root of the resolution of the dtype.
        """
        if atol is None:
            atol = torch.finfo(torch.result_type(x, y)).eps ** 0.5
        return self.dist(x, y) <= atol

    def random(
        self,
        *size: int | Size,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        **kwargs: object,
    ) -> Tensor:
        """Same as :meth:`random_uniform`."""
        return self.random_uniform(*size, dtype=dtype, device=device)

    def random_uniform(
        self,
        *size: int | Size,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Draw points of shape ``size``, which ends in ``event_shape``, uniform by volume."""
        shape = self._checked_size(*size)
        if not self.is_compact:
            raise ValueError(f"{self}: no uniform distribution, the volume is infinite")
        batch = shape[: len(shape) - self.ndim]
        return geoopt.ManifoldTensor(self._sample_uniform(batch, dtype, device), manifold=self)

    @abc.abstractmethod
    def _sample_uniform(
        self, batch: Size, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        """Draw uniform points of shape ``batch + event_shape``."""

    def origin(
        self,
        *size: int | Size,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        seed: int | None = 42,
    ) -> Tensor:
        """Return one fixed point, repeated to ``size``, which ends in ``event_shape``."""
        shape = self._checked_size(*size)
        ambient = torch.zeros(self.embed_dim, dtype=dtype, device=device)
        point = self.unembed(ambient).expand(shape).clone()
        return geoopt.ManifoldTensor(point, manifold=self)

    def _checked_size(self, *size: int | Size) -> Size:
        shape = Size(size2shape(*size))
        self._assert_check_shape(shape, "size")
        return shape

    def _check_shape(self, shape: Size, name: str) -> tuple[bool, str | None]:
        event = tuple(shape)[len(shape) - self.ndim :] if self.ndim else ()
        if len(shape) >= self.ndim and event == tuple(self.event_shape):
            return True, None
        return False, (
            f"{self}: expected {name} of a shape that ends in {tuple(self.event_shape)}, "
            f"got {tuple(shape)}"
        )

    def _check_point_on_manifold(
        self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        if bool(self.contains(x).all()):
            return True, None
        return False, f"some points are not on {self}"
