"""Independent distributions laid side by side in one event."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution
from torch.types import _size

from pyro_manifolds.distributions.constraints import OnManifold, on_manifold
from pyro_manifolds.manifolds import Euclidean, Manifold, Product
from pyro_manifolds.ops.events import join_events, split_events

__all__ = ["Concatenated"]


class Concatenated(TorchDistribution):
    """Joint distribution of independent parts, flattened and concatenated along one dimension.

    The density is the product of those of the parts, with respect to the product of their
    measures. It is the base of wrapped normals on products of manifolds.

    Args:
        parts: Distributions of one batch shape, up to broadcasting.
        validate_args: Whether to check values.

    Raises:
        ValueError: If no part is given.

    Example:
        >>> d = Concatenated(dist.Normal(torch.zeros(2), 1.0).to_event(1), dist.Normal(0.0, 1.0))
        >>> d.event_shape, d.log_prob(torch.zeros(3))
        (torch.Size([3]), tensor(-2.7568))
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(self, *parts: Distribution, validate_args: bool | None = None) -> None:
        if not parts:
            raise ValueError("Concatenated: expected at least one part, got none")
        batch_shape = torch.broadcast_shapes(*(part.batch_shape for part in parts))
        self.parts = [part.expand(batch_shape) for part in parts]
        event_shape = Size([sum(math.prod(part.event_shape) for part in parts)])
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return all(part.has_rsample for part in self.parts)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Constraint:
        """Product of the manifolds of the parts; real vectors where there is none."""
        factors = [factor for part in self.parts for factor in _factors(part)]
        if all(isinstance(factor, Euclidean) for factor in factors):
            return constraints.real_vector
        return on_manifold(Product(*factors))

    def expand(self, batch_shape: _size, _instance: Any = None) -> Concatenated:
        new = self._get_checked_instance(Concatenated, _instance)
        new.parts = [part.expand(Size(batch_shape)) for part in self.parts]
        super(Concatenated, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        return self._join([part.rsample(sample_shape) for part in self.parts])

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self._join([part.sample(sample_shape) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        pieces = split_events(value, self._event_shapes)
        terms = [part.log_prob(piece) for part, piece in zip(self.parts, pieces, strict=True)]
        return torch.stack(terms).sum(0)

    @property
    def _event_shapes(self) -> list[Size]:
        return [part.event_shape for part in self.parts]

    def _join(self, values: list[Tensor]) -> Tensor:
        return join_events(values, self._event_shapes)


def _factors(part: Distribution) -> list[Manifold]:
    """Return the manifolds of the points of which an event of a part consists."""
    support = part.support
    while isinstance(support, torch.distributions.constraints.independent):
        support = support.base_constraint
    if not isinstance(support, OnManifold):
        return [Euclidean(part.event_shape.numel())]
    outer = len(part.event_shape) - support.event_dim
    return [support.manifold] * part.event_shape[:outer].numel()
