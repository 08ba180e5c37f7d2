"""Guides of single sites: normals, wrapped normals and mixtures of wrapped normals."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple, TypeAlias

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Transform, biject_to, identity_transform
from torch.distributions.transforms import IndependentTransform

from pyro_manifolds.distributions import EmbeddingPushforward, WrappedNormal
from pyro_manifolds.distributions.adoption import adopt
from pyro_manifolds.distributions.constraints import OnManifold
from pyro_manifolds.distributions.transforms import ImageOf
from pyro_manifolds.distributions.wrapped_normal import bounded_scales
from pyro_manifolds.infer.autoguide.mixture import Baseline, ScoredMixture
from pyro_manifolds.manifolds import FlatManifold, Manifold, Product
from pyro_manifolds.ops.tangent_normal import MAX_SCALE

__all__ = ["EmbeddedSite", "ManifoldSite", "MixtureSite", "NormalSite", "Parameter", "image_of"]

Site: TypeAlias = dict[str, Any]

_CANDIDATES = 32


class Parameter(NamedTuple):
    """First value of a parameter, with what Pyro or geoopt must know of it."""

    value: Tensor
    event_dim: int
    constraint: Constraint = constraints.real
    manifold: Manifold | None = None


class NormalSite:
    """Guide a site by a normal in unconstrained space, mapped to the support.

    Args:
        site: The site, with its first value.
    """

    def __init__(self, site: Site) -> None:
        self.support = site["fn"].support
        # Those of the normal, whose event may have another shape.
        added = biject_to(self.support).inv(site["value"]).dim() - site["value"].dim()
        self.event_dim: int = site["fn"].event_dim + added

    def parameters(
        self, site: Site, init_scale: float, positive: Constraint
    ) -> dict[str, Parameter]:
        """Return the first values, by the name of the module that holds them."""
        # A copy: the value may be a parameter of the prior itself, which training would overwrite.
        loc = biject_to(self.support).inv(site["value"].detach()).detach().clone()
        scale = torch.full_like(loc, init_scale)
        return {
            "locs": Parameter(loc, self.event_dim),
            "scales": Parameter(scale, self.event_dim, positive),
        }

    def posterior(self, locs: Tensor, scales: Tensor) -> TorchDistribution:
        """Return the distribution of the site."""
        normal = dist.Normal(locs, scales).to_event(self.event_dim)
        transform = biject_to(self.support)
        if _is_identity(transform):
            return normal  # its divergences have closed forms
        return dist.TransformedDistribution(normal, [_cached(transform)])

    def median(self, locs: Tensor, scales: Tensor) -> Tensor:
        """Return the image of the median."""
        return biject_to(self.support)(locs)

    def quantiles(self, name: str, levels: Tensor, locs: Tensor, scales: Tensor) -> Tensor:
        """Return the images of the quantiles, stacked in front."""
        return biject_to(self.support)(_normal_quantiles(levels, locs, scales))


class ManifoldSite:
    """Guide a site by a wrapped normal.

    Args:
        site: The site, with its first value.
        manifold: The manifold on which it lives.
        embedded: Whether the location is ``unembed`` of a free vector, or a point itself.
    """

    def __init__(self, site: Site, manifold: Manifold, embedded: bool) -> None:
        self.manifold = manifold
        self.embedded = embedded
        self.outer: int = site["fn"].event_dim - manifold.ndim  # events of several points

    def parameters(
        self, site: Site, init_scale: float, positive: Constraint
    ) -> dict[str, Parameter]:
        """Return the first values, by the name of the module that holds them."""
        if init_scale >= 1 and any(bounded_scales(self.manifold)):
            raise ValueError(
                f"AutoWrappedNormal: expected init_scale < 1 for site '{site['name']}' on "
                f"{self.manifold}, where scales are bounded, got {init_scale}"
            )
        points = self._first_points(site)
        outer = self.outer + points.dim() - site["value"].dim()
        batch = points.shape[: points.dim() - self.manifold.ndim]
        shape = self.manifold.scale_shape
        periods = points.new_tensor(self.manifold.periods).reshape(shape)
        scale = (init_scale * periods).expand(batch + shape).clone()
        constraint = _scale_constraint(self.manifold, positive)
        return {
            "locs": self._location(points, outer),
            "scales": Parameter(scale, outer + len(shape), constraint),
        }

    def _first_points(self, site: Site) -> Tensor:
        return site["value"].detach().clone()

    def _location(self, points: Tensor, outer: int) -> Parameter:
        manifold = self.manifold
        if self.embedded:
            return Parameter(manifold.embed(points), outer + 1)
        return Parameter(manifold.projx(points), outer + manifold.ndim, manifold=manifold)

    def _points(self, locs: Tensor) -> Tensor:
        return self.manifold.unembed(locs) if self.embedded else locs

    def posterior(self, locs: Tensor, scales: Tensor) -> TorchDistribution:
        """Return the distribution of the site."""
        return WrappedNormal(self.manifold, self._points(locs), scales).to_event(self.outer)

    def median(self, locs: Tensor, scales: Tensor) -> Tensor:
        """Return the location, as a canonical point."""
        return self.manifold.projx(self._points(locs))

    def quantiles(self, name: str, levels: Tensor, locs: Tensor, scales: Tensor) -> Tensor:
        """Return the images of the quantiles on the cover of a flat manifold."""
        manifold = self.manifold
        if not _is_flat(manifold):
            raise NotImplementedError(
                f"AutoWrappedNormal: expected a flat manifold for quantiles of '{name}', got "
                f"{manifold}; get_posterior('{name}') has the location and the scale, and "
                "get_posterior of another site its quantiles, as icdf"
            )
        return manifold.covering(_normal_quantiles(levels, self._points(locs), scales))


class EmbeddedSite(ManifoldSite):
    """Guide a site on the image of a manifold by a wrapped normal pushed through the embedding.

    Args:
        site: The site, with its first value.
        image: The image.
        embedded: Whether the location is ``unembed`` of a free vector, or a point itself.
    """

    def __init__(self, site: Site, image: ImageOf, embedded: bool) -> None:
        assert isinstance(image.domain, OnManifold)
        super().__init__(site, image.domain.manifold, embedded)
        self.embedding = image.embedding
        self.outer = site["fn"].event_dim - image.event_dim

    def _first_points(self, site: Site) -> Tensor:
        return self.embedding.inv(site["value"].detach()).clone()

    def posterior(self, locs: Tensor, scales: Tensor) -> TorchDistribution:
        """Return the distribution of the site."""
        law = WrappedNormal(self.manifold, self._points(locs), scales)
        return EmbeddingPushforward(law, self.embedding).to_event(self.outer)

    def median(self, locs: Tensor, scales: Tensor) -> Tensor:
        """Return the image of the location."""
        return self.embedding(super().median(locs, scales))

    def quantiles(self, name: str, levels: Tensor, locs: Tensor, scales: Tensor) -> Tensor:
        """Return the images of the quantiles on the cover of a flat manifold."""
        return self.embedding(super().quantiles(name, levels, locs, scales))


class MixtureSite(ManifoldSite):
    """Guide a site by a mixture of wrapped normals.

    Args:
        site: The site, with its first value.
        manifold: The manifold on which it lives.
        embedded: Whether locations are ``unembed`` of free vectors, or points themselves.
        num_components: Number of components, at least two.
    """

    def __init__(
        self, site: Site, manifold: Manifold, embedded: bool, num_components: int
    ) -> None:
        super().__init__(site, manifold, embedded)
        self.num_components = num_components
        self.baseline = Baseline()

    def parameters(
        self, site: Site, init_scale: float, positive: Constraint
    ) -> dict[str, Parameter]:
        """Return the first values, by the name of the module that holds them."""
        value, event_dim = site["value"], site["fn"].event_dim
        batch = value.shape[: value.dim() - event_dim]
        weights = value.new_full(batch + (self.num_components,), 1 / self.num_components)
        return {
            **super().parameters(site, init_scale, positive),
            "weights": Parameter(weights, 1, constraints.simplex),
        }

    def _first_points(self, site: Site) -> Tensor:
        """Add, to the first value, draws of the prior that are far from each other."""
        value, fn = site["value"].detach(), adopt(site["fn"])
        assert fn is not None
        candidates, chosen = fn.sample((_CANDIDATES,)).detach(), [value]
        # Sequential choice of what is farthest from all chosen before.
        nearest = value.new_full((), math.inf)
        for _ in range(1, self.num_components):
            squares = self.manifold.dist(chosen[-1], candidates).square()
            nearest = torch.minimum(nearest, sum_rightmost(squares, self.outer))
            stacked = candidates.movedim(0, -1 - fn.event_dim)
            chosen.append(_select(stacked, nearest.argmax(0), fn.event_dim))
        return torch.stack(chosen, -1 - fn.event_dim)

    def posterior(  # type: ignore[override]
        self, locs: Tensor, scales: Tensor, weights: Tensor
    ) -> TorchDistribution:
        """Return the distribution of the site."""
        mixture = ScoredMixture(dist.Categorical(weights), super().posterior(locs, scales))
        mixture.baseline = self.baseline
        return mixture

    def median(  # type: ignore[override]
        self, locs: Tensor, scales: Tensor, weights: Tensor
    ) -> Tensor:
        """Return the location of the heaviest component, as a canonical point."""
        points = super().median(locs, scales)
        return _select(points, weights.argmax(-1), self.outer + self.manifold.ndim)

    def quantiles(  # type: ignore[override]
        self, name: str, levels: Tensor, locs: Tensor, scales: Tensor, weights: Tensor
    ) -> Tensor:
        """Refuse: components have no common lift to the cover."""
        raise NotImplementedError(
            f"AutoWrappedNormal: expected one component for quantiles of '{name}', got "
            f"{self.num_components}, which have no common lift to a line; draw from "
            f"get_posterior('{name}'), and read quantiles off distances to a point of your choice"
        )


def image_of(support: Constraint) -> ImageOf | None:
    """Return the image of a manifold that a support is, or consists of, if so."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, ImageOf) and isinstance(support.domain, OnManifold):
        return support
    return None


def _is_flat(manifold: Manifold) -> bool:
    if isinstance(manifold, Product):
        return all(map(_is_flat, manifold.manifolds))
    return isinstance(manifold, FlatManifold)


def _select(stacked: Tensor, index: Tensor, event_dim: int) -> Tensor:
    """Choose one of those stacked to the left of the event dimensions."""
    dim = stacked.dim() - event_dim - 1
    index = index.reshape(index.shape + (1,) * (event_dim + 1))
    return stacked.take_along_dim(index, dim).squeeze(dim)


def _normal_quantiles(levels: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    levels = levels.to(loc).reshape((-1,) + (1,) * loc.dim())
    return dist.Normal(loc, scale).icdf(levels)


def _scale_constraint(manifold: Manifold, positive: Constraint) -> Constraint:
    """Bound the scales where WrappedNormal does."""
    flags = bounded_scales(manifold)
    runs = [(flag, len(list(run))) for flag, run in itertools.groupby(flags)]
    parts = [constraints.interval(0.0, MAX_SCALE) if flag else positive for flag, _ in runs]
    return parts[0] if len(parts) == 1 else constraints.cat(parts, -1, [n for _, n in runs])


def _is_identity(transform: Transform) -> bool:
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return bool(transform == identity_transform)


def _cached(transform: Transform) -> Transform:
    """Remember the last argument, so that no inverse is taken where it loses precision."""
    try:
        return transform.with_cache()
    except NotImplementedError:
        return transform
