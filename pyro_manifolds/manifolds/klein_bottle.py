"""The flat Klein bottle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.manifolds.glide import GlideQuotient
from pyro_manifolds.manifolds.torus import Torus
from pyro_manifolds.ops.angles import angle_of, wrap
from pyro_manifolds.ops.repulsion import log_norm_weight

__all__ = ["KleinBottle"]


class KleinBottle(GlideQuotient):
    r"""Klein bottle :math:`\mathbb{R}^2 / \langle (t_1+\pi, -t_2), (t_1, t_2+2\pi) \rangle`.

    A point is a pair of angles in radians, event shape ``(2,)``; canonical pairs lie in
    :math:`[0, \pi) \times [-\pi, \pi)`. The metric is flat and the area :math:`2\pi^2`. It is
    the identification under which a 3x3 filter with angle :math:`t_1` and phase :math:`t_2` is
    well defined (Carlsson et al., 2008).

    ``embed`` maps to :math:`\mathbb{R}^5` by invariants of the deck group,
    :math:`(\tfrac12\cos 2t_1, \tfrac12\sin 2t_1, \cos t_2, \cos t_1 \sin t_2, \sin t_1 \sin t_2)`,
    with local stretch between 1 and :math:`\sqrt2`. ``unembed`` is singular where the first two
    entries vanish, and where the third vanishes together with the component of the last two
    along :math:`(\cos t_1, \sin t_1)`.

    References:
        | On the local behavior of spaces of natural images (Carlsson, Ishkhanov, de Silva and
          Zomorodian, 2008)

    Example:
        >>> klein = KleinBottle()
        >>> klein.projx(torch.tensor([math.pi + 0.5, 1.0]))
        tensor([ 0.5000, -1.0000])
        >>> klein.dist(torch.tensor([0.3, 1.0]), torch.tensor([3.0, -1.2]))
        tensor(0.4848)
    """

    name = "KleinBottle"
    embed_dim = 5
    volume = 2 * math.pi**2
    lattice = (2 * math.pi, 2 * math.pi)
    periods = (math.pi, 2 * math.pi)

    @property
    def cover(self) -> Torus:
        """The torus, the orientable double cover."""
        return Torus(2)

    def _wrap_across(self, h: Tensor) -> Tensor:
        return wrap(h)

    def embed(self, y: Tensor) -> Tensor:
        t1, t2 = y.unbind(-1)
        sin = t2.sin()
        features = [
            (2 * t1).cos() / 2,
            (2 * t1).sin() / 2,
            t2.cos(),
            t1.cos() * sin,
            t1.sin() * sin,
        ]
        return torch.stack(features, -1)

    def unembed(self, a: Tensor) -> Tensor:
        t1 = self._half_angle(a)
        sin = a[..., 3] * t1.cos() + a[..., 4] * t1.sin()
        return self.project(torch.stack([t1, angle_of(sin, a[..., 2])], -1))

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        t1 = self._half_angle(a)
        second = torch.stack([a[..., 2], a[..., 3] * t1.cos() + a[..., 4] * t1.sin()], -1)
        return log_norm_weight(a[..., :2], power) + log_norm_weight(second, power)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Uniform: half an angle is, and given it the vector of the second angle is normal."""
        return self._log_prob_uniform(y)
