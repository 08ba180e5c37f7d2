"""Filters that crowd round a Klein bottle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.distributions.manifold_filter import ManifoldFilter
from pyro_manifolds.manifolds import KleinBottle
from pyro_manifolds.ops.filters import klein_filters, unit_filters

__all__ = ["KleinFilter"]


class KleinFilter(ManifoldFilter):
    r"""Square filters of edges and lines in every direction, with noise: a prior for weights.

    A filter is :math:`w = a F(z) + \sigma \varepsilon`, with a point :math:`z` of the Klein
    bottle, a normal amplitude :math:`a` of standard deviation :math:`\tau`, and independent
    standard normal :math:`\varepsilon`; :math:`F` is :func:`~pyro_manifolds.ops.filters.\
klein_filters`. Given :math:`z` it is normal with covariance :math:`\tau^2 F F^\top + \sigma^2 I`,
    so that the density with respect to Lebesgue measure on the :math:`k^2` weights is

    .. math::
        p(w) = \int_K p(z) \, \mathcal{N}\left(w; 0,\ \tau^2 F(z) F(z)^\top + \sigma^2 I\right)
        \, dz

    by the trapezoidal rule, whose error on this surface falls exponentially with the number of
    nodes: one matrix product and a logsumexp. :math:`p(z)` is uniform by default.

    As the prior of a layer, ``KleinFilter(5, 1.0, 0.3).expand([out, in]).to_event(2)``; see
    :class:`~pyro_manifolds.nn.bayesian.BayesianModule`. With :math:`z` as a site of its own the
    same model is made by :class:`~pyro_manifolds.infer.reparam.FilterReparam`.

    References:
        | On the Local Behavior of Spaces of Natural Images (Carlsson, Ishkhanov, de Silva and
          Zomorodian, 2008), doi 10.1007/s11263-007-0056-x
        | Topological Convolutional Layers for Deep Learning (Love, Filippenko, Maroulas and
          Carlsson, 2023), arXiv 2101.05778
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        kernel_size: Side :math:`k` of the filters in pixels, odd and at least 3.
        amplitude: Standard deviation :math:`\tau`, positive; broadcasts with ``noise``.
        noise: Standard deviation :math:`\sigma` of each weight round :math:`a F(z)`, positive.
        density: Distribution of the points on ``KleinBottle()``, uniform by default: a wrapped
            normal, a :class:`ManifoldMixture`, a flow. Its weights at the nodes are scaled to the
            sum one, so one narrower than their spacing needs a larger ``num_nodes``.
        unit: Whether ``unit_filters`` of the filters are meant, of mean zero and norm one; else
            integrals over pixels, with norms of about :math:`2.3 / k`.
        noise_tril: Lower triangular :math:`L`, shape ``(k * k, k * k)``, for noise of covariance
            :math:`\sigma^2 L L^\top`.
        num_nodes: Nodes along each of the two angles, even. The default suffices for an error
            below 1e-8 on draws of the distribution, and grows with ``amplitude / noise``.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If an argument is out of range or has the wrong shape, ``density`` lives
            elsewhere, or the noise is so small that no ``num_nodes`` was foreseen.

    Example:
        >>> d = KleinFilter(3, amplitude=1.0, noise=0.3)
        >>> edge = torch.tensor([[-0.5, 0.0, 0.5]]).expand(3, 3)
        >>> checks = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 0.0, -1.0], [1.0, -1.0, 1.0]]) / 2.5
        >>> (d.log_prob(edge) - d.log_prob(checks)).round()  # of about the same norm
        tensor(3.)
    """

    manifold = KleinBottle()

    def family(self, points: Tensor) -> Tensor:
        filters = klein_filters(points, self.kernel_size)
        return unit_filters(filters) if self.unit else filters

    def _half(self, number: int) -> tuple[Tensor, Tensor]:
        steps = torch.arange(number, dtype=self.noise.dtype, device=self.noise.device)
        steps = steps * (math.pi / number)
        points = torch.cartesian_prod(steps, 2 * steps[: number // 2])
        return points, points + points.new_tensor([0.0, math.pi])
