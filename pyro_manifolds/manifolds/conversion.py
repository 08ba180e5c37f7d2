"""Manifolds of geoopt as manifolds of this library."""

from __future__ import annotations

import geoopt
from torch import Size

from pyro_manifolds.manifolds.hyperboloid import Hyperboloid
from pyro_manifolds.manifolds.manifold import Manifold
from pyro_manifolds.manifolds.poincare_ball import PoincareBall

__all__ = ["as_manifold"]


def as_manifold(manifold: geoopt.Manifold, shape: Size) -> Manifold:
    """Return our manifold with the points of one of geoopt, or the manifold itself if it is ours.

    ``geoopt.Lorentz`` becomes a :class:`Hyperboloid`, ``geoopt.PoincareBall`` and
    ``geoopt.Stereographic`` of negative curvature a :class:`PoincareBall`. The curvature is read
    once, so convert outside of compiled functions.

    Args:
        manifold: The manifold.
        shape: Shape of its points, from which the dimension is read.

    Raises:
        TypeError: If there is no counterpart.
        ValueError: If the curvature is learnable, or not negative.

    Example:
        >>> from pyro_manifolds.manifolds import as_manifold
        >>> as_manifold(geoopt.Lorentz(k=4.0), torch.Size([3]))
        Hyperboloid(2, -0.25)
    """
    if isinstance(manifold, Manifold):
        return manifold
    if not isinstance(manifold, geoopt.Lorentz | geoopt.Stereographic) or not shape:
        raise TypeError(
            "as_manifold: expected a manifold of pyro_manifolds, or geoopt's Lorentz or "
            f"PoincareBall with points of some dimension, got {manifold} and {tuple(shape)}"
        )
    if any(parameter.requires_grad for parameter in manifold.parameters()):
        raise ValueError(
            f"as_manifold: expected a fixed curvature, got {type(manifold).__name__} with a "
            "learnable one, on which the support would depend"
        )
    if isinstance(manifold, geoopt.Lorentz):
        return Hyperboloid(shape[-1] - 1, -1 / float(manifold.k))
    return PoincareBall(shape[-1], float(manifold.k))
