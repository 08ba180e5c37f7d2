"""Estimates of the log-evidence by importance sampling from a guide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from pyro_manifolds.infer.importance import log_importance_weights
from pyro_manifolds.ops.pareto import pareto_k

__all__ = ["Estimate", "EvidenceBounds", "evidence_bounds", "log_importance_weights"]


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, eq=False)
class EvidenceBounds:
    """Lower bounds of the log-evidence of each datum, or of all data together, in nats.

    Unpacks as ``elbo, iwae, iwae_error``.

    Attributes:
        elbo: Mean log-weight, the evidence lower bound.
        iwae: Logarithm of the mean weight, tighter, and exact as the number of draws grows.
        iwae_error: Standard error of ``iwae`` over the draws, by the delta method.
        ess: Effective sample size of the weights: few of many draws mean that ``iwae`` and its
            error hang on those few.
        pareto_k: Shape of the tail of the weights, see
            :func:`~pyro_manifolds.ops.pareto.pareto_k`: above 0.7, neither is to be trusted.
    """

    elbo: Tensor
    iwae: Tensor
    iwae_error: Tensor
    ess: Tensor
    pareto_k: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.elbo, self.iwae, self.iwae_error))

    def total(self) -> Estimate:
        """Return the log-evidence of all data, with its standard error over the draws."""
        error = self.iwae_error.square().sum().sqrt()
        return Estimate(self.iwae.sum().item(), error.item())

    def mean(self) -> Estimate:
        """Return the mean log-evidence of a datum, with its standard error over the data.

        The data count as draws from a population, of which this is the mean. The error over the
        draws, smaller as a rule, is part of it; the two are the same for one datum.
        """
        return mean_over_data(self.iwae, self.iwae_error)


def mean_over_data(values: Tensor, errors: Tensor) -> Estimate:
    """Return a mean and its standard error over the data, or else that of the one value."""
    count = values.numel()
    error = values.std() / math.sqrt(count) if count > 1 else errors
    return Estimate(values.mean().item(), error.item())


def evidence_bounds(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_particles: int = 64,
    chunk_size: int | None = None,
    max_plate_nesting: int = 1,
    **kwargs: Any,
) -> EvidenceBounds:
    r"""Bound the log-evidence by the ELBO and by importance weighting.

    Each datum has bounds of its own where everything random in model and guide lies in the plate
    of the data; otherwise the bounds are of all data together, see :func:`log_importance_weights`.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016), arXiv
          1509.00519

    Args:
        model: Pyro model.
        guide: Guide of that model; called before, if it creates its parameters then.
        *args: Arguments of both.
        num_particles: Number of draws.
        chunk_size: Number of draws at a time, to bound the memory; all of them by default.
        max_plate_nesting: Number of dimensions of the plates of the model.
        **kwargs: Keyword arguments of both.

    Raises:
        ValueError: As for :func:`log_importance_weights`.

    Example:
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", ManifoldUniform(Circle()))
        ...         pyro.sample("x", VonMises(z, 5.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", VonMises(x, 5.0))
        >>> bounds = evidence_bounds(model, guide, torch.zeros(2), num_particles=8)
        >>> bounds.iwae, bounds.ess
        (tensor([-1.8379, -1.8379]), tensor([8., 8.]))
        >>> round(bounds.total().value, 4)
        -3.6758
    """
    weights = log_importance_weights(
        model,
        guide,
        *args,
        num_particles=num_particles,
        chunk_size=chunk_size,
        max_plate_nesting=max_plate_nesting,
        **kwargs,
    )
    iwae = weights.logsumexp(0) - math.log(num_particles)
    relative = (weights - iwae).exp()
    error = relative.std(0) / math.sqrt(num_particles) if num_particles > 1 else iwae * math.nan
    ess = num_particles / relative.square().mean(0)
    return EvidenceBounds(weights.mean(0), iwae, error, ess, pareto_k(weights))
