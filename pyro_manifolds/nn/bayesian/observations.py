"""Fitting the distribution of the targets to the plate of the data, and targets to it."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor

__all__ = ["TARGETS", "base_distribution", "check_targets", "per_datum"]

TARGETS = "_bayesian_module_targets"  # marks the site of the targets, in its ``infer``


def base_distribution(distribution: Any) -> Any:
    """Return the distribution of single entries."""
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return distribution


def per_datum(
    distribution: TorchDistributionMixin, particles: Size, size: int
) -> TorchDistributionMixin:
    """Return the distribution with one batch entry for each datum.

    Args:
        distribution: What the likelihood returned.
        particles: Shape of the vectorised particles.
        size: Number of data.

    Raises:
        TypeError: If it is no Pyro distribution.
        ValueError: If its first dimension is not that of the data.
    """
    if not isinstance(distribution, TorchDistributionMixin):
        raise TypeError(
            "BayesianModule: expected likelihood to return a distribution of "
            f"pyro.distributions, got {type(distribution).__module__}."
            f"{type(distribution).__qualname__}"
        )
    left = len(particles)
    batch = distribution.batch_shape
    if len(batch) <= left or batch[left] != size:
        raise ValueError(
            f"BayesianModule: expected likelihood to return a distribution whose batch shape "
            f"starts with {tuple(particles) + (size,)}, got {tuple(batch)}"
        )
    return distribution.to_event(len(batch) - left - 1)


def check_targets(
    distribution: TorchDistributionMixin, y: Tensor, size: int, data_size: int | None
) -> None:
    """Raise an error if the targets are not what the distribution is of.

    Args:
        distribution: Distribution with one batch entry for each datum.
        y: The targets.
        size: Number of data in the batch.
        data_size: Number of data in all.

    Raises:
        TypeError: If the targets are no tensor, or of the wrong kind.
        ValueError: If their shape is wrong or there are more than ``data_size``.
    """
    if not isinstance(y, Tensor):
        raise TypeError(f"BayesianModule: expected y to be a tensor, got {type(y).__name__}")
    expected = (size, *distribution.event_shape)
    if tuple(y.shape) != expected:
        raise ValueError(
            f"BayesianModule: expected y of shape {expected}, one target for each output of the "
            f"net, got {tuple(y.shape)}"
        )
    base = base_distribution(distribution)
    if isinstance(base, torch.distributions.Categorical) and y.dtype.is_floating_point:
        raise TypeError(f"BayesianModule: expected y of integer labels, got {y.dtype}")
    if not base.support.is_discrete and not y.dtype.is_floating_point:
        raise TypeError(f"BayesianModule: expected y of floating dtype, got {y.dtype}")
    if data_size is not None and size > data_size:
        raise ValueError(
            f"BayesianModule: expected batches of at most data_size = {data_size}, got {size}"
        )
