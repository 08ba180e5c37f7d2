"""Distributions of filters that crowd round the image of a manifold."""

from __future__ import annotations

import abc
import copy
import math
from typing import Any, NamedTuple

import torch
from pyro.distributions import (
    LowRankMultivariateNormal,
    MultivariateNormal,
    TorchDistribution,
    TransformedDistribution,
    constraints,
)
from torch import Size, Tensor
from torch.distributions.transforms import ReshapeTransform
from torch.types import _size
from typing_extensions import Self

from pyro_manifolds.distributions.adoption import manifold_of
from pyro_manifolds.distributions.arguments import as_tensors
from pyro_manifolds.distributions.filter_distribution import FilterDistribution
from pyro_manifolds.distributions.gaussian_filter import GaussianFilter
from pyro_manifolds.distributions.manifold_uniform import ManifoldUniform
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.ops.filters import check_kernel_size
from pyro_manifolds.ops.square_mixtures import log_square_mixture

__all__ = ["ManifoldFilter"]

_MAX_NODES = 512
# Nodes along an angle for an error of 1e-8 on draws: found by doubling, for sides 3, 5 and 7 and
# amplitudes of a filter from half the noise to eight times as much. Errors fall like those of a
# Gaussian peak, as exp(-c n^2), which tells how many float32 needs for 1e-6.
_FIRST_NODES = {False: 12, True: 24}  # by whether filters are scaled to one norm
_NODES_PER_RATIO = {False: 18, True: 25}
_FEWER_IN_FLOAT32 = math.sqrt(math.log(1e-6) / math.log(1e-8))


class _Nodes(NamedTuple):
    """Quadrature over the manifold, half of which stands for the other half too."""

    filters: Tensor  # [n, k * k]
    whitened: Tensor  # the same in coordinates in which the noise is white
    log_weights: Tensor  # density.batch_shape + (n,), of sum one


class ManifoldFilter(FilterDistribution):
    r"""Base of :class:`KleinFilter` and :class:`CircleFilter`, where it is told what this is.

    A subclass names its ``manifold`` and tells :meth:`family` and the nodes of a quadrature.
    """

    arg_constraints = {"amplitude": constraints.positive, "noise": constraints.positive}
    manifold: Manifold

    def __init__(
        self,
        kernel_size: int,
        amplitude: Tensor | float,
        noise: Tensor | float,
        density: TorchDistribution | None = None,
        *,
        unit: bool = False,
        noise_tril: Tensor | None = None,
        num_nodes: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        name = type(self).__name__
        check_kernel_size(name, kernel_size)
        self.kernel_size, self.unit = kernel_size, unit
        self.amplitude, self.noise = as_tensors(amplitude, noise)
        self.noise_tril = _checked_tril(name, noise_tril, kernel_size, self.amplitude)
        self.density = _checked_density(name, density, self.manifold, self.amplitude)
        super().__init__(
            torch.broadcast_shapes(
                self.amplitude.shape, self.noise.shape, self.density.batch_shape
            ),
            Size((kernel_size, kernel_size)),
            validate_args=validate_args,
        )
        self._nodes = self._quadrature(self._checked_number(num_nodes))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(kernel_size: {self.kernel_size}, "
            f"amplitude: {self.amplitude}, noise: {self.noise}, density: {self.density})"
        )

    @abc.abstractmethod
    def family(self, points: Tensor) -> Tensor:
        """Return the filters :math:`F(z)` of points, ``batch + (k, k)``."""

    @abc.abstractmethod
    def _half(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the nodes of one half of the manifold, and of the other, with filters negated."""

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.density.has_rsample)

    @property
    def covariance_matrix(self) -> Tensor:
        filters, _, log_weights = self._nodes
        second = (filters.mT * log_weights.exp().unsqueeze(-2)) @ filters
        eye = torch.eye(self.kernel_size**2, dtype=filters.dtype, device=filters.device)
        noise = eye if self.noise_tril is None else self.noise_tril @ self.noise_tril.mT
        amplitude, sigma = (s[..., None, None] for s in (self.amplitude, self.noise))
        covariance = amplitude.square() * second + sigma.square() * noise
        return covariance.expand(self.batch_shape + covariance.shape[-2:])

    def matched_gaussian(self) -> GaussianFilter:
        """Return the normal distribution of equal covariance, the control without a manifold."""
        return GaussianFilter(self.covariance_matrix, validate_args=False)

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        new = self._get_checked_instance(ManifoldFilter, _instance or copy.copy(self))
        torch.empty(self.batch_shape, device="meta").expand(batch_shape)  # refuses what cannot be
        new._batch_shape = Size(batch_shape)  # parameters are not expanded: nodes serve all rows
        return new

    def rescale(self, factor: Tensor | float) -> Self:
        factor = torch.as_tensor(factor, dtype=self.noise.dtype, device=self.noise.device)
        new = self.expand(torch.broadcast_shapes(self.batch_shape, factor.shape))
        new.amplitude, new.noise = factor * self.amplitude, factor * self.noise
        return new

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        return self._around(self.density.expand(self.batch_shape).rsample(sample_shape))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self._around(self.density.expand(self.batch_shape).sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        w = self._whiten(value.flatten(-2))
        size = w.shape[-1]
        constant = (size - 1) * self.noise.log() + 0.5 * size * math.log(2 * math.pi)
        if self.noise_tril is not None:
            constant = constant + self.noise_tril.diagonal().log().sum()
        square = w.square().sum(-1) / self.noise.square()
        log_prob = self._log_mixed(w) - 0.5 * square - constant
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def given(self, points: Tensor) -> TorchDistribution:
        r"""Return the distribution of filters given their points of the manifold.

        It is normal, with covariance :math:`\tau^2 F F^\top + \sigma^2 L L^\top`: the amplitude
        is integrated out.

        Args:
            points: Shape ``batch + manifold.event_shape``, where ``batch`` broadcasts with
                ``batch_shape``.

        Returns:
            Distribution with event shape ``(k, k)``.

        Example:
            >>> KleinFilter(3, 1.0, 0.5).given(torch.zeros(4, 2)).batch_shape
            torch.Size([4])
        """
        size = self.kernel_size**2
        factor = self.amplitude[..., None, None] * self.family(points).flatten(-2).unsqueeze(-1)
        loc, variance = factor.new_zeros(size), self.noise.square().unsqueeze(-1)
        normal: TorchDistribution
        if self.noise_tril is None:
            normal = LowRankMultivariateNormal(
                loc, factor, variance.expand(variance.shape[:-1] + (size,))
            )
        else:
            coloured = variance.unsqueeze(-1) * (self.noise_tril @ self.noise_tril.mT)
            normal = MultivariateNormal(loc, factor @ factor.mT + coloured)
        return TransformedDistribution(normal, [ReshapeTransform((size,), self.event_shape)])

    def log_posterior(self, value: Tensor, points: Tensor) -> Tensor:
        """Return the log-density of the points, given the filters.

        The density is with respect to the Riemannian volume of the manifold.

        Args:
            value: Filters, ``batch + (k, k)``.
            points: Shape ``batch + manifold.event_shape``; both batches broadcast.

        Example:
            >>> d = KleinFilter(3, 1.0, 0.5)
            >>> d.log_posterior(torch.zeros(3, 3), torch.zeros(2)).shape
            torch.Size([])
        """
        likelihood = self.given(points).log_prob(value)
        return likelihood + self.density.log_prob(points) - self.log_prob(value)

    def _log_mixed(self, w: Tensor) -> Tensor:
        """Average what depends on the point over the manifold, for coordinates of white noise."""
        _, filters, log_weights = self._nodes
        signal, noise = (s.square().unsqueeze(-1) for s in (self.amplitude, self.noise))
        total = noise + signal * filters.square().sum(-1)
        gain = signal / (2 * noise * total)
        return log_square_mixture(w, filters, gain, log_weights - 0.5 * total.log())

    def _around(self, points: Tensor) -> Tensor:
        filters = self.family(points)
        batch = filters.shape[:-2]
        amplitude = self.amplitude * torch.randn(batch).to(filters)
        noise = torch.randn_like(filters.flatten(-2))
        if self.noise_tril is not None:
            noise = noise @ self.noise_tril.mT
        noise = noise.reshape(filters.shape)
        return amplitude[..., None, None] * filters + self.noise[..., None, None] * noise

    def _quadrature(self, number: int) -> _Nodes:
        here, opposite = self._half(number)
        log_weights = [self._log_density(points) for points in (here, opposite)]
        filters = self.family(here).flatten(-2)
        # Of sum one, so that the density of filters is one however narrow that of points.
        return _Nodes(
            filters, self._whiten(filters), torch.logaddexp(*log_weights).log_softmax(-1)
        )

    def _log_density(self, points: Tensor) -> Tensor:
        event = points.shape[1:]
        rows = points.reshape(points.shape[:1] + (1,) * len(self.density.batch_shape) + event)
        return self.density.log_prob(rows).movedim(0, -1)

    def _whiten(self, filters: Tensor) -> Tensor:
        """Return the filters, flat, in coordinates in which the noise is white."""
        if self.noise_tril is None:
            return filters
        rows = filters.reshape(-1, filters.shape[-1])
        white = torch.linalg.solve_triangular(self.noise_tril, rows.mT, upper=False).mT
        return white.reshape(filters.shape)

    def _checked_number(self, number: int | None) -> int:
        """Return the number of nodes, by default enough for draws of the distribution."""
        name = type(self).__name__
        if number is not None:
            if number < 4 or number % 2:
                raise ValueError(f"{name}: expected num_nodes to be even and >= 4, got {number}")
            return number
        coarse = self._whiten(self.family(self._half(16)[0]).flatten(-2))
        ratio = float((self.amplitude / self.noise).detach().max() * coarse.norm(dim=-1).max())
        first, per_ratio = _FIRST_NODES[self.unit], _NODES_PER_RATIO[self.unit]
        fewer = 1.0 if coarse.dtype == torch.float64 else _FEWER_IN_FLOAT32
        needed = 2 * math.ceil(fewer * (first + per_ratio * ratio) / 2)
        if needed > _MAX_NODES:
            raise ValueError(
                f"{name}: expected filters F of an amplitude of at most "
                f"{(_MAX_NODES - first) / per_ratio:.0f} times the noise, got {ratio:.3g}; "
                "raise noise, or give num_nodes"
            )
        return needed


def _checked_tril(
    name: str, noise_tril: Tensor | None, kernel_size: int, like: Tensor
) -> Tensor | None:
    if noise_tril is None:
        return None
    size = kernel_size**2
    if noise_tril.shape != (size, size):
        raise ValueError(
            f"{name}: expected noise_tril of shape {(size, size)}, got {tuple(noise_tril.shape)}"
        )
    if not constraints.lower_cholesky.check(noise_tril):
        raise ValueError(
            f"{name}: expected noise_tril to be lower triangular with a positive diagonal"
        )
    return noise_tril.to(like)


def _checked_density(
    name: str, density: TorchDistribution | None, manifold: Manifold, like: Tensor
) -> TorchDistribution:
    if density is None:
        return ManifoldUniform(manifold, dtype=like.dtype, device=like.device)
    if manifold_of(density) != manifold or density.event_shape != manifold.event_shape:
        raise ValueError(
            f"{name}: expected density on {manifold}, with event shape "
            f"{tuple(manifold.event_shape)}, got {density}"
        )
    return density
