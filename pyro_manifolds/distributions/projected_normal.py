"""The direction of a normal vector, on spheres of any dimension."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.types import _size

from pyro_manifolds.manifolds import Sphere
from pyro_manifolds.manifolds.spherical import log_sphere_volume
from pyro_manifolds.ops.arcs import unit
from pyro_manifolds.ops.projected_normal import (
    kl_to_uniform,
    log_radial_integral,
    mean_resultant,
)

__all__ = ["ProjectedNormal"]


class ProjectedNormal(TorchDistribution):
    r"""Projected normal law on the unit sphere of :math:`\mathbb{R}^d`, for any d.

    The law of :math:`x = z / |z|` with :math:`z \sim N(c, I_d)`; with :math:`t = c \cdot x` its
    density with respect to the surface measure is

    .. math::
        p(x) = (2 \pi)^{-d/2} e^{-(|c|^2 - t^2) / 2} \int_0^\infty s^{d-1} e^{-(s - t)^2 / 2} ds

    in ambient coordinates: values are unit vectors. The law is uniform at :math:`c = 0`, and has
    no constraint on its parameter. Its tails are those of a normal law up to the equator of c; at
    the antipode the density is positive, and precise. The gradient of a draw is of order
    :math:`1 / |z|`: at :math:`d = 2` and :math:`c = 0` its mean exists, but not its variance.

    :class:`pyro.distributions.ProjectedNormal` is the same law, by the same name and argument; its
    density exists for d up to 4, and is wrong near the antipode.

    References:
        | Projected Multivariate Linear Models for Directional Data (Presnell, Morrison and
          Littell, 1998)

    Args:
        concentration: Location and strength in one vector :math:`c`, shape ``batch_shape + (d,)``
            with d at least 2.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If d is less than 2, or if validation is on and an entry is NaN.

    Example:
        >>> d = ProjectedNormal(torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> d.batch_shape, d.event_shape
        (torch.Size([2]), torch.Size([3]))
        >>> d.log_prob(torch.tensor([0.0, 0.0, -1.0]))
        tensor([-6.9932, -2.5310])
        >>> d.mean_resultant
        tensor([0.7699, 0.0000])
    """

    arg_constraints = {"concentration": constraints.real_vector}
    has_rsample = True

    def __init__(self, concentration: Tensor, *, validate_args: bool | None = None) -> None:
        concentration = torch.as_tensor(concentration)
        if not concentration.is_floating_point():
            concentration = concentration.to(torch.get_default_dtype())
        shape = concentration.shape
        if not shape or shape[-1] < 2:
            raise ValueError(
                "ProjectedNormal: expected concentration of shape batch_shape + (d,) with d of at "
                f"least 2, got {tuple(shape)}."
            )
        self.concentration = concentration
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @staticmethod
    def infer_shapes(concentration: Size) -> tuple[Size, Size]:  # type: ignore[override]
        return Size(concentration[:-1]), Size(concentration[-1:])

    @property
    def ambient_dim(self) -> int:
        """Dimension d of the space that the sphere lies in."""
        return self.event_shape[0]

    @property
    def manifold(self) -> Sphere:
        """The sphere on which the law lives."""
        return Sphere(self.ambient_dim - 1)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The sphere, with its way in from the ambient space."""
        return self.manifold.support

    def expand(self, batch_shape: _size, _instance: Any = None) -> ProjectedNormal:
        new = self._get_checked_instance(ProjectedNormal, _instance)
        batch_shape = Size(batch_shape)
        new.concentration = self.concentration.expand(batch_shape + self.event_shape)
        super(ProjectedNormal, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Direction of the mean: of the concentration, or the first axis where that is zero."""
        return unit(self.concentration)

    @property
    def mode(self) -> Tensor:
        """Point of the highest density, the same as :attr:`mean`."""
        return self.mean

    @property
    def mean_resultant(self) -> Tensor:
        """Mean resultant length, that of the mean vector, whose direction is :attr:`mean`."""
        return mean_resultant(self._length(), self.ambient_dim)

    def _length(self) -> Tensor:
        return torch.linalg.vector_norm(self.concentration, dim=-1)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        c = self.concentration
        z = c + torch.randn(shape, dtype=c.dtype, device=c.device)
        return z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        along = (self.concentration * value).sum(-1)
        across = self.concentration - along.unsqueeze(-1) * value
        log_ratio = log_radial_integral(along, self.ambient_dim) - 0.5 * across.square().sum(-1)
        return log_ratio - log_sphere_volume(self.ambient_dim - 1)

    def kl_to_uniform(self) -> Tensor:
        """Return the divergence from the uniform law of the sphere, in nats.

        A sum of a few thousand terms per distribution, exact to 1e-9 in float64.
        """
        return kl_to_uniform(self._length(), self.ambient_dim)

    def entropy(self) -> Tensor:
        return log_sphere_volume(self.ambient_dim - 1) - self.kl_to_uniform()
