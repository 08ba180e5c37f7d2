"""Normal distributions in a tangent space of the sphere, pushed forward by the exponential map."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.types import _size

from pyro_manifolds.manifolds import Sphere
from pyro_manifolds.ops.tangent_normal import MAX_SCALE, tangent_normal_log_prob

__all__ = ["TangentNormal"]


class TangentNormal(TorchDistribution):
    r"""Isotropic normal in the tangent space at ``loc``, mapped to the sphere by geodesics.

    The density with respect to the surface measure counts every preimage,

    .. math::
        p(x) = (2\pi\sigma^2)^{-m/2} \sum_{k \in \mathbb{Z}} e^{-(\theta + 2\pi k)^2 / 2\sigma^2}
            \left(\frac{|\theta + 2\pi k|}{\sin \theta}\right)^{m-1}

    with :math:`\theta` the angle to ``loc`` and :math:`m` the dimension of the sphere. For
    :math:`m \ge 2` it does not tend to the uniform distribution for large scales, and it has
    (integrable) poles at ``loc`` and its antipode, with a weight of
    :math:`e^{-\pi^2 / 2\sigma^2}`: scales above one radian are rarely what is wanted.
    ``WrappedNormal(Sphere(m), loc, scale)`` is the same distribution, and this is its base.

    Args:
        loc: Unit vectors, ``batch_shape + (m + 1,)``.
        scale: Standard deviation in radians, ``batch_shape``, in (0, 2 pi].
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: Under validation, if ``loc`` is not of unit length or ``scale`` out of range.

    Example:
        >>> d = TangentNormal(torch.tensor([1.0, 0.0, 0.0]), torch.tensor(0.5))
        >>> d.log_prob(torch.tensor([0.0, 1.0, 0.0]))
        tensor(-4.9348)
    """

    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None) -> None:
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], scale.shape)
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        self.scale = scale.expand(batch_shape)
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)

    @property
    def manifold(self) -> Sphere:
        """The sphere on which the distribution lives."""
        return Sphere(self.event_shape[0] - 1)

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        tiny = torch.finfo(self.scale.dtype).tiny  # an interval is closed, zero is no scale
        return {"loc": self.manifold.support, "scale": constraints.interval(tiny, MAX_SCALE)}

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Constraint:
        return self.manifold.support

    @property
    def mean(self) -> Tensor:
        """Intrinsic mean, the location."""
        return self.loc

    @staticmethod
    def infer_shapes(loc: Size, scale: Size = Size()) -> tuple[Size, Size]:  # type: ignore[override]
        return torch.broadcast_shapes(loc[:-1], scale), Size(loc[-1:])

    def expand(self, batch_shape: _size, _instance: Any = None) -> TangentNormal:
        new = self._get_checked_instance(TangentNormal, _instance)
        new.loc = self.loc.expand(Size(batch_shape) + self.event_shape)
        new.scale = self.scale.expand(batch_shape)
        super(TangentNormal, new).__init__(
            Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.manifold.expmap(
            self.loc, self.scale.unsqueeze(-1) * self.manifold.proju(self.loc, noise)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        angle = self.manifold.dist(self.loc, value)
        return tangent_normal_log_prob(angle, self.scale, self.manifold.dim)
