"""Preimages under maps that raise the dimension, by the method of Gauss and Newton."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_manifolds.ops.volume_element import jacobian

__all__ = ["gauss_newton"]

Map = Callable[[Tensor], Tensor]


def gauss_newton(
    function: Map,
    start: Tensor,
    target: Tensor,
    steps: int = 3,
    max_step: float = 0.1,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    r"""Return points whose images are nearest to ``target``, after a fixed number of steps.

    All steps but the last are constants for autograd. The last is differentiable by the target
    and by what the function depends on, with the derivative of the inverse on the image:

    .. math:: z \leftarrow z + (J^\top J)^{-1} J^\top (y - f(z))

    Where :math:`J` loses rank, the step is the shortest of those that reduce the misfit, not an
    infinite one.

    Args:
        function: Map of ``[..., m]`` to ``[..., n]`` that treats leading dimensions as a batch.
        start: First guess, shape ``[..., m]``.
        target: Shape ``[..., n]``; leading dimensions broadcast with those of ``start``.
        steps: Number of steps, at least 1.
        max_step: Largest change of an entry in one step.
        bounds: Least and greatest value of an entry, such as ``(0, 1)``. The derivative does not
            see them: a value on the image that rounding leads outside keeps its gradient.

    Example:
        >>> from pyro_manifolds.ops.gauss_newton import gauss_newton
        >>> def parabola(z):
        ...     return torch.cat([z, z.square()], -1)
        >>> gauss_newton(parabola, torch.tensor([2.9]), torch.tensor([3.0, 9.0]))
        tensor([3.])
    """
    batch = torch.broadcast_shapes(start.shape[:-1], target.shape[:-1])
    z = start.detach().expand(batch + start.shape[-1:]).clone()  # jvp takes no expanded tensor
    for _ in range(steps - 1):
        z = _inside(z + _step(function, z, target.detach(), max_step).detach(), bounds)
    return _inside(z + _step(function, z, target, max_step), bounds)


def _step(function: Map, z: Tensor, target: Tensor, max_step: float) -> Tensor:
    with torch.no_grad():
        q, r = torch.linalg.qr(_damped(jacobian(function, z)))
        q = q[..., : target.shape[-1], :]
    residual = (target - function(z)).unsqueeze(-1)
    step = torch.linalg.solve_triangular(r, q.mT @ residual, upper=True).squeeze(-1)
    return step + (step.clamp(-max_step, max_step) - step).detach()


def _damped(matrix: Tensor) -> Tensor:
    """Append rows so small that they matter only where columns are dependent."""
    limits = torch.finfo(matrix.dtype)
    scale = limits.eps**0.75 * torch.linalg.matrix_norm(matrix) + limits.tiny
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.cat([matrix, scale[..., None, None] * identity], -2)


def _inside(z: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return z if bounds is None else z + (z.clamp(*bounds) - z).detach()
