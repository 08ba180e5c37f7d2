"""What the laws on spheres share that are symmetric under rotations about their location."""

from __future__ import annotations

import abc
import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.types import _size

from pyro_manifolds.distributions.arguments import as_tensors
from pyro_manifolds.manifolds import Sphere
from pyro_manifolds.manifolds.spherical import log_sphere_volume

__all__ = ["RotationalDistribution"]


class RotationalDistribution(TorchDistribution):
    r"""Law on a sphere whose density depends on :math:`\mu \cdot x` and one concentration.

    A subclass gives :meth:`rsample`, :meth:`log_prob`, :attr:`mean_resultant` and
    :meth:`kl_to_uniform`, and may narrow ``arg_constraints``. Divergences to the uniform
    law are registered for all of them.

    Args:
        loc: Location :math:`\mu`, a unit vector, shape ``batch_shape + (d,)`` with d at least 2.
        concentration: Concentration, of shape broadcastable to the batch.
        validate_args: Whether to check arguments and values.
    """

    arg_constraints = {"loc": constraints.sphere, "concentration": constraints.nonnegative}
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        loc, concentration = as_tensors(loc, concentration)
        batch_shape = _broadcast(type(self).__name__, loc.shape, concentration.shape)
        self.loc, self.concentration = loc, concentration
        if not loc.shape[:-1] == concentration.shape == batch_shape:
            self.loc = loc.expand(batch_shape + loc.shape[-1:])
            self.concentration = concentration.expand(batch_shape)
        # Checked here and not by the base class, which would go through the expanded location.
        super().__init__(batch_shape, loc.shape[-1:], validate_args=False)
        self._validate_args = type(self)._validate_args if validate_args is None else validate_args
        if self._validate_args:
            _check_norm(type(self).__name__, loc)
            self._check_concentration(concentration)

    def _check_concentration(self, concentration: Tensor) -> None:
        constraint = self.arg_constraints["concentration"]
        for bound in _extremes(concentration):
            if not constraint.check(bound) or math.isinf(bound):
                raise ValueError(
                    f"{type(self).__name__}: expected a finite concentration to satisfy "
                    f"{constraint}, got {bound:.7g}."
                )

    def _validate_sample(self, value: Tensor) -> None:
        # Of the usual value two numbers are read; anything else goes the long way to its error.
        shape = self._batch_shape + self._event_shape
        usual = (
            isinstance(value, Tensor) and value.shape[max(0, value.dim() - len(shape)) :] == shape
        )
        if not usual or not all(_is_unit(norm, value) for norm in _extreme_norms(value)):
            super()._validate_sample(value)

    @staticmethod
    def infer_shapes(loc: Size, concentration: Size = Size()) -> tuple[Size, Size]:  # type: ignore[override]
        batch_shape = torch.broadcast_shapes(loc[:-1], concentration)
        return batch_shape, Size(loc[-1:])

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

    def expand(self, batch_shape: _size, _instance: Any = None) -> RotationalDistribution:
        new = self._get_checked_instance(type(self), _instance)
        batch_shape = Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Direction of the mean, the location: a point of the sphere, not the mean vector."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """Point of the highest density, the location."""
        return self.loc

    @property
    @abc.abstractmethod
    def mean_resultant(self) -> Tensor:
        r"""Mean resultant length :math:`E\, \mu \cdot x`: the mean vector is that times loc."""

    @abc.abstractmethod
    def kl_to_uniform(self) -> Tensor:
        """Return the divergence from the uniform law of the sphere, in nats."""

    def entropy(self) -> Tensor:
        return log_sphere_volume(self.ambient_dim - 1) - self.kl_to_uniform()


def _extremes(x: Tensor) -> list[float]:
    """Return the least and the greatest entry, NaN if there is one, and nothing of nothing."""
    return [bound.item() for bound in x.detach().aminmax()] if x.numel() else []


def _extreme_norms(x: Tensor) -> list[float]:
    return _extremes(torch.linalg.vector_norm(x.detach(), dim=-1))


def _is_unit(norm: float, x: Tensor) -> bool:
    return abs(norm - 1) < 10 * torch.finfo(x.dtype).eps * x.shape[-1] ** 0.5


def _check_norm(name: str, loc: Tensor) -> None:
    for norm in _extreme_norms(loc):
        if not _is_unit(norm, loc):
            raise ValueError(
                f"{name}: expected loc of unit norm, got a norm of {norm:.9g}; divide it by its "
                f"norm, in {loc.dtype}."
            )


def _broadcast(name: str, loc: Size, concentration: Size) -> Size:
    if not loc or loc[-1] < 2:
        raise ValueError(
            f"{name}: expected loc of shape batch_shape + (d,) with d of at least 2, "
            f"got {tuple(loc)}; an angle on the circle is a VonMises."
        )
    if loc[:-1] == concentration:
        return concentration
    batch = tuple(loc[:-1])
    message = (
        f"{name}: expected concentration of shape broadcastable to "
        f"loc.shape[:-1] = {batch}, got {tuple(concentration)}"
    )
    # (B, 1) against (B,) would broadcast to (B, B) without a word.
    if batch and tuple(concentration) == (*batch, 1):
        raise ValueError(f"{message}; drop its last dimension.")
    try:
        return torch.broadcast_shapes(batch, concentration)
    except RuntimeError:
        raise ValueError(f"{message}.") from None
