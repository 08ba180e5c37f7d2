"""Complex distributions, as distributions of real and imaginary parts."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Normal, TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution, Independent
from torch.types import _size

from pyro_manifolds.distributions.complex_constraints import complex as complex_numbers
from pyro_manifolds.distributions.complex_normal import ComplexNormal
from pyro_manifolds.distributions.transforms.complex import RealToComplex

__all__ = ["RealView", "is_complex", "real_view"]

_PAIRS = RealToComplex()


class RealView(TorchDistribution):
    """Distribution of the real and imaginary parts of a complex distribution.

    They are the last dimension of the event. The map from one to the other keeps all lengths, so
    the density is the same.

    Args:
        base_dist: Distribution of complex numbers, or of arrays of them.
        validate_args: Whether to check arguments and values.

    Raises:
        TypeError: If ``base_dist`` has another support than complex numbers.

    Example:
        >>> from pyro_manifolds.distributions import ComplexNormal
        >>> from pyro_manifolds.distributions.real_view import RealView
        >>> base = ComplexNormal(torch.zeros(3, dtype=torch.cfloat), 1.0, 0.5j)
        >>> d = RealView(base.to_event(1))
        >>> d.event_shape, d.mean
        (torch.Size([3, 2]), tensor([[0., 0.],
                [0., 0.],
                [0., 0.]]))
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(self, base_dist: Distribution, *, validate_args: bool | None = None) -> None:
        if not is_complex(base_dist):
            raise TypeError(
                "RealView: expected a distribution of complex numbers, got "
                f"{type(base_dist).__name__}"
            )
        self.base_dist = base_dist
        event_shape = base_dist.event_shape + Size([2])
        super().__init__(base_dist.batch_shape, event_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        return f"RealView({self.base_dist})"

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_rsample)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return _PAIRS.inv(self.base_dist.mean)

    def expand(self, batch_shape: _size, _instance: Any = None) -> RealView:
        new = self._get_checked_instance(RealView, _instance)
        new.base_dist = self.base_dist.expand(Size(batch_shape))
        super(RealView, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = Size()) -> Tensor:
        return _PAIRS.inv(self.base_dist.rsample(Size(sample_shape)))

    def sample(self, sample_shape: _size = Size()) -> Tensor:
        with torch.no_grad():
            return _PAIRS.inv(self.base_dist.sample(Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.base_dist.log_prob(_PAIRS(value))

    def entropy(self) -> Tensor:
        return self.base_dist.entropy()


def real_view(law: Any) -> TorchDistribution:
    """Return the distribution of real and imaginary parts, a normal one of proper numbers.

    Args:
        law: Distribution with the support of complex numbers, or of arrays of them.

    Raises:
        TypeError: If the support is another.

    Example:
        >>> from pyro_manifolds.distributions import ComplexNormal
        >>> from pyro_manifolds.distributions.real_view import real_view
        >>> real_view(ComplexNormal(torch.tensor([1 + 2j]), 1.0)).base_dist.scale
        tensor([[0.7071, 0.7071]])
    """
    base, outer = law, 0
    while isinstance(base, Independent):
        base, outer = base.base_dist, outer + base.reinterpreted_batch_ndims
    if isinstance(base, ComplexNormal) and base.circularity is None:
        scale = base.scale.unsqueeze(-1) / math.sqrt(2)
        return Normal(_PAIRS.inv(base.loc), scale).to_event(outer + 1)
    return RealView(law)


def is_complex(law: Distribution) -> bool:
    """Tell whether draws are complex numbers without a constraint, or arrays of them."""
    try:
        support: Any = law.support
    except NotImplementedError:
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(complex_numbers))
