"""The uniform distribution on a compact manifold."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.types import _size

from pyro_manifolds.manifolds import Manifold

__all__ = ["ManifoldUniform"]


class ManifoldUniform(TorchDistribution):
    r"""Uniform distribution on a manifold of finite volume: density :math:`1 / \text{vol}(M)`.

    The density is with respect to the Riemannian volume, in any dtype and on any device; samples
    are canonical representatives.

    Args:
        manifold: The manifold.
        dtype: Type of the samples, torch's default type if not given.
        device: Device of the samples, torch's default device if not given.
        validate_args: Whether to check values.

    Raises:
        ValueError: If the volume of the manifold is infinite.

    Example:
        >>> d = ManifoldUniform(KleinBottle())
        >>> d.log_prob(torch.zeros(2))
        tensor(-2.9826)
        >>> d.sample((3,)).shape
        torch.Size([3, 2])
    """

    arg_constraints: dict[str, Constraint] = {}
    has_rsample = True

    def __init__(
        self,
        manifold: Manifold,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not manifold.is_compact:
            raise ValueError(
                f"ManifoldUniform: expected a manifold of finite volume, got {manifold}"
            )
        self.manifold = manifold
        self.dtype = dtype
        self.device = device
        super().__init__(Size(), manifold.event_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        return f"ManifoldUniform({self.manifold})"

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Constraint:
        return self.manifold.support

    def expand(self, batch_shape: _size, _instance: Any = None) -> ManifoldUniform:
        new = self._get_checked_instance(ManifoldUniform, _instance)
        new.manifold, new.dtype, new.device = self.manifold, self.dtype, self.device
        super(ManifoldUniform, new).__init__(
            Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        sample = self.manifold.random_uniform(shape, dtype=self.dtype, device=self.device)
        return sample.as_subclass(Tensor)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        batch = value.shape[: value.dim() - self.manifold.ndim]
        shape = torch.broadcast_shapes(batch, self.batch_shape)
        return value.new_full(shape, -self.manifold.log_volume)

    def entropy(self) -> Tensor:
        entropy = torch.tensor(self.manifold.log_volume, dtype=self.dtype, device=self.device)
        return entropy.expand(self.batch_shape)
