"""Filters that crowd round a circle of edges."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.distributions.manifold_filter import ManifoldFilter
from pyro_manifolds.manifolds import Circle
from pyro_manifolds.ops.filters import circle_coordinates, klein_basis

__all__ = ["CircleFilter"]


class CircleFilter(ManifoldFilter):
    r"""Square filters of edges in every direction, with noise: a prior for weights.

    As :class:`KleinFilter`, where arguments and formulas are told, with the circle of edges
    :func:`~pyro_manifolds.ops.filters.circle_filters` in place of the Klein bottle, and a
    ``density`` on ``Circle()``. The density is with respect to Lebesgue measure on the weights.

    References:
        | Topological Convolutional Layers for Deep Learning (Love, Filippenko, Maroulas and
          Carlsson, 2023), arXiv 2101.05778

    Example:
        >>> d = CircleFilter(3, amplitude=1.0, noise=0.3).expand([16, 8]).to_event(2)
        >>> d.sample().shape
        torch.Size([16, 8, 3, 3])
    """

    manifold = Circle()

    _needed = {False: ((6, 11.5),), True: ((6, 11.5),)}
    _coordinates = staticmethod(circle_coordinates)

    def _basis(self) -> Tensor:
        return klein_basis(self.kernel_size, self.noise)[:2]

    @staticmethod
    def _half(like: Tensor, *counts: int) -> tuple[Tensor, Tensor]:
        (count,) = counts
        angles = torch.arange(count, dtype=like.dtype, device=like.device) * (math.pi / count)
        return angles, angles + math.pi
