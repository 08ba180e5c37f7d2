"""The flat cylinder."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.manifolds.strip import Strip
from pyro_manifolds.ops.angles import angle_of, wrap
from pyro_manifolds.ops.repulsion import log_norm_weight

__all__ = ["Cylinder"]


class Cylinder(Strip):
    r"""Open cylinder :math:`\mathbb{R} / 2\pi\mathbb{Z} \times (-w, w)`.

    A point is an angle in radians and a height, event shape ``(2,)``; canonical pairs lie in
    :math:`[-\pi, \pi) \times (-w, w)`. The metric is flat and the area :math:`4\pi w`. It is the
    orientable double cover of the Moebius band of the same width.

    ``embed`` is :math:`(\cos t, \sin t, h)`, an isometry; ``unembed`` is singular where the first
    two entries vanish, and clamps the height to the cylinder.

    The covering of a cylinder of finite width reflects at the edge, as for the Moebius band.

    Args:
        half_width: Half-width :math:`w > 0`; ``math.inf`` is allowed.

    Raises:
        ValueError: If ``half_width`` is not positive.

    Example:
        >>> cylinder = Cylinder(2.0)
        >>> cylinder.dist(torch.tensor([3.0, 0.0]), torch.tensor([-3.0, 1.0]))
        tensor(1.0393)
    """

    name = "Cylinder"
    embed_dim = 3
    angle_period = 2 * math.pi

    def _project_open(self, x: Tensor) -> Tensor:
        along, across = x.unbind(-1)
        return torch.stack([wrap(along), across], -1)

    def _deck_open(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self._project_open(y - x)

    def embed(self, y: Tensor) -> Tensor:
        t, h = y.unbind(-1)
        return torch.stack([t.cos(), t.sin(), h], -1)

    def unembed(self, a: Tensor) -> Tensor:
        return self.projx(torch.stack([angle_of(a[..., 1], a[..., 0]), a[..., 2]], -1))

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        if self.is_compact:
            return super().log_repulsion(a, power)
        return log_norm_weight(a[..., :2], power)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Uniform times normal on the infinite cylinder.

        On a cylinder of finite width the clamp leaves atoms at the edge, and there is no density.
        """
        if self.is_compact:
            return super().log_prob_unembed(y)
        return -0.5 * (y[..., 1].square() + math.log(2 * math.pi)) - math.log(2 * math.pi)

    def preimage(self, y: Tensor) -> Tensor:
        circle, height = self.embed(y).split([2, 1], -1)
        return torch.cat([math.sqrt(2) * circle, height], -1)
