"""Square filters that form a Klein bottle, and the circle of edges in it."""

from __future__ import annotations

import math
import operator
from typing import NamedTuple, SupportsIndex

import torch
from torch import Tensor

from pyro_manifolds.ops.angles import parity, wrap

__all__ = [
    "NearestFilters",
    "check_kernel_size",
    "circle_coordinates",
    "circle_filters",
    "klein_basis",
    "klein_coordinates",
    "klein_filters",
    "nearest_klein_filters",
    "unit_filters",
]


def klein_filters(points: Tensor, kernel_size: int) -> Tensor:
    r"""Return the filters that points of the Klein bottle stand for.

    On the square :math:`[-1, 1]^2`, with :math:`x` to the right and :math:`y` up,

    .. math::
        F(t_1, t_2)(x, y) = \sin t_2 \, s + \cos t_2 \, (2 s^2 - 1),
        \qquad s = x \cos t_1 + y \sin t_1

    so that :math:`F(t_1 + \pi, -t_2) = F(t_1, t_2)` and :math:`F(t_1, t_2 + \pi) =
    -F(t_1, t_2)`. At :math:`t_2 = \pm \pi/2` it is an edge, at 0 or :math:`\pi` a line, across
    the direction :math:`t_1`. A weight is the exact integral over its cell of the square, row 0
    at the top.

    References:
        | On the Local Behavior of Spaces of Natural Images (Carlsson, Ishkhanov, de Silva and
          Zomorodian, 2008), doi 10.1007/s11263-007-0056-x
        | Topological Convolutional Layers for Deep Learning (Love, Filippenko, Maroulas and
          Carlsson, 2023), arXiv 2101.05778

    Args:
        points: Angles in radians, shape ``batch + (2,)``, of any representatives.
        kernel_size: Side in pixels, odd and at least 3.

    Returns:
        Shape ``batch + (kernel_size, kernel_size)``.

    Raises:
        ValueError: If the shape of ``points`` or ``kernel_size`` is wrong.

    Example:
        >>> from pyro_manifolds.ops.filters import klein_filters
        >>> klein_filters(torch.tensor([0.0, math.pi / 2]), 3).round(decimals=4)
        tensor([[-0.2963,  0.0000,  0.2963],
                [-0.2963,  0.0000,  0.2963],
                [-0.2963,  0.0000,  0.2963]])
    """
    if points.shape[-1:] != (2,):
        raise ValueError(
            f"klein_filters: expected points of shape (..., 2), got {tuple(points.shape)}"
        )
    basis = klein_basis(kernel_size, points)
    return (klein_coordinates(points) @ basis).unflatten(-1, (kernel_size, kernel_size))


def circle_filters(angles: Tensor, kernel_size: int) -> Tensor:
    r"""Return the edges across given directions: :func:`klein_filters` at :math:`t_2 = \pi/2`.

    Args:
        angles: Directions :math:`t_1` in radians, shape ``batch``.
        kernel_size: Side in pixels, odd and at least 3.

    Returns:
        Shape ``batch + (kernel_size, kernel_size)``.

    Raises:
        ValueError: If ``kernel_size`` is wrong.

    Example:
        >>> from pyro_manifolds.ops.filters import circle_filters
        >>> circle_filters(torch.tensor(math.pi / 2), 3)[::2, 1]  # light above, dark below
        tensor([ 0.2963, -0.2963])
    """
    basis = klein_basis(kernel_size, angles)[:2]
    return (circle_coordinates(angles) @ basis).unflatten(-1, (kernel_size, kernel_size))


def klein_coordinates(points: Tensor) -> Tensor:
    r"""Return the coordinates of filters in :func:`klein_basis`.

    They are :math:`\sin t_2 (\cos t_1, \sin t_1)` and
    :math:`\cos t_2 (\cos 2 t_1, \sin 2 t_1, 1)`.

    Args:
        points: Angles in radians, shape ``batch + (2,)``.

    Returns:
        Shape ``batch + (5,)``.
    """
    t1, t2 = points.unbind(-1)
    edge, line = t2.sin(), t2.cos()
    double = 2 * t1
    return torch.stack(
        [edge * t1.cos(), edge * t1.sin(), line * double.cos(), line * double.sin(), line], -1
    )


def circle_coordinates(angles: Tensor) -> Tensor:
    """Return the coordinates of edges in the first two rows of :func:`klein_basis`.

    Args:
        angles: Directions in radians, shape ``batch``.

    Returns:
        Shape ``batch + (2,)``.
    """
    return torch.stack([angles.cos(), angles.sin()], -1)


def klein_basis(kernel_size: int, like: Tensor) -> Tensor:
    r"""Return the five filters of which those of the Klein bottle are linear combinations.

    The integrals of :math:`x, y, x^2 - y^2, 2 x y` and :math:`x^2 + y^2 - 1` over the cells.

    Args:
        kernel_size: Side in pixels, odd and at least 3.
        like: Tensor whose dtype and device the result gets.

    Returns:
        Shape ``(5, kernel_size * kernel_size)``.

    Raises:
        ValueError: If ``kernel_size`` is wrong.
    """
    kernel_size = check_kernel_size("klein_filters", kernel_size)
    half, side = kernel_size // 2, 2 / kernel_size
    steps = side * torch.arange(-half, half + 1, dtype=like.dtype, device=like.device)
    x, y = steps.expand(kernel_size, -1), -steps.unsqueeze(-1).expand(-1, kernel_size)
    # The mean of a square over a cell is that at its centre and a twelfth of the side squared.
    bowl = x.square() + y.square() + (side**2 / 6 - 1)
    basis = torch.stack([x, y, x.square() - y.square(), 2 * x * y, bowl])
    return side**2 * basis.flatten(-2)


def unit_filters(filters: Tensor) -> Tensor:
    """Subtract the mean of each filter and divide by the Euclidean norm of what is left.

    Args:
        filters: Shape ``batch + (height, width)``, none of them constant.

    Example:
        >>> from pyro_manifolds.ops.filters import unit_filters
        >>> unit_filters(torch.tensor([[1.0, 3.0], [3.0, 1.0]]))
        tensor([[-0.5000,  0.5000],
                [ 0.5000, -0.5000]])
    """
    centred = filters - filters.mean((-2, -1), keepdim=True)
    return centred / torch.linalg.vector_norm(centred, dim=(-2, -1), keepdim=True)


class NearestFilters(NamedTuple):
    """Where filters lie on the Klein bottle.

    Attributes:
        points: Angles of the nearest filters, shape ``batch + (2,)``, canonical.
        cosines: Cosines of the angles to them, between 0 and 1, shape ``batch``.
    """

    points: Tensor
    cosines: Tensor


def nearest_klein_filters(filters: Tensor) -> NearestFilters:
    """Find the points of the Klein bottle whose filters have the most similar directions.

    Means and norms do not matter: all are compared as :func:`unit_filters`. A grid over the
    surface is refined round its best node, to the precision of the cosine: angles are known to
    about 1e-4 in float32 and 1e-8 in float64.

    Args:
        filters: Shape ``batch + (k, k)``, k odd and at least 3, none of them constant.

    Raises:
        ValueError: If the shape is wrong.

    Example:
        >>> from pyro_manifolds.ops.filters import nearest_klein_filters
        >>> nearest = nearest_klein_filters(klein_filters(torch.tensor([1.0, 2.0]), 5))
        >>> nearest.points.round(decimals=2)
        tensor([1., 2.])
    """
    size = filters.shape[-1]
    if filters.dim() < 2 or filters.shape[-2] != size:
        raise ValueError(
            f"nearest_klein_filters: expected filters of shape (..., k, k), "
            f"got {tuple(filters.shape)}"
        )
    check_kernel_size("nearest_klein_filters", size)
    directions = unit_filters(filters).flatten(-2).reshape(-1, size**2)
    nodes = 48
    step = math.pi / nodes
    angles = torch.arange(2 * nodes, dtype=filters.dtype, device=filters.device) * step
    grid = torch.cartesian_prod(angles[:nodes], angles - math.pi)
    best = (directions @ _unit_klein(grid, size).mT).argmax(-1)
    points = grid[best]
    around = torch.cartesian_prod(*[torch.linspace(-1, 1, 5).to(filters)] * 2)
    for level in range(24):
        near = points.unsqueeze(-2) + step / 2**level * around
        cosines = (_unit_klein(near, size) @ directions.unsqueeze(-1)).squeeze(-1)
        found, best = cosines.max(-1)
        points = near.take_along_dim(best[:, None, None], -2).squeeze(-2)
    return NearestFilters(
        _canonical(points).reshape(*filters.shape[:-2], 2), found.reshape(filters.shape[:-2])
    )


def check_kernel_size(caller: str, kernel_size: int) -> int:
    """Return the side as an ``int``, and refuse one that is even or below three.

    Raises:
        ValueError: If so.
    """
    if (
        not isinstance(kernel_size, SupportsIndex)
        or operator.index(kernel_size) < 3
        or kernel_size % 2 == 0
    ):
        raise ValueError(
            f"{caller}: expected kernel_size to be odd and at least 3, got {kernel_size}"
        )
    return operator.index(kernel_size)


def _unit_klein(points: Tensor, size: int) -> Tensor:
    return unit_filters(klein_filters(points, size)).flatten(-2)


def _canonical(points: Tensor) -> Tensor:
    t1, t2 = points.unbind(-1)
    half_turns = torch.floor(t1 / math.pi)
    return torch.stack([t1 - math.pi * half_turns, wrap(parity(half_turns) * t2)], -1)
