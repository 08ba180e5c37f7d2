"""The prior of one parameter, fitted to its shape."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor, nn

from pyro_manifolds.distributions.filter_distribution import FilterDistribution
from pyro_manifolds.nn.bayesian.hyperparameters import HyperparameterMessenger
from pyro_manifolds.nn.bayesian.observations import base_distribution
from pyro_manifolds.nn.bayesian.placement import placed_like
from pyro_manifolds.nn.bayesian.priors import scaled_to_fan_in
from pyro_manifolds.nn.bayesian.rules import Prior

__all__ = ["WeightPrior", "module_of"]


def module_of(prior: Any) -> nn.Module | None:
    """Return the module that a prior is, or that it rescales."""
    while isinstance(prior, scaled_to_fan_in):
        prior = prior.prior
    return prior if isinstance(prior, nn.Module) else None


class WeightPrior:
    """Prior of the parameter ``name``: a distribution over all of it.

    Args:
        name: Name of the parameter, for errors and as the scope of hyperparameters.
        prior: A distribution whose event shape ends the parameter's shape, or a function of the
            parameter that returns one.
        parameter: The parameter.

    Raises:
        TypeError: If the prior is, or returns, something else.
        ValueError: If it does not fit the parameter's shape.
    """

    def __init__(self, name: str, prior: Prior, parameter: Tensor) -> None:
        self.name = name
        self.prior: Any = prior
        self.event_dim = 0
        if isinstance(prior, scaled_to_fan_in) and isinstance(prior.prior, TorchDistributionMixin):
            rescaled: Any = prior
            self.prior = rescaled(parameter)  # once, as it is fixed
        if isinstance(self.prior, TorchDistributionMixin):
            self._place(parameter)
        elif callable(prior):
            # A module belongs to the model first, which gives its parameters their names.
            if module_of(prior) is None:
                self.event_dim = self._try(parameter)
        else:
            raise TypeError(
                f"BayesianModule: expected a Pyro distribution, a function or None as the prior "
                f"of '{name}', got {prior!r}"
            )

    def __call__(self, parameter: Tensor) -> TorchDistributionMixin:
        if isinstance(self.prior, TorchDistributionMixin):
            if self._place_of != (parameter.dtype, parameter.device):
                self._place(parameter)
            return self._placed
        is_module = module_of(self.prior) is not None
        prefix = "" if is_module else f"{self.name}/"
        dims = 0 if is_module else parameter.dim() - self.event_dim
        with HyperparameterMessenger(prefix, dims) as hyperparameters:
            prior = self.prior(parameter)
        return self._fit(prior, parameter.shape, hyperparameters.particles)

    def _place(self, parameter: Tensor) -> None:
        """Follow the module, which may be moved to another dtype or device."""
        self._place_of = parameter.dtype, parameter.device
        placed = placed_like(self.prior, parameter, detach=True)
        self._placed = self._fit(placed, parameter.shape, Size())

    def _try(self, parameter: Tensor) -> int:
        """Call the function once, so that errors come when the model is built."""
        devices = [parameter.device] if parameter.is_cuda else []
        quiet = HyperparameterMessenger(f"{self.name}/")
        with torch.random.fork_rng(devices), torch.no_grad(), poutine.block(), quiet:
            prior = self.prior(parameter)
        self._fit(prior, parameter.shape, Size())
        return int(prior.event_dim)

    def _fit(
        self, prior: TorchDistributionMixin, shape: Size, particles: Size
    ) -> TorchDistributionMixin:
        if not isinstance(prior, TorchDistributionMixin):
            raise TypeError(
                f"BayesianModule: expected a Pyro distribution from the prior of '{self.name}', "
                f"got {type(prior).__name__}"
            )
        rest = len(shape) - prior.event_dim
        if rest < 0 or prior.event_shape != shape[rest:]:
            raise ValueError(
                f"BayesianModule: expected a prior of '{self.name}' whose event shape is the end "
                f"of the parameter's shape {tuple(shape)}, got {tuple(prior.event_shape)}"
            )
        if isinstance(base_distribution(prior), FilterDistribution) and len(shape) != 4:
            raise ValueError(
                f"BayesianModule: expected a parameter of four dimensions for the prior of "
                f"'{self.name}', a distribution of square filters as in Conv2d, got shape "
                f"{tuple(shape)}"
            )
        # With particles every dimension must be there: a missing one would be taken for theirs.
        left = particles + (1,) if particles else Size()
        whole = left + shape[:rest]
        if particles and len(prior.batch_shape) != len(whole):
            fits = False
        else:
            fits = _broadcasts(prior.batch_shape, whole)
        if not fits:
            raise ValueError(
                f"BayesianModule: expected a prior of '{self.name}' whose batch shape broadcasts "
                f"to {tuple(whole)}, got {tuple(prior.batch_shape)}; samples of hyperparameters "
                "have the dimensions of vectorised particles on their left, so index them from "
                "the right, as in amplitude[..., None]"
            )
        return prior.expand(whole).to_event(rest)


def _broadcasts(shape: Size, whole: Size) -> bool:
    try:
        return torch.broadcast_shapes(shape, whole) == whole
    except RuntimeError:
        return False
