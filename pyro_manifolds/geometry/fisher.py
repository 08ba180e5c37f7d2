"""Metrics that a decoder gives to its latent space: pulled back, and by information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_manifolds.geometry.fisher_coordinates import fisher_coordinates
from pyro_manifolds.geometry.wirtinger import real_to_mixed_hessian
from pyro_manifolds.ops.complex_linalg import join_parts, split_parts
from pyro_manifolds.ops.volume_element import jacobian

__all__ = ["fisher_metric", "fisher_root", "hermitian_fisher", "pullback"]

Decoder = Callable[[Tensor], Any]


def pullback(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    r"""Return the Euclidean metric of the values of a map, pulled back to its argument.

    For real points this is :math:`J^\top J` (:math:`\operatorname{Re} J^H J` of complex values).
    For complex points it is the Hermitian matrix with

    .. math:: |f(z + w) - f(z)|^2 = g_{ij} w_i \bar w_j + \text{terms in } w_i w_j
        \text{ and } \bar w_i \bar w_j,

    that is :math:`g = (J^H J)^\top` with :math:`J = \partial f` for a holomorphic map, for which
    the other terms are zero; in general :math:`\bar\partial f` adds its own part. The order of
    the indices is that of :func:`hermitian_fisher`. (Half of it is the Hermitian matrix of which
    :func:`curve_length` makes the length of the image of a curve.)

    Args:
        function: Map of ``[..., n]`` to real or complex values, of which the leading dimensions
            are those of its argument: no point may influence the image of another.
        z: Points, real or complex, shape ``[..., n]``.

    Returns:
        Real symmetric or complex Hermitian matrices, shape ``[..., n, n]``.

    Raises:
        TypeError: If the map returns no tensor.
        ValueError: If the leading dimensions of the values are not those of ``z``.

    Example:
        >>> from pyro_manifolds.geometry import pullback
        >>> pullback(lambda z: torch.stack([z[..., 0], 3 * z[..., 0]], -1), torch.zeros(1))
        tensor([[10.]])
        >>> pullback(lambda z: (1 + 2j) * z, torch.zeros(1, dtype=torch.cfloat))
        tensor([[5.+0.j]])
    """

    def parts(z: Tensor) -> tuple[Tensor, ...]:
        values = function(z)
        if not isinstance(values, Tensor):
            raise TypeError(
                "pullback: expected a map that returns a tensor, got "
                f"{type(values).__name__}; for a distribution see fisher_metric"
            )
        return (values.real, values.imag) if values.is_complex() else (values,)

    metric = _gram(_root("pullback", parts, z))
    return 2 * real_to_mixed_hessian(metric)[0] if z.is_complex() else metric


def fisher_metric(decoder: Decoder, z: Tensor) -> Tensor:
    r"""Return the Fisher information of what a decoder returns, as a metric on latents.

    :math:`G(z)` is the Hessian of :math:`\mathrm{KL}(p_z \,\|\, p_{z'})` at :math:`z' = z`. For
    independent normal data with mean :math:`m` and standard deviation :math:`\sigma` it is
    :math:`\sum_d (\nabla m_d \nabla m_d^\top + 2 \nabla \sigma_d \nabla \sigma_d^\top)
    / \sigma_d^2`. For complex latents the metric is that of the real view, and ``(dx, dy)`` are
    its coordinates, real parts first.

    It takes as many forward derivatives as the (real) dimension of the latent, all of them over
    the whole batch in one pass, and can be differentiated. The decoder must be a function in the
    sense of ``torch.func``: no dropout, no batch normalisation in training mode, no sites of its
    own.

    References:
        | Pulling back information geometry (Arvanitidis, González-Duque, Pouplin, Kalatzis and
          Hauberg, 2022)
        | https://arxiv.org/abs/2106.05367

    Args:
        decoder: Function of latents ``[..., n]`` that returns a distribution, of a kind for which
            :func:`fisher_coordinates` is registered. The leading dimensions of its parameters are
            those of the latent, and no latent may influence the distribution of another. What
            follows them is independent data, with or without ``to_event``.
        z: Latents, shape ``[..., n]``.

    Returns:
        Positive semi-definite matrices, shape ``[..., n, n]``; ``[..., 2n, 2n]`` for complex
        latents.

    Raises:
        TypeError: If the decoder returns a distribution of another kind.
        ValueError: If the leading dimensions of its parameters are not those of ``z``.

    Example:
        >>> from pyro_manifolds.geometry import fisher_metric
        >>> def decoder(z):
        ...     return dist.Normal(torch.cat([z, 2 * z], -1), 0.5).to_event(1)
        >>> fisher_metric(decoder, torch.zeros(3, 2))[0]  # (1 + 4) / 0.25
        tensor([[20.,  0.],
                [ 0., 20.]])
    """
    return _gram(fisher_root(decoder, z))


def hermitian_fisher(decoder: Decoder, z: Tensor) -> Tensor:
    r"""Return the Hermitian part of the Fisher information of a decoder of complex latents.

    :math:`g_{ij}(z) = \partial_i \bar\partial_j` of :math:`\mathrm{KL}(p_z \,\|\, p_{z'})` at
    :math:`z' = z`, so that the KL to a neighbour :math:`z + w` is :math:`g_{ij} w_i \bar w_j +
    \operatorname{Re} h_{ij} w_i w_j` to second order. For proper complex normal data with mean
    :math:`m` and total variance :math:`v` it is

    .. math:: g_{ij} = \sum_d \frac{\partial_i m \overline{\partial_j m}
        + \overline{\bar\partial_i m} \bar\partial_j m}{v}
        + \partial_i \log v\, \bar\partial_j \log v.

    This is one part of the metric: :func:`fisher_metric` is all of it. It is not a Kähler metric
    in general, not even close to one for ordinary networks; :func:`kahler_defect` tells how far
    it is from that. Only a holomorphic mean and constant noise make it one.

    References:
        | Complex variational autoencoders admit Kähler structure (Gracyk, 2025)
        | https://arxiv.org/abs/2511.15172

    Args:
        decoder: As for :func:`fisher_metric`.
        z: Latents, complex, shape ``[..., n]``.

    Returns:
        Hermitian positive semi-definite matrices, shape ``[..., n, n]``.

    Raises:
        TypeError: If the decoder returns a distribution of another kind.
        ValueError: If ``z`` is not complex, or the leading dimensions of the parameters are not
            those of ``z``.

    Example:
        >>> from pyro_manifolds.geometry import hermitian_fisher
        >>> def decoder(z):
        ...     return dist.Normal(torch.cat([z.real, 3 * z.imag], -1), 1.0).to_event(1)
        >>> hermitian_fisher(decoder, torch.zeros(1, dtype=torch.cfloat))  # (1 + 9) / 4
        tensor([[2.5000+0.j]])
    """
    if not z.is_complex():
        raise ValueError(f"hermitian_fisher: expected complex z, got {z.dtype}; see fisher_metric")
    return real_to_mixed_hessian(fisher_metric(decoder, z))[0]


def fisher_root(decoder: Decoder, z: Tensor) -> Tensor:
    r"""Return matrices :math:`R` with :math:`R^\top R` the metric of :func:`fisher_metric`.

    They are derivatives of :func:`fisher_coordinates`, of shape ``[..., N, n]``, or
    ``[..., N, 2n]`` for complex latents, with one or more rows for each number decoded.

    Example:
        >>> from pyro_manifolds.geometry import fisher_root
        >>> fisher_root(lambda z: dist.Bernoulli(logits=z), torch.zeros(1))
        tensor([[0.5000]])
    """
    at = decoder(z)
    return _root("decoder", lambda z: fisher_coordinates(decoder(z), at), z)


def _root(name: str, function: Callable[[Tensor], tuple[Tensor, ...]], z: Tensor) -> Tensor:
    """Return the Jacobian of all values together, by the real view of the points."""
    view, points = (join_parts, split_parts(z)) if z.is_complex() else (torch.as_tensor, z)
    batch = z.shape[:-1]

    def values(points: Tensor) -> Tensor:
        parts = function(view(points))
        for part in parts:
            if part.shape[: len(batch)] != batch:
                raise ValueError(
                    f"{name}: expected values that begin with the shape {tuple(batch)} of the "
                    f"points, got shape {tuple(part.shape)}"
                )
        return torch.cat([part.reshape(batch + (-1,)) for part in parts], -1)

    return jacobian(values, points)


def _gram(root: Tensor) -> Tensor:
    return root.mT @ root
