"""Priors of weights that heed the size of a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import AffineTransform

from pyro_manifolds.nn.bayesian.placement import placed_like

__all__ = ["fan_in_normal", "owner_prior", "scaled_to_fan_in"]

_Fan = Literal["fan_in", "fan_out", "fan_avg"]
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_LOCATION_SCALE = (dist.Normal, dist.Laplace, dist.StudentT)


def fan_in_normal(parameter: Tensor) -> dist.Normal:
    """Return the prior that parameters have for which none is given.

    Matrices and filters are normal with mean zero and variance ``2 / fan_in``, with the fan-in of
    ``torch.nn.init``: the second dimension times the rest, which is what one output sees in all
    layers but transposed convolutions. Biases and other vectors are standard normal.

    :class:`BayesianModule` makes three exceptions where this is the default: weights of
    normalisation layers are normal about one, those of embeddings, which see one entry at a
    time, standard normal, and the fan-in of transposed convolutions is what one output sees at
    most, ``in_channels / groups`` times the size of the kernel.

    Args:
        parameter: The parameter.

    Example:
        >>> fan_in_normal(torch.zeros(10, 8)).scale
        tensor(0.5000)
    """
    scale = math.sqrt(2 / _fan(parameter, "fan_in")) if parameter.dim() > 1 else 1.0
    return dist.Normal(parameter.new_zeros(()), parameter.new_tensor(scale))


def _transposed_normal(groups: int, parameter: Tensor) -> dist.Normal:
    """Prior of a weight of shape ``(in_channels, out_channels / groups, *kernel)``."""
    scale = math.sqrt(2 * groups / parameter[:, 0].numel())
    return dist.Normal(parameter.new_zeros(()), parameter.new_tensor(scale))


def _about_one(parameter: Tensor) -> dist.Normal:
    return dist.Normal(parameter.new_ones(()), parameter.new_ones(()))


def _standard_normal(parameter: Tensor) -> dist.Normal:
    return dist.Normal(parameter.new_zeros(()), parameter.new_ones(()))


def owner_prior(owner: nn.Module, leaf: str) -> Callable[[Tensor], dist.Normal]:
    """Return the default prior of the parameter that ``owner`` holds as ``leaf``."""
    if isinstance(owner, _NORMS):
        return _about_one if leaf == "weight" else _standard_normal
    if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        return _standard_normal
    if isinstance(owner, nn.modules.conv._ConvTransposeNd) and leaf == "weight":
        return partial(_transposed_normal, owner.groups)
    return fan_in_normal


class scaled_to_fan_in:  # noqa: N801 - used as a function; a class, so that models can be pickled
    """Function of a parameter: a prior rescaled to the usual variance of weights.

    The mean of the variances of the weights becomes ``gain / fan``; the shape of the prior, its
    correlations and its ratio of signal to noise stay. He's initialisation is ``gain=2``; that of
    Glorot is ``gain=1`` and ``mode="fan_avg"``. The fans are those of ``torch.nn.init``, which
    exchanges them for transposed convolutions, whose weights have the input first: take
    ``mode="fan_out"`` for what one of their outputs sees.

    Distributions with a method ``rescale(factor)`` are rescaled by it, all others about zero.

    References:
        | Delving Deep into Rectifiers (He, Zhang, Ren and Sun, 2015), arXiv 1502.01852
        | Understanding the Difficulty of Training Deep Feedforward Neural Networks (Glorot and
          Bengio, 2010)

    Args:
        prior: A distribution whose event shape is the end of the parameter's shape, or a function
            of the parameter that returns one. The factor of a distribution is found once, so that
            an amplitude of it that is learned stays free; what a function samples only to scale
            its prior is undone. Rescale the result instead:
            ``he(parameter).rescale(pyro.sample("amplitude", dist.HalfNormal(1.0)))``.
        gain: Variance times fan.
        mode: ``"fan_in"``, ``"fan_out"`` or their mean, ``"fan_avg"``, as in ``torch.nn.init``.

    Raises:
        ValueError: If the gain is not positive, the mode unknown, the prior's variance is not
            finite and positive, or the parameter has fewer than two dimensions.

    Example:
        >>> prior = scaled_to_fan_in(dist.Laplace(0.0, 1.0))
        >>> prior(torch.zeros(10, 8)).variance
        tensor(0.2500)
    """

    def __init__(
        self,
        prior: TorchDistributionMixin | Callable[[Tensor], TorchDistributionMixin],
        gain: float = 2.0,
        *,
        mode: _Fan = "fan_in",
    ) -> None:
        if not gain > 0:
            raise ValueError(f"scaled_to_fan_in: expected gain > 0, got {gain}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(
                f"scaled_to_fan_in: expected mode fan_in, fan_out or fan_avg, got {mode!r}"
            )
        self.prior: Any = prior
        self.gain, self.mode = gain, mode
        self._variance: float | None = None
        self._place_of: tuple[torch.dtype, torch.device] | None = None
        if isinstance(prior, TorchDistributionMixin):
            self._variance = _checked_variance(prior).mean().item()

    def __repr__(self) -> str:
        return f"scaled_to_fan_in({self.prior}, gain={self.gain}, mode={self.mode!r})"

    def __call__(self, parameter: Tensor) -> TorchDistributionMixin:
        if parameter.dim() < 2:
            raise ValueError(
                "scaled_to_fan_in: expected a parameter of two or more dimensions, "
                f"got shape {tuple(parameter.shape)}"
            )
        variance = self.gain / _fan(parameter, self.mode)
        if self._variance is not None:
            if self._place_of != (parameter.dtype, parameter.device):
                self._placed = placed_like(self.prior, parameter)
                self._place_of = parameter.dtype, parameter.device
            return _rescale(self._placed, math.sqrt(variance / self._variance))
        prior = self.prior(parameter)
        return _rescale(prior, (variance / _mean_variance(prior, parameter.dim())).sqrt())


def _fan(parameter: Tensor, mode: _Fan) -> float:
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(parameter)
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]


def _checked_variance(prior: TorchDistributionMixin) -> Tensor:
    variance: Tensor = prior.variance
    if not bool((variance.isfinite() & (variance > 0)).all()):
        raise ValueError(
            f"scaled_to_fan_in: expected prior with a finite, positive variance, got {prior}"
        )
    return variance


def _mean_variance(prior: TorchDistributionMixin, parameter_dim: int) -> Tensor:
    """Average over one parameter; dimensions on the left of it are those of particles."""
    variance = _checked_variance(prior)
    dims = tuple(range(-min(variance.dim(), parameter_dim), 0))
    mean = variance.mean(dims, keepdim=True) if dims else variance
    return mean.reshape(mean.shape[: mean.dim() - prior.event_dim])


def _rescale(prior: Any, factor: Tensor | float) -> TorchDistributionMixin:
    if hasattr(prior, "rescale"):
        return prior.rescale(factor)
    if isinstance(prior, dist.Independent):
        depth = prior.reinterpreted_batch_ndims
        if isinstance(factor, Tensor):
            factor = factor[(...,) + (None,) * depth]
        return _rescale(prior.base_dist, factor).to_event(depth)
    if type(prior) in _LOCATION_SCALE:
        df = (prior.df,) if isinstance(prior, dist.StudentT) else ()
        return type(prior)(*df, factor * prior.loc, factor * prior.scale)
    if isinstance(factor, Tensor):
        # AffineTransform takes its log-determinant from the shape of the factor.
        event = factor[(...,) + (None,) * prior.event_dim]
        factor = event.expand(factor.shape + prior.event_shape)
    return dist.TransformedDistribution(
        prior, [AffineTransform(torch.zeros_like(prior.variance), factor, prior.event_dim)]
    )
