"""What filters are tuned to: direction, frequency and place."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["FilterTuning", "filter_tuning", "tuning_differences"]


class FilterTuning(NamedTuple):
    r"""What filters are tuned to.

    Attributes:
        orientation: Direction across the lines or edges of the filter, counterclockwise from the
            horizontal, in :math:`[0, \pi)`: 0 for vertical lines.
        selectivity: How much one direction prevails, from 0, none, to 1, a plane wave.
        frequency: Mean frequency in cycles per pixel.
        position: Centre of the energy in pixels from the middle, rightwards and upwards,
            ``[..., 2]``.
    """

    orientation: Tensor
    selectivity: Tensor
    frequency: Tensor
    position: Tensor


def filter_tuning(filters: Tensor) -> FilterTuning:
    r"""Measure direction, frequency and place of filters, by moments of their energy.

    The power spectrum P over frequencies :math:`\omega` of the filter, padded with zeros to
    some four times its size, gives the direction :math:`\tfrac12 \arg \sum P \omega_c^2` with
    :math:`\omega_c = \omega_x + i \omega_y`, its selectivity
    :math:`|\sum P \omega_c^2| / \sum P |\omega|^2`, and the mean of :math:`|\omega|` as
    frequency. The position is the mean place under the squared weights. No model is fitted, so
    that any filter has a tuning. The mean of each filter is subtracted first.

    Args:
        filters: Shape ``[..., height, width]``, at least 3 by 3, none of them constant.

    Returns:
        Measurements of batch shape ``[...]``.

    Raises:
        ValueError: If the shape is wrong or a filter is constant or not finite.

    Example:
        >>> from pyro_manifolds.geometry import filter_tuning
        >>> wave = (2 * math.pi * torch.arange(12.0) / 4).cos().expand(12, 12)
        >>> tuning = filter_tuning(wave)
        >>> round(float(tuning.orientation), 2), round(float(tuning.frequency), 1)
        (0.0, 0.3)
    """
    _check(filters)
    x = filters.detach().double()
    x = x - x.mean((-2, -1), keepdim=True)
    height, width = x.shape[-2:]
    rows, columns = 4 * height + 1, 4 * width + 1  # odd: every frequency has its negative
    power = torch.fft.fft2(x, s=(rows, columns)).abs().square()
    # Rows are counted downwards, directions counterclockwise.
    up = -torch.fft.fftfreq(rows, dtype=x.dtype, device=x.device)[:, None]
    right = torch.fft.fftfreq(columns, dtype=x.dtype, device=x.device)
    squared = up.square() + right.square()
    along = (power * (right.square() - up.square())).sum((-2, -1))
    across = (power * 2 * right * up).sum((-2, -1))
    angle = torch.atan2(across, along) / 2
    orientation = torch.where(angle < -1e-12, angle + math.pi, angle.clamp(min=0.0))
    selectivity = torch.hypot(along, across) / (power * squared).sum((-2, -1))
    frequency = (power * squared.sqrt()).sum((-2, -1)) / power.sum((-2, -1))
    energy = x.square() / x.square().sum((-2, -1), keepdim=True)
    across_pixels = torch.arange(width).to(x) - (width - 1) / 2
    up_pixels = (height - 1) / 2 - torch.arange(height).to(x)
    position = torch.stack([energy.sum(-2) @ across_pixels, energy.sum(-1) @ up_pixels], -1)
    found = FilterTuning(orientation, selectivity, frequency, position)
    return FilterTuning(*(part.to(filters.dtype) for part in found))


def tuning_differences(tuning: FilterTuning) -> dict[str, Tensor]:
    r"""Return how far any two filters are apart in each respect, for :func:`map_order`.

    Args:
        tuning: Of n filters in any batch shape.

    Returns:
        ``"orientation"`` in degrees, from 0 to 90; ``"frequency"`` in octaves; ``"position"`` in
        pixels: each ``[n, n]``.

    Example:
        >>> from pyro_manifolds.geometry import filter_tuning, tuning_differences
        >>> bars = torch.stack([torch.eye(3)[1].expand(3, 3), torch.eye(3)[:, 1:2].expand(3, 3)])
        >>> tuning_differences(filter_tuning(bars))["orientation"].round().tolist()
        [[0.0, 90.0], [90.0, 0.0]]
    """
    angle = tuning.orientation.flatten()
    turn = (angle[:, None] - angle).abs()
    octave = tuning.frequency.flatten().log2()
    place = tuning.position.reshape(-1, 2)
    return {
        "orientation": torch.minimum(turn, math.pi - turn).clamp(min=0.0).rad2deg(),
        "frequency": (octave[:, None] - octave).abs(),
        "position": (place[:, None] - place).norm(dim=-1),
    }


def _check(filters: Tensor) -> None:
    if filters.dim() < 2 or min(filters.shape[-2:]) < 3:
        raise ValueError(
            "filter_tuning: expected filters of shape (..., height, width), at least 3 by 3, got "
            f"{tuple(filters.shape)}"
        )
    if not filters.isfinite().all():
        raise ValueError("filter_tuning: expected finite filters, got nan or infinity")
    span = filters.amax((-2, -1)) - filters.amin((-2, -1))
    eps = torch.finfo(filters.dtype).eps
    if bool((span <= 8 * eps * filters.abs().amax((-2, -1))).any()):
        raise ValueError("filter_tuning: expected filters that vary, got a constant one")
