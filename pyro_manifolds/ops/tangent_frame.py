"""Orthonormal frames of tangent spaces."""

import torch
from torch import Tensor

__all__ = ["rotation_frame", "tangent_frame"]


def tangent_frame(x: Tensor) -> Tensor:
    """Return an orthonormal basis of the space orthogonal to unit vectors ``[..., n]``.

    The basis is the columns ``[..., n, n - 1]`` and differentiable but where the first entry
    changes its sign.

    Example:
        >>> from pyro_manifolds.ops.tangent_frame import tangent_frame
        >>> tangent_frame(torch.tensor([0.6, 0.8]))
        tensor([[-0.8000],
                [ 0.6000]])
    """
    n = x.shape[-1]
    # The reflection that takes x to the first axis, on the side where nothing cancels.
    axis = torch.eye(n, dtype=x.dtype, device=x.device)
    sign = torch.where(x[..., :1] < 0, -1.0, 1.0).to(x.dtype)
    normal = x + sign * axis[0]
    square = normal.square().sum(-1)[..., None, None]
    return (axis - 2 * normal.unsqueeze(-1) * normal.unsqueeze(-2) / square)[..., 1:]


def rotation_frame(x: Tensor) -> Tensor:
    """Return an orthonormal basis of the tangent space of SO(3) at matrices ``[..., 3, 3]``.

    Lengths are those of unit quaternions, half the angle. The basis is the columns ``[..., 9, 3]``
    of flattened matrices.

    Example:
        >>> from pyro_manifolds.ops.tangent_frame import rotation_frame
        >>> torch.linalg.vector_norm(rotation_frame(torch.eye(3)), dim=0)
        tensor([2.8284, 2.8284, 2.8284])
    """
    generators = torch.zeros(3, 3, 3, dtype=x.dtype, device=x.device)
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        generators[axis, j, i], generators[axis, i, j] = 2.0, -2.0
    moved = x.unsqueeze(-3) @ generators
    return moved.flatten(-2).mT
