"""Densities of topographic latents on rings with narrow windows, by transfer matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["nodes_for_ring", "ring_log_prob"]

_FIRST, _LAST = -4.4, 4.6
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
# Nodes at loc 0, nodes for each unit of it, and most nodes, for windows of 2 and of 3.
_NODES = {2: (40, 8.0, 320), 3: (24, 6.0, 40)}

_CHUNK = 2**18  # elements of a matrix for all rings that are computed at once


def nodes_for_ring(kernel_size: int, largest_loc: float) -> int | None:
    """Return how many nodes a location needs, None if they are too many to be practical.

    Example:
        >>> from pyro_manifolds.ops.ring_transfer import nodes_for_ring
        >>> nodes_for_ring(2, 0.0), nodes_for_ring(2, 30.0), nodes_for_ring(3, 30.0)
        (40, 280, None)
    """
    least, slope, most = _NODES[kernel_size]
    needed = least + slope * largest_loc
    return math.ceil(needed) if needed <= most else None


def ring_log_prob(t: Tensor, loc: Tensor, kernel_size: int, num_nodes: int) -> Tensor:
    r"""Return the log density on a ring with windows of two or three auxiliary variables.

    The density is the integral over u of a product of terms of neighbouring u alone. At nodes of
    each :math:`u_j^2` it is the trace of a product of matrices, one for each entry of the ring,
    with pairs of nodes as states for windows of three. Nodes are
    :math:`s_j \exp(\xi - e^{-\xi})` with equidistant :math:`\xi`, which the root at zero does not
    disturb, and a scale :math:`s_j` that follows from t.

    Time and memory grow with the third power of the number of nodes for windows of two, with the
    fifth and the fourth for windows of three, and linearly with the size of the ring.

    Args:
        t: Values, ``[..., size]``.
        loc: Noncentrality, of a shape that broadcasts.
        kernel_size: 2 or 3, at most the size.
        num_nodes: Number of nodes.

    Example:
        >>> from pyro_manifolds.ops.ring_transfer import ring_log_prob
        >>> t = torch.tensor([0.5, -1.2, 0.3, 0.9])
        >>> ring_log_prob(t, torch.zeros(4), 2, 40), ring_log_prob(t, torch.zeros(4), 3, 24)
        (tensor(-5.6224), tensor(-5.4585))
    """
    t, loc = torch.broadcast_tensors(t, loc)
    # Some rings at a time: matrices that fit into the cache, and without gradients into memory.
    rings = max(1, _CHUNK // num_nodes ** (2 if kernel_size == 2 else 4))
    pairs = zip(*(x.reshape(-1, x.shape[-1]).split(rings) for x in (t, loc)), strict=True)
    parts = [_ring_log_prob(some, there, kernel_size, num_nodes) for some, there in pairs]
    return torch.cat(parts).reshape(t.shape[:-1])


def _ring_log_prob(t: Tensor, loc: Tensor, kernel_size: int, num_nodes: int) -> Tensor:
    x, log_weight = _nodes(t, loc, kernel_size, num_nodes)
    trace = _trace_of_nodes if kernel_size == 2 else _trace_of_pairs
    return trace(t, loc, x, log_weight)


def _nodes(t: Tensor, loc: Tensor, kernel_size: int, size: int) -> tuple[Tensor, Tensor]:
    """Return nodes of each squared auxiliary variable, ``[..., size of ring, nodes]``."""
    xi = torch.linspace(_FIRST, _LAST, size, dtype=t.dtype, device=t.device)
    log_y, step = xi - (-xi).exp(), (_LAST - _FIRST) / (size - 1)
    scale = _scales(t.detach(), loc.detach(), kernel_size)[..., None]
    x = scale * log_y.exp()
    # The density of a squared normal variable times dx.
    log_weight = 0.5 * (scale.log() + log_y - x) + (-xi).exp().log1p()
    return x, log_weight + (math.log(step) - _HALF_LOG_2PI)


def _scales(t: Tensor, loc: Tensor, kernel_size: int) -> Tensor:
    """Return how large each squared auxiliary variable is, given t: a fixed point for its mode."""
    pull = loc * t
    up, down = pull.clamp(min=0), (-pull).clamp(min=0)
    least = 1 + _windows(t * t, kernel_size, -1)
    x, brake = 1 / least, least
    for _ in range(20):
        v = _windows(x, kernel_size, 1)
        brake = least + _windows(down * v.rsqrt(), kernel_size, -1)
        x = (1 + x * _windows(1 / v + up * v.rsqrt(), kernel_size, -1)) / brake
    # Against the location the tail is exponential in u, and so longer.
    return 0.5 * x * (6 - 5 * least / brake)


def _windows(x: Tensor, kernel_size: int, sign: int) -> Tensor:
    """Add up the windows, or for sign -1 apply the transpose."""
    total = x + x.roll(-sign, -1)
    return total if kernel_size == 2 else total + x.roll(sign, -1)


def _trace_of_nodes(t: Tensor, loc: Tensor, x: Tensor, log_weight: Tensor) -> Tensor:
    after = x.roll(-1, -2)

    def factor(i: int) -> tuple[Tensor, Tensor]:
        v = x[..., i, :, None] + after[..., i, None, :]
        return _factor(t[..., i], loc[..., i], v, log_weight[..., i, :, None])

    product, total = factor(0)
    for i in range(1, t.shape[-1]):
        matrix, top = factor(i)
        product, total = _rescaled(product @ matrix, total + top)
    return total + product.diagonal(dim1=-2, dim2=-1).sum(-1).log()


def _trace_of_pairs(t: Tensor, loc: Tensor, x: Tensor, log_weight: Tensor) -> Tensor:
    before, after = x.roll(1, -2), x.roll(-1, -2)

    def factor(i: int) -> tuple[Tensor, Tensor]:
        v = before[..., i, :, None, None] + x[..., i, None, :, None] + after[..., i, None, None, :]
        return _factor(t[..., i], loc[..., i], v, log_weight[..., i, None, :, None])

    (first, top), (second, next_top) = factor(0), factor(1)
    # product[d, a, b, c]: the walk starts with the pair (a, b) and ends with (c, d).
    product, total = torch.einsum("...abc,...bcd->...dabc", first, second), top + next_top
    for i in range(2, t.shape[-1] - 1):
        tensor, top = factor(i)
        # [d, ab, c] times [d, c, e], and the pair (d, e) is the next (c, d).
        moved = product.flatten(-3, -2) @ tensor.transpose(-3, -2)
        moved = moved.unflatten(-2, product.shape[-3:-1]).transpose(-1, -4)
        product, total = _rescaled(moved, total + top)
    last, top = factor(t.shape[-1] - 1)
    return total + top + torch.einsum("...aabc,...cab->...", product, last).log()


def _factor(t: Tensor, loc: Tensor, v: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factor of one entry with each part at most 1, and the log of the rest."""
    shape, dims = t.shape + (1,) * (v.dim() - t.dim()), tuple(range(t.dim(), v.dim()))
    root = v.sqrt()
    error = root * t.reshape(shape) - loc.reshape(shape)
    exponent = -0.5 * error.square()
    tops = [x.detach().amax(dims, keepdim=True) for x in (exponent, root, log_weight)]
    parts = (root / tops[1]) * (log_weight - tops[2]).exp()
    total = tops[0] + tops[1].log() + tops[2] - _HALF_LOG_2PI
    return (exponent - tops[0]).exp() * parts, total.reshape(t.shape)


def _rescaled(product: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    top = product.detach().flatten(total.dim()).amax(-1)
    shape = top.shape + (1,) * (product.dim() - top.dim())
    return product / top.reshape(shape), total + top.log()
