"""The flat Moebius band."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.manifolds.glide import GlideQuotient
from pyro_manifolds.ops.angles import wrap
from pyro_manifolds.ops.repulsion import log_norm_weight

__all__ = ["MoebiusBand"]


class MoebiusBand(GlideQuotient):
    r"""Open Moebius band :math:`\mathbb{R} \times (-w, w) / \langle (t+\pi, -h) \rangle`.

    A point is an angle in radians and a height, event shape ``(2,)``; canonical pairs lie in
    :math:`[0, \pi) \times (-w, w)`. The metric is flat and the area :math:`2\pi w`.

    ``embed`` maps to :math:`\mathbb{R}^4` by
    :math:`(\tfrac12\cos 2t, \tfrac12\sin 2t, h\cos t, h\sin t)`; ``unembed`` is singular only
    where the first two entries vanish, and clamps the height to the band.

    The covering of a band of finite width reflects at the edge: a height beyond :math:`w` is
    folded back, an isometry that keeps densities normalised. ``projx`` and ``expmap`` clamp
    instead, so that an optimiser stops at the edge.

    Args:
        half_width: Half-width :math:`w > 0`; ``math.inf`` is allowed.

    Raises:
        ValueError: If ``half_width`` is not positive.

    Example:
        >>> band = MoebiusBand()
        >>> band.dist(torch.tensor([0.1, 0.5]), torch.tensor([3.1, -0.5]))
        tensor(0.1416)
    """

    name = "MoebiusBand"
    embed_dim = 4

    def __init__(self, half_width: float = 1.0) -> None:
        super().__init__()
        if not half_width > 0:
            raise ValueError(f"MoebiusBand: expected half_width > 0, got {half_width}")
        self.half_width = float(half_width)
        self.volume = 2 * math.pi * self.half_width
        finite = math.isfinite(self.half_width)
        # Reflections at both edges compose to a translation by four half-widths.
        self.lattice = (2 * math.pi, 4 * self.half_width if finite else None)
        self.periods = (math.pi, 2 * self.half_width if finite else 1.0)

    def _key(self) -> tuple[object, ...]:
        return (self.half_width,)

    def deck(self, x: Tensor) -> Tensor:
        sheets = super().deck(x)
        if not self.is_compact:
            return sheets
        along, across = sheets.unbind(-1)
        return torch.cat([sheets, torch.stack([along, 2 * self.half_width - across], -1)])

    def project(self, x: Tensor) -> Tensor:
        if not self.is_compact:
            return super().project(x)
        along, across = x.unbind(-1)
        return self.projx(torch.stack([along, self._fold(across)], -1))

    def projx(self, x: Tensor) -> Tensor:
        along, across = super().project(x).unbind(-1)
        return torch.stack([along, self._clamp(across)], -1)

    def contains(self, x: Tensor) -> Tensor:
        return super().contains(x) & (x[..., 1].abs() < self.half_width)

    def embed(self, y: Tensor) -> Tensor:
        t, h = y.unbind(-1)
        features = [(2 * t).cos() / 2, (2 * t).sin() / 2, h * t.cos(), h * t.sin()]
        return torch.stack(features, -1)

    def unembed(self, a: Tensor) -> Tensor:
        t = self._half_angle(a)
        return self.projx(torch.stack([t, a[..., 2] * t.cos() + a[..., 3] * t.sin()], -1))

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        if self.is_compact:
            return super().log_repulsion(a, power)
        return log_norm_weight(a[..., :2], power)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Uniform times normal on the infinite band; the height, given the angle, is normal.

        On a band of finite width the clamp leaves atoms at the edge, and there is no density.
        """
        if self.is_compact:
            return super().log_prob_unembed(y)
        return -0.5 * (y[..., 1].square() + math.log(2 * math.pi)) - math.log(math.pi)

    def preimage(self, y: Tensor) -> Tensor:
        circle, height = self.embed(y).split(2, -1)
        return torch.cat([2 * math.sqrt(2) * circle, height], -1)

    def _fold(self, h: Tensor) -> Tensor:
        """Reflect heights at the edges until they lie in the band."""
        w = self.half_width
        h = wrap(h, 4 * w)
        return torch.where(h > w, 2 * w - h, torch.where(h < -w, -2 * w - h, h))

    def _clamp(self, h: Tensor) -> Tensor:
        edge = self.half_width * (1 - torch.finfo(h.dtype).eps)
        return h.clamp(-edge, edge) if self.is_compact else h
