"""Normal distributions in a tangent space of hyperbolic space, pushed forward by geodesics."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.types import _size

from pyro_manifolds.manifolds import HyperbolicSpace

__all__ = ["HyperbolicNormal"]


class HyperbolicNormal(TorchDistribution):
    r"""Normal in the tangent space at ``loc``, mapped to hyperbolic space by geodesics.

    A vector with independent normal coordinates :math:`v_i \sim N(0, \sigma_i^2)` in the
    orthonormal frame at ``loc`` (that of the origin, carried there in parallel along the geodesic
    from the origin) is followed for its length. The map is a bijection, and the density
    with respect to the Riemannian volume is

    .. math::
        \log p(x) = \sum_i \log N(v_i; 0, \sigma_i^2) - (m - 1) \log \frac{\sinh(r/R)}{r/R},
        \quad r = |v| = d(\text{loc}, x)

    with the dimension :math:`m` and the radius of curvature :math:`R`. With equal :math:`\sigma_i`
    it does not depend on the frame. ``WrappedNormal(manifold, loc, scale)`` is the same
    distribution, and this is its base.

    Points end at ``manifold.reach``, where all draws from beyond are put: a wide distribution in
    float32 needs a :class:`~pyro_manifolds.manifolds.Hyperboloid`, and scales well below its 42 R.

    References:
        | A Wrapped Normal Distribution on Hyperbolic Space for Gradient-Based Learning (Nagano,
          Yamaguchi, Fujita and Koyama, 2019), arXiv 1902.02992

    Args:
        manifold: A hyperboloid or a ball.
        loc: Points, ``batch_shape + manifold.event_shape``.
        scale: Standard deviations, in the units of length of the manifold,
            ``batch_shape + (dim,)``.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If shapes do not fit; under validation, if ``loc`` is not on the manifold or
            ``scale`` not positive.

    Example:
        >>> from pyro_manifolds.distributions import HyperbolicNormal
        >>> loc = torch.tensor([0.6, -0.2])
        >>> d = HyperbolicNormal(PoincareBall(2), loc, torch.tensor([0.5, 0.5]))
        >>> d.log_prob(loc)
        tensor(-0.4516)
    """

    has_rsample = True

    def __init__(
        self,
        manifold: HyperbolicSpace,
        loc: Tensor,
        scale: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> None:
        for name, argument, event in (
            ("loc", loc, manifold.event_shape),
            ("scale", scale, manifold.scale_shape),
        ):
            if argument.shape[-1:] != event:
                raise ValueError(
                    f"HyperbolicNormal: expected {name} of shape batch_shape + {tuple(event)} on "
                    f"{manifold}, got {tuple(argument.shape)}"
                )
        self.manifold = manifold
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], scale.shape[:-1])
        self.loc = loc.expand(batch_shape + manifold.event_shape)
        self.scale = scale.expand(batch_shape + manifold.scale_shape)
        super().__init__(batch_shape, manifold.event_shape, validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {
            "loc": self.manifold.support,
            "scale": constraints.independent(constraints.positive, 1),
        }

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Constraint:
        return self.manifold.support

    @property
    def mean(self) -> Tensor:
        """Intrinsic mean, the location."""
        return self.loc

    def expand(self, batch_shape: _size, _instance: Any = None) -> HyperbolicNormal:
        new = self._get_checked_instance(HyperbolicNormal, _instance)
        new.manifold = self.manifold
        new.loc = self.loc.expand(Size(batch_shape) + self.manifold.event_shape)
        new.scale = self.scale.expand(Size(batch_shape) + self.manifold.scale_shape)
        super(HyperbolicNormal, new).__init__(
            Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = Size(sample_shape) + self.scale.shape
        noise = torch.randn(shape, dtype=self.scale.dtype, device=self.scale.device)
        return self.manifold.exp_frame(self.loc, self.scale * noise)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        v = self.manifold.log_frame(self.loc, value)
        normal = -0.5 * (v / self.scale).square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        return normal.sum(-1) - self.manifold.log_volume_element(v)
