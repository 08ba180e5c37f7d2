"""Strips: flat surfaces on which one coordinate is a height between two edges."""

from __future__ import annotations

import abc
import math

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.flat import FlatManifold
from pyro_manifolds.ops.angles import wrap

__all__ = ["Strip"]


class Strip(FlatManifold):
    """Flat surface of an angle and a height in ``(-half_width, half_width)``.

    The plane is folded at the edges of a strip of finite width: :meth:`project` reflects heights
    beyond them, :meth:`projx` clamps. A subclass says how points of the strip of infinite width
    are identified, by :meth:`_project_open` and :meth:`_deck_open`, and has ``angle_period``.

    Args:
        half_width: Half-width, positive; ``math.inf`` is allowed.

    Raises:
        ValueError: If ``half_width`` is not positive.
    """

    ndim = 1
    dim = 2
    event_shape = scale_shape = Size([2])
    angle_period: float

    def __init__(self, half_width: float = 1.0) -> None:
        super().__init__()
        if not half_width > 0:
            raise ValueError(f"{self.name}: expected half_width > 0, got {half_width}")
        self.half_width = float(half_width)
        self.volume = 2 * self.angle_period * self.half_width
        finite = math.isfinite(self.half_width)
        # Reflections at both edges compose to a translation by four half-widths.
        self.lattice = (2 * math.pi, 4 * self.half_width if finite else None)
        self.periods = (self.angle_period, 2 * self.half_width if finite else 1.0)

    def _key(self) -> tuple[object, ...]:
        return (self.half_width,)

    @abc.abstractmethod
    def _project_open(self, x: Tensor) -> Tensor:
        """Reduce points of the strip of infinite width to their canonical representatives."""

    @abc.abstractmethod
    def _deck_open(self, x: Tensor) -> Tensor:
        """Return the lifts of ``x``, modulo whole turns, to the strip of infinite width."""

    def deck(self, x: Tensor) -> Tensor:
        sheets = self._deck_open(x)
        if not self.is_compact:
            return sheets
        along, across = sheets.unbind(-1)
        return torch.cat([sheets, torch.stack([along, 2 * self.half_width - across], -1)])

    def project(self, x: Tensor) -> Tensor:
        if not self.is_compact:
            return self._project_open(x)
        along, across = x.unbind(-1)
        return self.projx(torch.stack([along, self._fold(across)], -1))

    def projx(self, x: Tensor) -> Tensor:
        along, across = self._project_open(x).unbind(-1)
        return torch.stack([along, self._clamp(across)], -1)

    def contains(self, x: Tensor) -> Tensor:
        return super().contains(x) & (x[..., 1].abs() < self.half_width)

    def _fold(self, h: Tensor) -> Tensor:
        """Reflect heights at the edges until they lie in the strip."""
        w = self.half_width
        h = wrap(h, 4 * w)
        return torch.where(h > w, 2 * w - h, torch.where(h < -w, -2 * w - h, h))

    def _clamp(self, h: Tensor) -> Tensor:
        edge = self.half_width * (1 - torch.finfo(h.dtype).eps)
        return h.clamp(-edge, edge) if self.is_compact else h
