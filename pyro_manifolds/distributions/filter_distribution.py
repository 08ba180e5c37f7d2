"""What every distribution of square filters offers."""

from __future__ import annotations

import abc

from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

__all__ = ["FilterDistribution"]


class FilterDistribution(TorchDistribution):
    """Distribution of square filters, event shape ``(kernel_size, kernel_size)``.

    The mean is zero unless a subclass says otherwise.

    Attributes:
        kernel_size: Side of the filters in pixels.
    """

    support = constraints.independent(constraints.real, 2)
    kernel_size: int

    @property
    @abc.abstractmethod
    def covariance_matrix(self) -> Tensor:
        """Covariance of the weights, row by row, ``batch_shape + (k * k, k * k)``."""

    @abc.abstractmethod
    def rescale(self, factor: Tensor | float) -> FilterDistribution:
        """Return the distribution of ``factor * w``; ``factor`` broadcasts with the batch."""

    @property
    def mean(self) -> Tensor:
        return self.covariance_matrix.new_zeros(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        return self.covariance_matrix.diagonal(dim1=-2, dim2=-1).unflatten(-1, self.event_shape)
