"""Hyperbolic space as a hyperboloid in Minkowski space."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.hyperbolic_space import HyperbolicSpace
from pyro_manifolds.ops.hyperbolic import half_difference, largest_radius, minkowski_time

__all__ = ["Hyperboloid"]


class Hyperboloid(HyperbolicSpace):
    r"""Hyperbolic space :math:`H^n` as the upper sheet of a hyperboloid, the Lorentz model.

    A point :math:`x = (x_0, \vec x)` of event shape ``(dim + 1,)`` satisfies
    :math:`\langle x, x \rangle = -x_0^2 + |\vec x|^2 = -R^2`, with the radius of curvature
    :math:`R = 1 / \sqrt{-\text{curvature}}`. These are the points of
    ``geoopt.Lorentz(k=-1/curvature)``.

    All methods take :math:`x_0` to be what :math:`\vec x` makes it, and subtract no squares.
    Unlike in geoopt's class, whose float32 distances below :math:`10^{-4}` come out as zero or
    less, distances are as good as the coordinates: those are rounded, which at the distance
    :math:`r` turns a point round the origin by a length of :math:`\epsilon e^{r/R} R / 2`, but
    moves it neither to nor fro. Everything has finite derivatives at equal points.

    Args:
        dim: Dimension :math:`n`, at least one.
        curvature: Sectional curvature, a negative number.

    Raises:
        ValueError: If ``dim`` is not positive or ``curvature`` not negative and finite.
        TypeError: If ``curvature`` requires a gradient.

    Example:
        >>> space = Hyperboloid(2)
        >>> x = space.unembed(torch.tensor([0.6, -0.2]))
        >>> x
        tensor([ 1.2068,  0.6408, -0.2136])
        >>> space.dist(space.origin(3), x)
        tensor(0.6325)
    """

    name = "Hyperboloid"

    def __init__(self, dim: int, curvature: float = -1.0) -> None:
        super().__init__(dim, curvature)
        self.event_shape = Size([dim + 1])

    def reach(self, dtype: torch.dtype) -> float:
        """Return the distance beyond which squares of coordinates overflow, 42 R in float32."""
        return self.radius * largest_radius(dtype)

    def _time(self, space: Tensor) -> Tensor:
        return self.radius * minkowski_time(space / self.radius)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return time and space, the former computed from the latter."""
        space = x[..., 1:]
        return self._time(space), space

    def _halve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        time, space = self._parts(x)
        total = self.radius + time
        return space / total, 2 * self.radius / total

    def _gap(self, x: Tensor, y: Tensor) -> Tensor:
        return half_difference(x[..., 1:] / self.radius, y[..., 1:] / self.radius)

    def _point(self, half: Tensor, square: Tensor) -> Tensor:
        largest = math.exp(largest_radius(half.dtype)) / 4
        space = 2 * self.radius * half * (largest / square.clamp(min=largest))
        return _join(self._time(space), space)

    def to_frame(self, x: Tensor, u: Tensor) -> Tensor:
        time, space = self._parts(x)
        u = u[..., 1:]
        rise = ((space / time) * u).sum(-1, keepdim=True)
        return u - rise * (space / (self.radius + time))

    def from_frame(self, x: Tensor, v: Tensor) -> Tensor:
        time, space = self._parts(x)
        rise = (space / self.radius * v).sum(-1, keepdim=True)
        return _join(rise, v + rise * (space / (self.radius + time)))

    def projx(self, x: Tensor) -> Tensor:
        """Replace the first coordinate by the one that belongs to the others."""
        return _join(*self._parts(x))

    def contains(self, x: Tensor) -> Tensor:
        # Relative to the coordinates: <x, x> itself is lost to rounding at large distances.
        time, space = self._parts(x)
        tolerance = 10 * torch.finfo(x.dtype).eps * math.sqrt(x.shape[-1])
        return ((x[..., :1] - time).abs() <= tolerance * time).squeeze(-1)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Project along the normal of Minkowski space."""
        time, space = self._parts(x)
        first, u = u[..., :1], u[..., 1:]
        above = first - (space / time * u).sum(-1, keepdim=True)
        # Far away the rounding of a tangent vector would pass for a normal part, and grow.
        size = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        noise = 4 * torch.finfo(u.dtype).eps * size
        above = torch.where(above.abs() <= noise, 0, above)
        return self._tangent(x, u - (above * time / self.radius) * (space / self.radius))

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        time, space = self._parts(x)
        slope = (time * u[..., :1] + (space * u[..., 1:]).sum(-1, keepdim=True)) / self.radius
        return self._tangent(x, u[..., 1:] + slope * (space / self.radius))

    def _tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """Complete the spatial part of a tangent vector."""
        time, space = self._parts(x)
        return _join((space / time * u).sum(-1, keepdim=True), u)

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        if torch.allclose(self._tangent(x, u[..., 1:]), u, atol=atol, rtol=rtol):
            return True, None
        return False, f"some vectors are not tangent to {self}: <x, u> is not 0"


def _join(first: Tensor, rest: Tensor) -> Tensor:
    """Put one coordinate in front of the others."""
    batch = torch.broadcast_shapes(first.shape[:-1], rest.shape[:-1])
    return torch.cat([first.expand(batch + (1,)), rest.expand(batch + rest.shape[-1:])], -1)
