"""Neighbourhoods given by a matrix."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from pyro_manifolds.distributions.neighborhoods.base import Neighborhood

__all__ = ["Dense"]


class Dense(Neighborhood):
    """Neighbourhood with any non-negative weights.

    Latents have shape ``(n,)`` and auxiliary variables ``(m,)``. With weights other than 0 and 1
    the margins are not Student's.

    Args:
        weight: Weights of shape ``(n, m)``, not negative and with no row of zeros. They may
            require gradients; they are not copied, and not checked again after a change.

    Raises:
        TypeError: If the weight is no tensor of floating point numbers.
        ValueError: If its shape or one of its entries is not as expected.

    Example:
        >>> from pyro_manifolds.distributions import Dense
        >>> chain = Dense(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
        >>> chain.forward(torch.tensor([1.0, 2.0, 3.0])), chain.overlap()
        (tensor([3., 5.]), tensor([[2., 1.],
                [1., 2.]]))
    """

    def __init__(self, weight: Tensor) -> None:
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            found = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
            raise TypeError(
                f"Dense: expected weight to be a tensor of floating point numbers, got {found}"
            )
        if weight.dim() != 2 or not weight.numel():
            raise ValueError(
                f"Dense: expected weight of shape (n, m), both at least 1, got "
                f"{tuple(weight.shape)}"
            )
        values = weight.detach()
        if not bool((values.isfinite() & (values >= 0)).all()):
            raise ValueError(
                f"Dense: expected finite weights >= 0, got values from {float(values.min()):g} "
                f"to {float(values.max()):g}"
            )
        empty = (values.sum(-1) == 0).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"Dense: expected every row of weight to have a positive entry, got rows {empty} "
                "of zeros"
            )
        self.weight = weight
        self.event_shape, self.noise_shape = Size(weight.shape[:1]), Size(weight.shape[1:])

    def _forward(self, u2: Tensor) -> Tensor:
        return u2 @ self.weight.to(u2).mT

    def _transpose(self, t2: Tensor) -> Tensor:
        return t2 @ self.weight.to(t2)

    @property
    def dof(self) -> Tensor:
        return self.weight.sum(-1)

    @property
    def num_terms(self) -> Tensor:
        return (self.weight > 0).sum(-1)

    @property
    def is_binary(self) -> bool:
        return bool(((self.weight == 0) | (self.weight == 1)).all())

    def matrix(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        return self.weight.to(device=device, dtype=dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dense) and torch.equal(self.weight, other.weight)

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def _key(self) -> tuple[object, ...]:
        return (tuple(self.weight.shape),)
