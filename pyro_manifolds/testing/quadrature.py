r"""Quadrature over manifolds: nodes and weights that integrate by Riemannian volume.

The trapezoidal rule of a smooth periodic function, and the rule of Gauss and Legendre of an
analytic one, converge faster than any power of their size: a wrapped normal of scale :math:`s`
is integrated to :math:`2 e^{-(ns)^2/2}` by ``n`` equidistant nodes of a circle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from pyro_manifolds.manifolds import HyperbolicSpace, Manifold

__all__ = [
    "Rule",
    "circle_rule",
    "gauss_rule",
    "glide_rule",
    "hyperbolic_rule",
    "line_rule",
    "product_rule",
    "quotient_rule",
    "sphere_rule",
    "torus_rule",
]

Rule: TypeAlias = tuple[Tensor, Tensor]


def gauss_rule(low: float, high: float, size: int, dtype: torch.dtype = torch.float64) -> Rule:
    """Integrate over an interval by the rule of Gauss and Legendre.

    Example:
        >>> nodes, weights = gauss_rule(0.0, 1.0, 3)
        >>> (nodes**5 * weights).sum()
        tensor(0.1667, dtype=torch.float64)
    """
    nodes, weights = np.polynomial.legendre.leggauss(size)
    half = (high - low) / 2
    x, w = low + half * (torch.from_numpy(nodes) + 1), half * torch.from_numpy(weights)
    return x.to(dtype), w.to(dtype)


def line_rule(low: float, high: float, size: int, dtype: torch.dtype = torch.float64) -> Rule:
    """Integrate, by equidistant nodes, what is periodic or vanishes at both ends."""
    step = (high - low) / size
    x = low + step * (torch.arange(size, dtype=torch.float64) + 0.5)
    return x.to(dtype), torch.full_like(x, step).to(dtype)


def circle_rule(size: int = 64, dtype: torch.dtype = torch.float64) -> Rule:
    """Integrate over all angles."""
    return line_rule(-math.pi, math.pi, size, dtype)


def product_rule(*rules: Rule) -> Rule:
    """Combine rules for flattened coordinates, laid side by side.

    Example:
        >>> nodes, weights = product_rule(circle_rule(8), gauss_rule(0, 1, 4))
        >>> nodes.shape, weights.shape
        (torch.Size([32, 2]), torch.Size([32]))
    """
    nodes, weights = rules[0]
    nodes = nodes.reshape(len(nodes), -1)
    for more_nodes, more_weights in rules[1:]:
        right = more_nodes.reshape(len(more_nodes), -1)
        pairs = torch.cartesian_prod(torch.arange(len(nodes)), torch.arange(len(right)))
        first, second = pairs.unbind(-1)
        nodes = torch.cat([nodes[first], right[second]], -1)
        weights = weights[first] * more_weights[second]
    return nodes, weights


def torus_rule(dim: int, size: int = 64, dtype: torch.dtype = torch.float64) -> Rule:
    """Integrate over a torus."""
    return product_rule(*[circle_rule(size, dtype)] * dim)


def glide_rule(across: Rule, size: int = 64) -> Rule:
    """Integrate over a Klein bottle or a Moebius band: half a turn along, a rule across.

    The integral across is periodic along with half the period, as long as ``across`` is symmetric.
    """
    return product_rule(line_rule(0, math.pi, size, across[0].dtype), across)


def sphere_rule(dim: int, size: int = 40, dtype: torch.dtype = torch.float64) -> Rule:
    """Integrate over the unit sphere in polar coordinates around the first axis.

    Gauss nodes in the angles themselves: poles of order below the dimension, at the first axis and
    its antipode, are integrated as accurately as smooth functions.
    """
    angles = [gauss_rule(0, math.pi, size) for _ in range(dim - 1)]
    grid, weights = product_rule(*angles, circle_rule(2 * size))
    columns, radius = [], torch.ones(len(grid), dtype=torch.float64)
    for k, angle in enumerate(grid.unbind(-1)[:-1]):
        columns.append(radius * angle.cos())
        radius = radius * angle.sin()
        weights = weights * angle.sin() ** (dim - 1 - k)
    columns += [radius * grid[:, -1].cos(), radius * grid[:, -1].sin()]
    return torch.stack(columns, -1).to(dtype), weights.to(dtype)


def quotient_rule(manifold: Manifold, size: int = 40, dtype: torch.dtype = torch.float64) -> Rule:
    """Integrate over a quotient of a sphere: the rule of the sphere, over the number of sheets."""
    covering = manifold.covering
    nodes, weights = sphere_rule(manifold.dim, size)
    return covering(nodes).to(dtype), (weights / covering.num_sheets).to(dtype)


def hyperbolic_rule(
    manifold: HyperbolicSpace, reach: float, size: int = 40, dtype: torch.dtype = torch.float64
) -> Rule:
    """Integrate over a cube of normal coordinates what vanishes beyond it."""
    grid, weights = product_rule(*[line_rule(-reach, reach, size)] * manifold.dim)
    r = torch.linalg.vector_norm(grid, dim=-1) / manifold.radius
    stretch = torch.where(r > 0, r.sinh() / r, 1) ** (manifold.dim - 1)
    return manifold.unembed(grid).to(dtype), (weights * stretch).to(dtype)


def total(values: Tensor, weights: Tensor, dims: Sequence[int] = (0,)) -> Tensor:
    """Return the integral of values at the nodes, which run along the first dimension."""
    return (weights.reshape((-1,) + (1,) * (values.dim() - 1)) * values).sum(tuple(dims))
