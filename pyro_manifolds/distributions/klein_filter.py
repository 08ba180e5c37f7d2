"""Filters that crowd round a Klein bottle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.distributions.manifold_filter import ManifoldFilter
from pyro_manifolds.manifolds import KleinBottle
from pyro_manifolds.ops.filters import klein_basis, klein_coordinates

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
    :class:`~pyro_manifolds.nn.bayesian.BayesianModule`. With a prior of its own on the amplitude,
    ``KleinFilter(5, 1.0, 0.3).rescale(pyro.sample("scale", ...))``: the ratio to the noise stays,
    and the nodes are found once. With :math:`z` as a site of its own the
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
            sum one; one of standard deviation s needs ``num_nodes`` of at least 6 / s. Found once
            if it has no gradient: its parameters must not change in place.
        unit: Whether ``unit_filters`` of the filters are meant, of mean zero and norm one; else
            integrals over pixels, with norms of about :math:`2.3 / k` (edges) to :math:`3.3 / k`.
        noise_tril: Lower triangular :math:`L`, shape ``(k * k, k * k)``, for noise of covariance
            :math:`\sigma^2 L L^\top`.
        num_nodes: Nodes along each of the two angles, even. The default suffices for an error
            below 1e-8 (float32: 1e-6) in the mean and on 99 % of draws of the distribution; of
            thousands, the worst may be wrong by 1e-4. It grows with ``amplitude / noise``, up to
            512, and is doubled for narrow densities without gradient. To be given where
            amplitudes vary under ``torch.vmap`` or ``torch.jit.trace``, and for
            ``torch.compile(fullgraph=True)`` of the constructor.
        validate_args: Whether to check arguments and values.

    Warns:
        UserWarning: When validation is on and the mass of a density with gradient, summed over
            the nodes, is not one.

    Raises:
        ValueError: If an argument is out of range or has the wrong shape, ``density`` lives
            elsewhere, is too narrow for the nodes, or ``noise``, a plain number, is so small
            that no ``num_nodes`` was foreseen. For tensors, which may be draws of a prior or steps
            of an optimiser, the default is then 512, and the density less exact.

    Example:
        >>> d = KleinFilter(3, amplitude=1.0, noise=0.3)
        >>> edge = torch.tensor([[-0.5, 0.0, 0.5]]).expand(3, 3)
        >>> checks = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 0.0, -1.0], [1.0, -1.0, 1.0]]) / 2.5
        >>> (d.log_prob(edge) - d.log_prob(checks)).round()  # of about the same norm
        tensor(3.)
    """

    manifold = KleinBottle()

    _needed = {False: ((8, 16), (6, 5.5)), True: ((24, 21), (8, 8))}
    _coordinates = staticmethod(klein_coordinates)

    def _basis(self) -> Tensor:
        return klein_basis(self.kernel_size, self.noise)

    @staticmethod
    def _half(like: Tensor, *counts: int) -> tuple[Tensor, Tensor]:
        first, second = (
            torch.arange(count, dtype=like.dtype, device=like.device) * (math.pi / count)
            for count in counts
        )
        # Every other row is shifted by half a step: as exact as a quarter more nodes without.
        # The first count is even, so that rows meet others shifted likewise after a half-turn.
        shift = math.pi / counts[1] * (torch.arange(counts[0], device=like.device) % 2) / 2
        t1 = first.unsqueeze(-1).expand(counts)
        points = torch.stack([t1, second + shift.to(like.dtype).unsqueeze(-1)], -1).flatten(0, 1)
        return points, points + points.new_tensor([0.0, math.pi])
