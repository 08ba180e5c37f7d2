"""Jacobians of maps that raise the dimension, and the factor by which they stretch volume."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

__all__ = ["half_log_det_gram", "half_log_det_gram_surrogate", "jacobian", "push_forward"]

_FEW = 3  # columns, for which Gram-Schmidt takes less time than Householder's reflections

Map = Callable[[Tensor], Tensor]


def jacobian(function: Map, z: Tensor) -> Tensor:
    r"""Return the Jacobian matrices of a map at a batch of points, by forward differentiation.

    Args:
        function: Map of ``[..., m]`` to ``[..., n]`` that treats leading dimensions as a batch:
            no point may influence the image of another.
        z: Points, shape ``[..., m]``.

    Returns:
        Matrices of shape ``[..., n, m]``.

    Example:
        >>> from pyro_manifolds.ops.volume_element import jacobian
        >>> jacobian(lambda z: torch.cat([z, z.square()], -1), torch.tensor([3.0]))
        tensor([[1.],
                [6.]])
    """
    directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    return push_forward(function, z, directions)


def push_forward(function: Map, z: Tensor, directions: Tensor) -> Tensor:
    """Return the images of tangent vectors, the columns of ``directions``, at points ``z``.

    Args:
        function: As for :func:`jacobian`.
        z: Points, shape ``[..., m]``.
        directions: Matrices ``[..., m, k]`` that broadcast with the points.

    Returns:
        Matrices of shape ``[..., n, k]``.
    """

    def push(direction: Tensor) -> Tensor:
        return jvp(function, (z,), (direction.expand_as(z),))[1]

    # Mapped over directions, not over points: the values in between are computed once.
    return vmap(push, in_dims=-1, out_dims=-1)(directions)


def half_log_det_gram(matrix: Tensor) -> Tensor:
    r"""Return :math:`\frac12 \log\det J^\top J` of matrices ``[..., n, m]``.

    The triangle of an orthogonal decomposition is used. The product :math:`J^\top J` would square
    the condition number, and jitter on its diagonal would hide a direction that collapses.

    Example:
        >>> from pyro_manifolds.ops.volume_element import half_log_det_gram
        >>> half_log_det_gram(torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]])).exp()
        tensor(10.)
    """
    if matrix.shape[-1] <= _FEW:
        # Columns in front: what backward makes of them has the layout of what was pushed.
        return _log_lengths(list(matrix.movedim(-1, 0).unbind(0)))
    triangle = torch.linalg.qr(matrix).R
    return triangle.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


def _log_lengths(columns: list[Tensor]) -> Tensor:
    """Sum the logarithms of what each column adds to the span of those before."""
    total = columns[0].new_zeros(())
    for i, column in enumerate(columns):
        square = column.square().sum(-1, keepdim=True)
        total = total + square.squeeze(-1).log() / 2
        for j in range(i + 1, len(columns)):
            # A direction that has collapsed must not divide by zero: the sum is -inf.
            share = (column * columns[j]).sum(-1, keepdim=True) / square.clamp(min=_tiny(square))
            columns[j] = columns[j] - share * column
    return total


def half_log_det_gram_surrogate(
    function: Map, z: Tensor, *, num_probes: int = 1, tol: float = 1e-3
) -> Tensor:
    r"""Return a number whose **gradient** is an unbiased estimate; its value means nothing.

    The expectation over the probes of its gradient, by anything that ``function`` depends on, is
    that of :math:`\frac12 \log\det J^\top J`. The Jacobian is never formed: each probe
    :math:`\varepsilon` costs the solution of :math:`J^\top J w = \varepsilon` by conjugate
    gradients, at most :math:`m` products with the matrix, for

    .. math:: \tfrac12 \langle J w, J \varepsilon \rangle, \quad w \text{ held fixed.}

    It is made for training where :math:`m` is in the hundreds; the value is that of
    :func:`half_log_det_gram` of the Jacobian.

    References:
        | Rectangular Flows for Manifold Learning (Caterini, Loaiza-Ganem, Pleiss and Cunningham,
          2021), arXiv 2106.01413

    Args:
        function: Map of ``[..., m]`` to ``[..., n]`` that treats leading dimensions as a batch.
        z: Points, shape ``[..., m]``.
        num_probes: Number of random vectors of signs, over which the mean is taken.
        tol: Residual, as a share of the right-hand side, at which a solution is good enough.

    Example:
        >>> from pyro_manifolds.ops.volume_element import half_log_det_gram_surrogate
        >>> scale = torch.tensor(2.0, requires_grad=True)
        >>> half_log_det_gram_surrogate(lambda z: scale * z, torch.ones(3)).backward()
        >>> scale.grad  # of 3 log(scale)
        tensor(1.5000)
    """
    terms = [_probe(function, z, tol) for _ in range(num_probes)]
    return torch.stack(terms).mean(0)


def _probe(function: Map, z: Tensor, tol: float) -> Tensor:
    signs = torch.randint_like(z, 2) * 2 - 1
    with torch.no_grad():
        solution = _conjugate_gradients(_gram_product(function, z.detach()), signs, tol)

    def push(direction: Tensor) -> Tensor:
        return jvp(function, (z,), (direction,))[1]

    return (push(solution) * push(signs)).sum(-1) / 2


def _gram_product(function: Map, z: Tensor) -> Map:
    pull = vjp(function, z)[1]
    return lambda v: pull(jvp(function, (z,), (v,))[1])[0]


def _conjugate_gradients(product: Map, target: Tensor, tol: float) -> Tensor:
    """Solve a batch of positive definite systems, given by the product with the matrix."""
    solution = torch.zeros_like(target)
    residual = direction = target
    square = goal = residual.square().sum(-1, keepdim=True)
    for _ in range(target.shape[-1]):
        if bool((square <= tol**2 * goal).all()):
            break
        image = product(direction)
        # Systems that are solved already must not divide by zero.
        step = square / (direction * image).sum(-1, keepdim=True).clamp(min=_tiny(target))
        solution = solution + step * direction
        residual = residual - step * image
        before, square = square, residual.square().sum(-1, keepdim=True)
        direction = residual + square / before.clamp(min=_tiny(target)) * direction
    return solution


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
