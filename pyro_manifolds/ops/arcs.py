"""Great circles: unit vectors, arcs between them and parallel transport, smooth at every point."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "arc_exp",
    "arc_length",
    "arc_log",
    "arc_transport",
    "arc_transport_between",
    "cos_sinc",
    "unit",
]

# Below this squared angle the series are used: the first term left out is under 1e-16.
_SMALL = 1e-3


def unit(x: Tensor) -> Tensor:
    """Divide by the norm over the last dimension; the first axis, with derivative 0, at zero.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [1.0000, 0.0000]])
    """
    # The largest entry is divided out first: squares of tiny or huge entries leave float32.
    size = x.detach().abs().amax(-1, keepdim=True)
    vanishes = size < torch.finfo(x.dtype).tiny
    first = (torch.arange(x.shape[-1], device=x.device) == 0).to(x.dtype)
    scaled = torch.where(vanishes, first, x / torch.where(vanishes, 1, size))
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)


def cos_sinc(square: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\cos t` and :math:`\sin t / t` as smooth functions of :math:`t^2 \ge 0`."""
    small = square < _SMALL
    t = torch.where(small, 1, square).sqrt()
    s = torch.where(small, square, 0)
    cos = 1 + s * (-1 / 2 + s * (1 / 24 + s * (-1 / 720 + s / 40320)))
    sinc = 1 + s * (-1 / 6 + s * (1 / 120 + s * (-1 / 5040 + s / 362880)))
    return torch.where(small, cos, t.cos()), torch.where(small, sinc, t.sin() / t)


def arc_length(x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
    """Return the angle between unit vectors, exact also where they are equal or opposite."""
    apart = torch.linalg.vector_norm(x - y, dim=-1, keepdim=keepdim)
    along = torch.linalg.vector_norm(x + y, dim=-1, keepdim=keepdim)
    return 2 * torch.atan2(apart, along)


def arc_exp(x: Tensor, u: Tensor) -> Tensor:
    """Follow the great circle from ``x`` along the tangent vector ``u`` for its length."""
    cos, sinc = cos_sinc(u.square().sum(-1, keepdim=True))
    return unit(cos * x + sinc * u)


def arc_log(x: Tensor, y: Tensor) -> Tensor:
    """Return the tangent vector at ``x`` of the shortest arc to ``y``: one of them if opposite."""
    quarter_chord2 = (y - x).square().sum(-1, keepdim=True) / 4
    # Both y - x and y + x have the tangential part of y; the shorter one has no cancellation.
    nearby = torch.where(quarter_chord2 < 0.5, y - x, y + x)
    across = nearby - (x * nearby).sum(-1, keepdim=True) * x
    across = torch.where(quarter_chord2 < 0.5, across, _or_any_tangent(across, x))
    small = quarter_chord2 < _SMALL
    sin = torch.linalg.vector_norm(torch.where(small, 1, across), dim=-1, keepdim=True)
    ratio = torch.where(
        small, _angle_over_sin(quarter_chord2), arc_length(x, y, keepdim=True) / sin
    )
    return ratio * across


def _angle_over_sin(s: Tensor) -> Tensor:
    """Return t / sin(t) for small angles by its series in sin(t/2)^2."""
    return 1 + s * (2 / 3 + s * (8 / 15 + s * (16 / 35 + s * (128 / 315 + s * 256 / 693))))


def arc_transport(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Carry the tangent vector ``v`` in parallel along the arc of :func:`arc_exp`."""
    square = u.square().sum(-1, keepdim=True)
    _, sinc = cos_sinc(square)
    _, half_sinc = cos_sinc(square / 4)
    return v - (u * v).sum(-1, keepdim=True) * (half_sinc.square() / 2 * u + sinc * x)


def arc_transport_between(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """Carry the tangent vector ``v`` in parallel along the arc of :func:`arc_log`."""
    # On tangent vectors the transport is the reflection that exchanges x and -y.
    middle = _or_any_tangent(x + y, x)
    middle = middle / torch.linalg.vector_norm(middle, dim=-1, keepdim=True)
    return v - 2 * (middle * v).sum(-1, keepdim=True) * middle


def _or_any_tangent(u: Tensor, x: Tensor) -> Tensor:
    """Return ``u``, or where it is nothing but rounding some unit tangent vector at ``x``."""
    u, x = torch.broadcast_tensors(u, x.detach())
    smallest = x.abs().argmin(-1, keepdim=True)
    axis = (torch.arange(x.shape[-1], device=x.device) == smallest).to(x.dtype)
    tangent = unit(axis - (x * axis).sum(-1, keepdim=True) * x)
    size = torch.linalg.vector_norm(u.detach(), dim=-1, keepdim=True)
    return torch.where(size < 8 * torch.finfo(x.dtype).eps, tangent, u)
