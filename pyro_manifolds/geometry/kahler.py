"""How far the Fisher metric of a decoder is from a Kähler metric."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_manifolds.geometry.fisher import Decoder, fisher_metric, hermitian_fisher
from pyro_manifolds.geometry.wirtinger import real_to_mixed_hessian, wirtinger

__all__ = ["KahlerDefect", "kahler_defect"]


class KahlerDefect(NamedTuple):
    """Two relative defects of a metric on complex latents, zero for a Kähler metric.

    Attributes:
        pure: Norm of the (2, 0) part of the Fisher metric over that of the Hermitian part. Zero
            where the metric is Hermitian: multiplication by ``1j`` is an isometry.
        closure: Norm of the exterior derivative of the fundamental form over that of the
            derivative of the Hermitian part. Zero where the Hermitian part has a potential.
    """

    pure: Tensor
    closure: Tensor


def kahler_defect(decoder: Decoder, z: Tensor) -> KahlerDefect:
    r"""Return how far the Fisher metric of a decoder is from a Kähler metric.

    In Frobenius norms, :math:`|h| / |g|` and :math:`\|\partial_k g_{ij} - \partial_i g_{kj}\| /
    \|\partial_k g_{ij}\|`, with the parts of :func:`mixed_hessian`. Both are zero for complex
    normal data with a holomorphic mean and constant noise; the second one alone for exponential
    families with pluriharmonic natural parameters. A network of real and imaginary parts has
    values about one half. It takes :math:`4 n^2` derivatives of the decoder, forward over forward,
    and holds them all: a few latents at a time are enough.

    Args:
        decoder: As for :func:`fisher_metric`.
        z: Latents, complex, shape ``[..., n]``.

    Returns:
        Two numbers a latent, each of shape ``[...]``; zero where numerator and denominator are.

    Raises:
        ValueError: As :func:`hermitian_fisher`.

    Example:
        >>> from pyro_manifolds.geometry import kahler_defect
        >>> def decoder(z):
        ...     return dist.Normal(torch.cat([z.real, z.imag, z.real * z.imag], -1), 1.0)
        >>> pure, closure = kahler_defect(decoder, torch.tensor([0.5 + 1.0j]))
        >>> pure, closure  # one complex dimension is always closed
        (tensor(0.3846), tensor(0.))
    """
    slopes = wirtinger(lambda z: hermitian_fisher(decoder, z), z)[0]  # [..., i, j, k]
    g, h = real_to_mixed_hessian(fisher_metric(decoder, z))
    pure = _ratio(h.flatten(-2), g.flatten(-2))
    return KahlerDefect(
        pure, _ratio((slopes - slopes.transpose(-1, -3)).flatten(-3), slopes.flatten(-3))
    )


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(whole, dim=-1)
    return torch.linalg.vector_norm(part, dim=-1) / norm.clamp(min=torch.finfo(norm.dtype).tiny)
