"""The flat Moebius band."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.manifolds.cylinder import Cylinder
from pyro_manifolds.manifolds.glide import GlideQuotient
from pyro_manifolds.manifolds.strip import Strip
from pyro_manifolds.ops.repulsion import log_norm_weight

__all__ = ["MoebiusBand"]


class MoebiusBand(Strip, GlideQuotient):
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
    angle_period = math.pi
    _project_open = GlideQuotient.project
    _deck_open = GlideQuotient.deck

    @property
    def cover(self) -> Cylinder:
        """The cylinder of the same width, the orientable double cover."""
        return Cylinder(self.half_width)

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
