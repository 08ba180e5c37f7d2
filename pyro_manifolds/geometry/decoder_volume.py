"""The volume element of a decoder: how much data there is about a latent."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from pyro_manifolds.geometry.fisher import Decoder, fisher_metric, fisher_root, hermitian_fisher
from pyro_manifolds.ops.volume_element import half_log_det_gram

__all__ = ["log_det_metric", "log_volume"]

Volume = Literal["hermitian", "riemannian"]


def log_volume(
    decoder: Decoder, z: Tensor, *, volume: Volume | None = None, eps: float = 0.0
) -> Tensor:
    r"""Return the logarithm of the volume element of the Fisher metric of a decoder.

    With respect to Lebesgue measure (:math:`dx\, dy` for complex latents), it is

    - ``riemannian``: :math:`\sqrt{\det G}` with all of :func:`fisher_metric`;
    - ``hermitian``: :math:`2^n \det g` with :func:`hermitian_fisher`, the volume of its
      fundamental form. It is never below the first, and equal to it where the Hermitian part is
      all there is.

    The first is zero where data have fewer dimensions than the latent, seen as real. Without
    ``eps`` it is found from a triangular decomposition, which keeps digits that a determinant
    would lose.

    Args:
        decoder: As for :func:`fisher_metric`.
        z: Latents, shape ``[..., n]``.
        volume: Which of the two; by default the Hermitian one for complex latents, and the
            Riemannian one for real latents, which have no other.
        eps: What is added to the diagonal of the metric. It bounds the logarithm and its gradient
            where a direction collapses.

    Returns:
        Logarithms of shape ``[...]``, real.

    Raises:
        ValueError: If ``volume`` is neither, or "hermitian" for real latents, or ``eps`` is
            negative; and as :func:`fisher_metric`.

    Example:
        >>> from pyro_manifolds.geometry import log_volume
        >>> def decoder(z):
        ...     return dist.Normal(torch.cat([3 * z, 4 * z], -1), 1.0).to_event(1)
        >>> log_volume(decoder, torch.zeros(2, 1)).exp()
        tensor([5., 5.])
    """
    volume = _checked("log_volume", volume, z, eps)
    if volume == "riemannian" and eps == 0:
        root = fisher_root(decoder, z)
        if root.shape[-2] < root.shape[-1]:
            return root.new_full(z.shape[:-1], -math.inf)
        return half_log_det_gram(root)
    log_det = log_det_metric(decoder, z, volume=volume, eps=eps)
    return log_det / 2 if volume == "riemannian" else log_det + z.shape[-1] * math.log(2)


def log_det_metric(
    decoder: Decoder, z: Tensor, *, volume: Volume | None = None, eps: float = 0.0
) -> Tensor:
    r"""Return :math:`\log\det (G + \varepsilon 1)` of a metric of :func:`log_volume`.

    Args:
        decoder: As for :func:`fisher_metric`.
        z: Latents, shape ``[..., n]``.
        volume: As for :func:`log_volume`.
        eps: As for :func:`log_volume`.

    Returns:
        Logarithms of shape ``[...]``, real.

    Raises:
        ValueError: As :func:`log_volume`.

    Example:
        >>> from pyro_manifolds.geometry import log_det_metric
        >>> log_det_metric(lambda z: dist.Normal(3 * z, 1.0), torch.zeros(1), eps=1.0).exp()
        tensor(10.)
    """
    volume = _checked("log_det_metric", volume, z, eps)
    metric = hermitian_fisher(decoder, z) if volume == "hermitian" else fisher_metric(decoder, z)
    # By eigenvalues: rounding makes small ones negative, and determinants cross zero there.
    return (torch.linalg.eigvalsh(metric).clamp(min=0) + eps).log().sum(-1)


def _checked(caller: str, volume: Volume | None, z: Tensor, eps: float) -> Volume:
    if volume not in (None, "hermitian", "riemannian"):
        raise ValueError(f"{caller}: expected volume 'hermitian' or 'riemannian', got {volume!r}")
    if volume == "hermitian" and not z.is_complex():
        raise ValueError(f"{caller}: expected complex z for a Hermitian volume, got {z.dtype}")
    if not eps >= 0:
        raise ValueError(f"{caller}: expected eps >= 0, got {eps}")
    return volume or ("hermitian" if z.is_complex() else "riemannian")
