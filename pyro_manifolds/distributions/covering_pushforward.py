"""Distributions pushed forward through a covering."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution
from torch.types import _size

from pyro_manifolds.distributions.transforms import (
    ComposedCovering,
    Covering,
    FiniteCovering,
    FlatCovering,
)
from pyro_manifolds.manifolds import Manifold, Product
from pyro_manifolds.manifolds.glide import GlideQuotient

__all__ = ["CoveringPushforward"]


class CoveringPushforward(TorchDistribution):
    r"""Distribution of :math:`y = \pi(x)` for a covering :math:`\pi` and a known law of :math:`x`.

    With respect to the Riemannian volume of the base, the density is the sum over the fibre

    .. math:: p(y) = \sum_{x \in \pi^{-1}(y)} p_{\text{base}}(x)

    Samples are canonical representatives and inherit the pathwise gradients of the base; values
    may be any representative. The sum is exact where the fibre is finite. Where it is infinite,
    it is exact for independent normals at every scale and constant cost, and for a full covariance
    on a torus up to the resolution of the dtype; other bases can be sampled, and their density
    raises an error rather than be truncated.

    References:
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        base_dist: Distribution on the cover, with the event shape of its points.
        covering: The covering map.
        validate_args: Whether to check arguments and values.

    Raises:
        TypeError: If ``covering`` is not a covering.
        ValueError: If the event shape does not fit; if a full covariance is wrapped on a manifold
            whose frame flips, where it would depend on the choice of the lift; if a law of the
            line or of space, such as a normal, is pushed from a compact cover; or if the base
            lives on another manifold than the cover.

    Example:
        >>> base = dist.Normal(torch.tensor([0.5, 1.0]), 0.1).to_event(1)
        >>> d = CoveringPushforward(base, KleinBottle().covering)
        >>> d.log_prob(torch.tensor([0.5 + math.pi, -1.0]))
        tensor(2.7673)
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(
        self,
        base_dist: Distribution,
        covering: Covering,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(covering, Covering):
            raise TypeError(
                f"CoveringPushforward: expected covering to be a Covering, "
                f"got {type(covering).__name__}"
            )
        if base_dist.event_shape != covering.cover_shape:
            raise ValueError(
                f"CoveringPushforward: expected base_dist of event_shape "
                f"{tuple(covering.cover_shape)}, got {tuple(base_dist.event_shape)}; "
                "declare event dimensions with .to_event()"
            )
        _refuse_lift_dependence(base_dist, covering)
        _refuse_base_off_the_cover(base_dist, covering)
        self.base_dist = base_dist
        self.covering = covering
        event_shape = covering.manifold.event_shape
        super().__init__(base_dist.batch_shape, event_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        return f"CoveringPushforward({self.base_dist}, {self.covering})"

    @property
    def manifold(self) -> Manifold:
        """The manifold on which the distribution lives."""
        return self.covering.manifold

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_rsample)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Constraint:
        return self.covering.codomain

    def expand(self, batch_shape: _size, _instance: Any = None) -> CoveringPushforward:
        new = self._get_checked_instance(CoveringPushforward, _instance)
        batch_shape = Size(batch_shape)
        new.base_dist = self.base_dist.expand(batch_shape)
        new.covering = self.covering
        super(CoveringPushforward, new).__init__(
            batch_shape, self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        return self.covering(self.base_dist.rsample(sample_shape))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.covering(self.base_dist.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # The sheets of a fibre are stacked in front, so all batch dimensions must be there.
        missing = len(self.batch_shape) + self.manifold.ndim - value.dim()
        value = value.reshape((1,) * missing + value.shape)
        return self.covering.log_fibre_sum(self.base_dist, value)


def _refuse_lift_dependence(base_dist: Distribution, covering: Covering) -> None:
    full = isinstance(base_dist, torch.distributions.MultivariateNormal)
    flips = isinstance(covering, FlatCovering) and isinstance(covering.manifold, GlideQuotient)
    if full and flips and covering.num_sheets == math.inf:
        raise ValueError(
            f"CoveringPushforward: expected independent normals on {covering.manifold}, got "
            "a full covariance, which would give another distribution for another lift of the "
            "location (the frame flips across the seam); use dist.Normal(loc, scale).to_event(1)"
        )


_UNBOUNDED = (
    torch.distributions.Normal,
    torch.distributions.MultivariateNormal,
    torch.distributions.LowRankMultivariateNormal,
    torch.distributions.StudentT,
    torch.distributions.Laplace,
    torch.distributions.Cauchy,
)


def _refuse_base_off_the_cover(base_dist: Distribution, covering: Covering) -> None:
    first = covering
    while isinstance(first, ComposedCovering):
        first = first.first
    base = base_dist
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    if not isinstance(first, FiniteCovering):
        return
    if isinstance(base, _UNBOUNDED):
        raise ValueError(
            f"CoveringPushforward: expected a distribution on {first.cover}, the cover, got "
            f"{type(base).__name__}; wrap it there first, by WrappedNormal({first.cover}, ...), "
            "or push it from the universal cover"
        )
    # Products of circles are tori by another name; other manifolds are other spaces.
    manifold = getattr(base_dist, "manifold", first.cover)
    if manifold != first.cover and not isinstance(manifold, Product):
        raise ValueError(
            f"CoveringPushforward: expected a distribution on {first.cover}, the cover of "
            f"{first.manifold}, got one on {manifold}"
        )
