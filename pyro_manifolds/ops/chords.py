"""Straight distances between points of a sphere."""

from typing import Any

import torch
from torch import Tensor

from pyro_manifolds.ops.function import apply

__all__ = ["squared_chord"]


def squared_chord(x: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`|x - y|^2`, which of unit vectors is :math:`2 - 2 x \cdot y` undiminished.

    It passes over long vectors half as often as its parts would, which counts in high dimensions.

    Args:
        x: Vectors, ``[..., d]``.
        y: Vectors, ``[..., d]``; both shapes broadcast.

    Example:
        >>> squared_chord(torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8]))
        tensor(0.8000)
    """
    if x.shape != y.shape:
        x, y = torch.broadcast_tensors(x, y)
    return apply(_SquaredChord, x, y)[0]


class _SquaredChord(torch.autograd.Function):
    """The square, and the difference, an output so that backward can itself be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        apart = x - y
        return torch.linalg.vector_norm(apart, dim=-1).square(), apart

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Any) -> None:
        ctx.save_for_backward(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, by_square: Tensor | None, by_apart: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        (apart,) = ctx.saved_tensors
        if by_square is not None:
            slope = apart * (2.0 * by_square).unsqueeze(-1)
            by_apart = slope if by_apart is None else by_apart + slope
        return by_apart, None if by_apart is None else -by_apart
