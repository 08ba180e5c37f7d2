"""Quadrature over the latent space of a generative model."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pyro_manifolds.manifolds import Circle, Euclidean, KleinBottle, Manifold, Sphere, Torus

__all__ = ["latent_nodes"]

_REACH = 6.0  # beyond, a standard normal variable has a probability of 2e-9


def latent_nodes(
    manifold: Manifold,
    size: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Return points and log-weights of sum one, for integrals over the usual latent law.

    The law is uniform on compact manifolds and standard normal on Euclidean ones. The trapezoidal
    rule, and that of Gauss along the axis of a sphere, converge faster than any power.

    Args:
        manifold: Circle, torus, Klein bottle, two-sphere or Euclidean space.
        size: Number of nodes along each full turn or line; half as many along half a turn. Even.
        dtype: Type of the result, torch's default type if not given.
        device: Device of the result.

    Returns:
        Points of shape ``(n,) + manifold.event_shape`` and log-weights of shape ``(n,)``.

    Raises:
        NotImplementedError: If the manifold is another one.
        ValueError: If ``size`` is not even and at least 4.

    Example:
        >>> from pyro_manifolds.nn.latent_nodes import latent_nodes
        >>> points, log_weights = latent_nodes(KleinBottle(), 16)
        >>> points.shape, log_weights.logsumexp(0).round(decimals=4).abs()
        (torch.Size([128, 2]), tensor(0.))
    """
    if size < 4 or size % 2:
        raise ValueError(f"latent_nodes: expected size to be even and >= 4, got {size}")
    if isinstance(manifold, (Circle, Torus, KleinBottle)):
        points = _grid([_turn(period, size) for period in manifold.periods])
        log_weights = torch.zeros(len(points), dtype=torch.float64)
    elif isinstance(manifold, Euclidean):
        line = torch.linspace(-_REACH, _REACH, size, dtype=torch.float64)
        points = _grid([line] * manifold.dim)
        log_weights = -0.5 * points.square().sum(-1)
    elif isinstance(manifold, Sphere) and manifold.dim == 2:
        heights, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(size // 2))
        turn = _turn(2 * math.pi, size)
        height, angle = _grid([heights, turn]).unbind(-1)
        radius = (1 - height.square()).sqrt()
        points = torch.stack([height, radius * angle.cos(), radius * angle.sin()], -1)
        log_weights = weights.log().repeat_interleave(size)
    else:
        raise NotImplementedError(
            f"latent_nodes: expected a circle, torus, Klein bottle, two-sphere or Euclidean "
            f"space, got {manifold}; bound the marginal density by an ELBO there"
        )
    points = points.reshape((len(log_weights), *manifold.event_shape))
    return points.to(device, dtype or torch.get_default_dtype()), log_weights.log_softmax(0).to(
        device, dtype or torch.get_default_dtype()
    )


def _turn(period: float, size: int) -> Tensor:
    number = round(size * period / (2 * math.pi))
    return torch.arange(number, dtype=torch.float64) * (period / number)


def _grid(sides: list[Tensor]) -> Tensor:
    return torch.cartesian_prod(*sides).reshape(-1, len(sides))
