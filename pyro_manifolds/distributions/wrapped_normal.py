"""Wrapped normals on every manifold of the library."""

from __future__ import annotations

import math
from typing import Any

import geoopt
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution
from torch.types import _size

from pyro_manifolds.distributions.arguments import as_tensors
from pyro_manifolds.distributions.concatenated import Concatenated
from pyro_manifolds.distributions.covering_pushforward import CoveringPushforward
from pyro_manifolds.distributions.hyperbolic_normal import HyperbolicNormal
from pyro_manifolds.distributions.tangent_normal import TangentNormal
from pyro_manifolds.manifolds import (
    Circle,
    Euclidean,
    FlatManifold,
    HyperbolicSpace,
    Manifold,
    Product,
    Torus,
    as_manifold,
)
from pyro_manifolds.manifolds.glide import GlideQuotient
from pyro_manifolds.ops.tangent_normal import MAX_SCALE
from pyro_manifolds.ops.wrapped_normal import wrapped_normal_kl_to_uniform

__all__ = ["WrappedNormal", "bounded_scales"]


class WrappedNormal(CoveringPushforward):
    r"""Normal distribution in the tangent space, wrapped on a manifold by its exponential map.

    On flat manifolds the density with respect to the Riemannian volume is that of independent
    normals on the cover, summed over the fibre of :math:`y`,

    .. math:: p(y) = \sum_{x \in \pi^{-1}(y)} \prod_i N(x_i; \text{loc}_i, \text{scale}_i^2)

    exact at every scale and constant cost; it tends to the uniform distribution for large scales.
    On the Klein bottle and the Moebius band the scale is diagonal in the frame of the coordinates,
    which makes the distribution a function of the point ``loc`` and not of its lift. On
    a Moebius band of finite width, samples beyond the edge are reflected. On spheres and
    their quotients the scale is isotropic, see :class:`TangentNormal`. On hyperbolic space it is
    diagonal in the frame of the origin, carried to ``loc`` in parallel along the geodesic, see
    :class:`HyperbolicNormal`. On products each factor takes its part of ``loc`` and ``scale``.

    References:
        | Directional Statistics (Mardia and Jupp, 2000)
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        manifold: The manifold. Also geoopt's ``Lorentz`` or ``PoincareBall`` of fixed curvature,
            which become a :class:`Hyperboloid` and a :class:`PoincareBall`.
        loc: Location, ``batch_shape + manifold.event_shape``, any representative; a number will do
            on the circle.
        scale: Standard deviation before wrapping, in the units of length of the manifold; a number
            or ``batch_shape + manifold.scale_shape``: one entry for each coordinate on flat
            manifolds and in the frame on hyperbolic ones, none (isotropic) on circles, spheres and
            their quotients.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If shapes do not fit, if ``scale`` could be taken for a covariance matrix, or,
            under validation, if ``loc`` is not on the manifold or ``scale`` not positive.
        TypeError: If ``manifold`` is neither of this library nor one of those of geoopt.

    Example:
        >>> d = WrappedNormal(KleinBottle(), torch.tensor([0.05, 2.1]), torch.tensor([0.2, 0.3]))
        >>> d.log_prob(torch.tensor([3.1, -2.0]))
        tensor(0.8151)
        >>> d.expand((4,)).rsample().shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        manifold: Manifold | geoopt.Manifold,
        loc: Tensor | float,
        scale: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        loc, scale = as_tensors(loc, scale)
        manifold = as_manifold(manifold, loc.shape)
        batch_shape = _batch_shape(manifold, loc, scale)
        self.loc = loc.expand(batch_shape + manifold.event_shape)
        self.scale = scale.expand(batch_shape + manifold.scale_shape)
        base_dist = _on_cover(manifold, self.loc, self.scale)
        super().__init__(base_dist, manifold.covering, validate_args=validate_args)

    def __repr__(self) -> str:
        return (
            f"WrappedNormal({self.manifold}, {TorchDistribution.__repr__(self).partition('(')[2]}"
        )

    @property
    def arg_constraints(self) -> dict[str, Constraint]:  # type: ignore[override]
        return {"loc": self.manifold.support, "scale": self._scale_constraint}

    @property
    def _scale_constraint(self) -> Constraint:
        bounded = bounded_scales(self.manifold)
        if not any(bounded):
            return constraints.positive
        largest = [MAX_SCALE if flag else math.inf for flag in bounded]
        tiny = torch.finfo(self.scale.dtype).tiny  # an interval is closed, zero is no scale
        upper = self.scale.new_tensor(largest).reshape(self.manifold.scale_shape)
        return constraints.interval(tiny, upper)

    @property
    def mean(self) -> Tensor:
        """Intrinsic (Frechet) mean where symmetry gives it: not where the frame flips."""
        factors = getattr(self.manifold, "manifolds", (self.manifold,))
        if any(isinstance(factor, GlideQuotient) for factor in factors):
            raise NotImplementedError(
                f"WrappedNormal: no closed form of the mean on {self.manifold}"
            )
        return self.mode

    @property
    def mode(self) -> Tensor:
        """The location, as a canonical representative."""
        return self.manifold.projx(self.loc)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, where it has a closed form."""
        if isinstance(self.manifold, Euclidean):
            return self.base_dist.entropy()
        if not isinstance(self.manifold, Circle | Torus):
            raise NotImplementedError(
                f"WrappedNormal: no closed form of the entropy on {self.manifold}; "
                "-log_prob(draws).mean(0) estimates it"
            )
        kl = wrapped_normal_kl_to_uniform(self.scale)
        return self.manifold.log_volume - (kl.sum(-1) if self.manifold.ndim else kl)

    def expand(self, batch_shape: _size, _instance: Any = None) -> WrappedNormal:
        new = self._get_checked_instance(WrappedNormal, _instance)
        new.loc = self.loc.expand(Size(batch_shape) + self.manifold.event_shape)
        new.scale = self.scale.expand(Size(batch_shape) + self.manifold.scale_shape)
        return super().expand(batch_shape, _instance=new)


def bounded_scales(manifold: Manifold) -> list[bool]:
    """Tell of each scale whether it belongs to a sphere or a quotient, where it is bounded."""
    if isinstance(manifold, Product):
        return [bounded for factor in manifold.manifolds for bounded in bounded_scales(factor)]
    unbounded = isinstance(manifold, FlatManifold | HyperbolicSpace)
    return [not unbounded] * manifold.scale_shape.numel()


def _on_cover(manifold: Manifold, loc: Tensor, scale: Tensor) -> Distribution:
    """Return the normal distribution on the cover whose projection is wanted."""
    if isinstance(manifold, Product):
        sizes = [factor.scale_shape.numel() for factor in manifold.manifolds]
        scales = [
            part.reshape(part.shape[:-1] + factor.scale_shape)
            for part, factor in zip(scale.split(sizes, -1), manifold.manifolds, strict=True)
        ]
        triples = zip(manifold.manifolds, manifold.split(loc), scales, strict=True)
        return Concatenated(*(_on_cover(*triple) for triple in triples), validate_args=False)
    if isinstance(manifold, FlatManifold):
        return dist.Normal(loc, scale, validate_args=False).to_event(manifold.ndim)
    if isinstance(manifold, HyperbolicSpace):
        return HyperbolicNormal(manifold, loc, scale, validate_args=False)
    return TangentNormal(manifold.lift(loc), scale, validate_args=False)


def _batch_shape(manifold: Manifold, loc: Tensor, scale: Tensor) -> Size:
    if loc.shape[loc.dim() - manifold.ndim :] != manifold.event_shape or loc.dim() < manifold.ndim:
        raise ValueError(
            f"WrappedNormal: expected loc of a shape that ends in {tuple(manifold.event_shape)}, "
            f"the shape of a point of {manifold}, got {tuple(loc.shape)}"
        )
    batch = loc.shape[: loc.dim() - manifold.ndim]
    expected = f"scale of shape broadcastable to {tuple(batch + manifold.scale_shape)}"
    got = f"got {tuple(scale.shape)}"
    if scale.dim() == 0:
        return batch
    if not manifold.scale_shape:
        if batch and scale.shape == batch + (1,):
            raise ValueError(f"WrappedNormal: expected {expected}, {got}; drop its last dimension")
        scale_batch = scale.shape
    else:
        if scale.shape[-1:] not in (manifold.scale_shape, (1,)):
            raise ValueError(
                f"WrappedNormal: expected {expected}, one entry for each coordinate, {got}"
            )
        square = manifold.dim > 1 and scale.shape[-2:] == 2 * manifold.scale_shape
        if square and scale.dim() == len(batch) + 2:
            raise ValueError(
                f"WrappedNormal: expected {expected}, {got}, which may be a covariance matrix. On "
                "a torus push dist.MultivariateNormal forward with CoveringPushforward; on the "
                "Klein bottle and the Moebius band a full covariance depends on the lift of the "
                "location, and only standard deviations along the coordinates make sense. If "
                "a batch of scales is meant, expand loc"
            )
        scale_batch = scale.shape[:-1]
    try:
        return torch.broadcast_shapes(batch, scale_batch)
    except RuntimeError:
        raise ValueError(f"WrappedNormal: expected {expected}, {got}") from None
