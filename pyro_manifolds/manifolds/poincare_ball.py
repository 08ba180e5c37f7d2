"""Hyperbolic space as a ball with the conformal metric of Poincaré."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.hyperbolic_space import HyperbolicSpace

__all__ = ["PoincareBall"]


class PoincareBall(HyperbolicSpace):
    r"""Hyperbolic space :math:`H^n` as the open ball of radius :math:`R`, conformally.

    A point is a vector of event shape ``(dim,)``, shorter than the radius of curvature
    :math:`R = 1 / \sqrt{-\text{curvature}}`; the metric is that of space times
    :math:`\lambda^2`, :math:`\lambda = 2 / (1 - |x|^2 / R^2)`. These are the points of
    ``geoopt.PoincareBall(c=-curvature)``. Densities are with respect to the Riemannian volume
    :math:`\lambda^n dx`; with respect to :math:`dx` they are :math:`n \log \lambda` larger.

    Coordinates crowd at the boundary: a rounding moves a point at the distance :math:`r` by
    :math:`\epsilon e^{r/R} R / 2`, also to and fro, so points end at a distance of 14 R in float32
    and 34 R in float64 (in geoopt 6 R and 12 R). :class:`Hyperboloid` keeps the distance from the
    origin much further out.

    Args:
        dim: Dimension :math:`n`, at least one.
        curvature: Sectional curvature, a negative number.

    Raises:
        ValueError: If ``dim`` is not positive or ``curvature`` not negative and finite.
        TypeError: If ``curvature`` requires a gradient.

    Example:
        >>> ball = PoincareBall(2)
        >>> ball.dist(torch.zeros(2), torch.tensor([0.6, 0.0]))
        tensor(1.3863)
        >>> ball.unembed(Hyperboloid(2).embed(torch.tensor([1.25, 0.75, 0.0])))
        tensor([0.3333, 0.0000])
    """

    name = "PoincareBall"

    def __init__(self, dim: int, curvature: float = -1.0) -> None:
        super().__init__(dim, curvature)
        self.event_shape = Size([dim])

    def reach(self, dtype: torch.dtype) -> float:
        """Return the distance of points some ten roundings from the boundary."""
        return self.radius * (-math.log(torch.finfo(dtype).eps) - 2)

    def _halve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = x / self.radius
        return half, 1 - half.square().sum(-1, keepdim=True)

    def _gap(self, x: Tensor, y: Tensor) -> Tensor:
        return (y - x) / self.radius

    def _point(self, half: Tensor, square: Tensor) -> Tensor:
        return self.projx(self.radius * half / (1 + square))

    def to_frame(self, x: Tensor, u: Tensor) -> Tensor:
        return 2 * u / self._halve(x)[1]

    def from_frame(self, x: Tensor, v: Tensor) -> Tensor:
        return 0.5 * v * self._halve(x)[1]

    def projx(self, x: Tensor) -> Tensor:
        """Shorten vectors that lead beyond ``reach``."""
        longest = (self.radius * math.tanh(self.reach(x.dtype) / (2 * self.radius))) ** 2
        square = x.square().sum(-1, keepdim=True)
        return x * (longest / square.clamp(min=longest)).sqrt()

    def contains(self, x: Tensor) -> Tensor:
        return self._halve(x)[1].squeeze(-1) > 0

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return u * (self._halve(x)[1] / 2).square()

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return True, None  # the tangent space is all of R^n
