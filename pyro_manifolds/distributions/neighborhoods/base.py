"""What every neighbourhood offers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Size, Tensor

__all__ = ["Neighborhood"]


class Neighborhood(ABC):
    r"""Linear map :math:`W \ge 0` from squares of auxiliary variables to sums over neighbours.

    Entry i of :math:`v = W u^2` adds up the squares in the window of i. Only non-negative numbers
    are added, never subtracted: v keeps its relative precision, and where every window holds one
    auxiliary variable that is not zero, v is positive, in float32 too. (A Fourier transform would
    not do: beside silent parts of a field its v is negative.)

    A neighbourhood has no dtype of its own: results have the dtype and device of the input. Any
    batch dimensions may stand in front.

    Subclasses set :attr:`event_shape` and :attr:`noise_shape` and write ``_forward``,
    ``_transpose``, ``num_terms`` and ``_key``.

    Attributes:
        event_shape: Shape of the latent t, and of v.
        noise_shape: Shape of the auxiliary variables u.
    """

    event_shape: Size
    noise_shape: Size

    def forward(self, u2: Tensor) -> Tensor:
        """Return v, the sum of the squares ``[..., *noise_shape]`` over each window."""
        self._check("u2", u2, self.noise_shape)
        return self._forward(u2)

    def transpose(self, t2: Tensor) -> Tensor:
        """Apply the transposed map to ``[..., *event_shape]``."""
        self._check("t2", t2, self.event_shape)
        return self._transpose(t2)

    @abstractmethod
    def _forward(self, u2: Tensor) -> Tensor:
        """Apply the map."""

    @abstractmethod
    def _transpose(self, t2: Tensor) -> Tensor:
        """Apply the transposed map."""

    @property
    @abstractmethod
    def num_terms(self) -> Tensor:
        """How many auxiliary variables each entry depends on, integers of ``event_shape``."""

    @abstractmethod
    def _key(self) -> tuple[object, ...]:
        """What tells two neighbourhoods of one class apart, as printed by ``repr``."""

    @property
    def dof(self) -> Tensor:
        """Row sums of W, of ``event_shape``: degrees of freedom if all weights are 0 or 1."""
        return self._forward(torch.ones(self.noise_shape))

    @property
    def is_binary(self) -> bool:
        """Whether all weights are 0 or 1, so that the margins are Student's."""
        return torch.equal(self.dof, self.num_terms.to(self.dof))

    def block_sums(self, x: Tensor) -> Tensor:
        """Add up over blocks that share no auxiliary variable, ``[..., blocks]``.

        The entries are those of a latent or of auxiliary variables, ``[..., *event_shape]`` or
        ``[..., *noise_shape]``.
        """
        return x.flatten(x.dim() - len(self.event_shape)).sum(-1, keepdim=True)

    def matrix(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Return W, ``[n, m]``, rows and columns being flattened events and auxiliary variables.

        Meant for small neighbourhoods: it has ``n * m`` entries.
        """
        size = math.prod(self.noise_shape)
        units = torch.eye(size, dtype=dtype, device=device).reshape(size, *self.noise_shape)
        return self._forward(units).reshape(size, -1).mT

    def overlap(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Return W W^T, ``[n, n]``: how many auxiliary variables each two entries share."""
        w = self.matrix(dtype, device)
        return w @ w.mT

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self._key()))})"

    def _check(self, name: str, x: Tensor, shape: Size) -> None:
        if x.shape[x.dim() - len(shape) :] != shape or x.dim() < len(shape):
            raise ValueError(
                f"{type(self).__name__}: expected {name} of a shape that ends in {tuple(shape)}, "
                f"got {tuple(x.shape)}"
            )
