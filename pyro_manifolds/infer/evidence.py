"""Estimates of the log-evidence by importance sampling from a guide."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

__all__ = ["EvidenceBounds", "evidence_bounds", "log_importance_weights"]


class EvidenceBounds(NamedTuple):
    """Lower bounds of the log-evidence of each datum, in nats.

    Attributes:
        elbo: Mean log-weight, the evidence lower bound.
        iwae: Logarithm of the mean weight, tighter, and exact as the number of draws grows.
        iwae_error: Standard error of ``iwae`` over the draws, by the delta method.
    """

    elbo: Tensor
    iwae: Tensor
    iwae_error: Tensor


def log_importance_weights(
    model: Callable[..., Any], guide: Callable[..., Any], *args: Any, num_particles: int
) -> Tensor:
    r"""Draw :math:`\log p(x, z) - \log q(z \mid x)` for each datum of the outermost plate.

    Draws are vectorised in one plate to the left of those of the model, so the model must be
    written for ``vectorize_particles``: one data plate at dimension -1, and no other.

    Args:
        model: Pyro model with its data in a plate at dimension -1.
        guide: Guide of that model.
        *args: Arguments of both.
        num_particles: Number of draws for each datum.

    Returns:
        Log-weights of shape ``[num_particles, data]``.

    Raises:
        ValueError: If ``num_particles`` is not positive.
    """
    if num_particles < 1:
        raise ValueError(
            f"log_importance_weights: expected num_particles of at least 1, got {num_particles}"
        )
    with torch.no_grad(), pyro.plate("evidence_particles", num_particles, dim=-2):
        guide_trace = poutine.trace(guide).get_trace(*args)
        model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    return _total(model_trace) - _total(guide_trace)


def evidence_bounds(
    model: Callable[..., Any], guide: Callable[..., Any], *args: Any, num_particles: int = 64
) -> EvidenceBounds:
    r"""Bound the log-evidence of each datum by the ELBO and by importance weighting.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016), arXiv
          1509.00519

    Args:
        model: Pyro model with its data in a plate at dimension -1.
        guide: Guide of that model.
        *args: Arguments of both.
        num_particles: Number of draws for each datum.

    Example:
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", ManifoldUniform(Circle()))
        ...         pyro.sample("x", VonMises(z, 5.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", VonMises(x, 5.0))
        >>> evidence_bounds(model, guide, torch.zeros(2), num_particles=8).iwae
        tensor([-1.8379, -1.8379])
    """
    weights = log_importance_weights(model, guide, *args, num_particles=num_particles)
    iwae = weights.logsumexp(0) - math.log(num_particles)
    relative = (weights - iwae).exp()
    error = relative.std(0) / math.sqrt(num_particles) if num_particles > 1 else iwae * math.nan
    return EvidenceBounds(weights.mean(0), iwae, error)


def _total(trace: poutine.Trace) -> Tensor:
    """Add up the log-densities of the sample sites, each of shape ``[particles, data]``."""
    sites = (site for site in trace.nodes.values() if site["type"] == "sample")
    terms = [site["unscaled_log_prob"] for site in sites if not _is_plate(site)]
    return torch.stack(torch.broadcast_tensors(*terms)).sum(0)


def _is_plate(site: Mapping[str, Any]) -> bool:
    return isinstance(site["fn"], poutine.subsample_messenger._Subsample)
