"""Density of a normal distribution pushed from a tangent space to the sphere, all preimages."""

import math

import torch
from torch import Tensor

__all__ = ["MAX_SCALE", "tangent_normal_log_prob"]

MAX_SCALE = 2 * math.pi


def tangent_normal_log_prob(angle: Tensor, scale: Tensor, dim: int) -> Tensor:
    r"""Log-density on :math:`S^m` of :math:`\exp_\mu(\sigma \varepsilon)`, with respect to volume.

    The preimages of a point at the angle :math:`\theta` lie at the radii
    :math:`|\theta + 2\pi k|`, so

    .. math::
        p = (2\pi\sigma^2)^{-m/2} \sum_{k} e^{-(\theta + 2\pi k)^2 / 2\sigma^2}
            \left(\frac{|\theta + 2\pi k|}{\sin \theta}\right)^{m-1}

    The sum is cut where the remainder is below the resolution of float64 for every scale up to one
    turn, ``MAX_SCALE``.

    Args:
        angle: Angle between value and location, in [0, pi].
        scale: Standard deviation in radians, in (0, 2 pi]; broadcasts with ``angle``.
        dim: Dimension :math:`m` of the sphere.

    Example:
        >>> tangent_normal_log_prob(torch.tensor(0.5), torch.tensor(1.0), dim=2)
        tensor(-1.9209)
    """
    # The radial density peaks at sigma * sqrt(m - 1) and falls like a normal beyond.
    reach = MAX_SCALE * (math.sqrt(dim - 1) + 9) / (2 * math.pi)
    turns = math.ceil(reach + 0.5)
    # Winding 0 apart: its ratio of radius to sine is finite at zero.
    positive = torch.arange(1, turns + 1, dtype=angle.dtype, device=angle.device)
    k = torch.cat([-positive, positive])
    radii = (angle.unsqueeze(-1) + 2 * math.pi * k).abs()
    tiny = torch.finfo(angle.dtype).tiny ** 0.5
    log_sin = angle.sin().abs().clamp(min=tiny).log().unsqueeze(-1)
    others = _log_term(radii, scale.unsqueeze(-1), radii.log() - log_sin, dim).logsumexp(-1)
    log_sinc = torch.sinc(angle / math.pi).abs().clamp(min=tiny).log()
    nearest = _log_term(angle, scale, -log_sinc, dim)
    return torch.stack([nearest, others]).logsumexp(0) - dim * (
        0.5 * math.log(2 * math.pi) + scale.log()
    )


def _log_term(radius: Tensor, scale: Tensor, log_ratio: Tensor, dim: int) -> Tensor:
    return -0.5 * (radius / scale).square() + (dim - 1) * log_ratio
