"""Distributions of filters that crowd round the image of a manifold."""

from __future__ import annotations

import abc
import copy
import math
import warnings
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.types import _size
from typing_extensions import Self

from pyro_manifolds.distributions.adoption import manifold_of
from pyro_manifolds.distributions.arguments import as_tensors
from pyro_manifolds.distributions.filter_distribution import FilterDistribution
from pyro_manifolds.distributions.filter_nodes import (
    counts_for,
    given_counts,
    lacks_nodes,
    log_density,
    log_masses,
    mass_fault,
)
from pyro_manifolds.distributions.gaussian_filter import GaussianFilter, gaussian_along
from pyro_manifolds.distributions.manifold_uniform import ManifoldUniform
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.ops.filters import check_kernel_size, unit_filters
from pyro_manifolds.ops.square_mixtures import SquareMixture

__all__ = ["ManifoldFilter"]


class ManifoldFilter(FilterDistribution):
    r"""Base of :class:`KleinFilter` and :class:`CircleFilter`, where it is told what this is.

    A subclass names its ``manifold``, and tells of which filters those of points are linear
    combinations, and the nodes of a quadrature.
    """

    arg_constraints = {"amplitude": constraints.positive, "noise": constraints.positive}
    manifold: Manifold
    # For each angle: nodes for an error of 1e-8 on 99 % of draws at amplitude zero, and more by
    # the ratio of the amplitude of a filter to the noise; by whether filters are scaled to one
    # norm. Found by counting up, for sides 3, 5 and 7 and ratios from 0.3 to 8.
    _needed: dict[bool, tuple[tuple[float, float], ...]]

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
        self.kernel_size, self.unit = check_kernel_size(name, kernel_size), unit
        are_numbers = not isinstance(amplitude, Tensor) and not isinstance(noise, Tensor)
        self.amplitude, self.noise = map(_own, as_tensors(amplitude, noise))
        if density is not None:
            _check_density(name, density, self.manifold)
            if are_numbers:  # which have no precision of their own
                self._promote_to(density)
        self.noise_tril = None if noise_tril is None else _own(noise_tril.to(self.amplitude))
        self.density = self._uniform(validate_args) if density is None else density
        super().__init__(
            torch.broadcast_shapes(
                self.amplitude.shape, self.noise.shape, self.density.batch_shape
            ),
            Size((kernel_size, kernel_size)),
            validate_args=validate_args,
        )
        self._check_tril()
        self._unscaled = self.amplitude, self.noise
        self._counts = self._found_counts(num_nodes, are_numbers)
        # What has no gradient cannot change with the steps of an optimiser, and is found once.
        self._fixed_log_weights: Tensor | None = None
        if not self._density_has_gradient():
            self._fixed_log_weights = self._found_log_weights(num_nodes is None)
        self._nodes = self._quadrature(self._counts)
        self._fixed_mixture = None if self._has_gradient() else self._mixture()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(kernel_size: {self.kernel_size}, "
            f"amplitude: {self.amplitude}, noise: {self.noise}, density: {self.density})"
        )

    @staticmethod
    @abc.abstractmethod
    def _coordinates(points: Tensor, /) -> Tensor:
        """Return what the filters of points are in the basis, ``batch + (m,)``."""

    @abc.abstractmethod
    def _basis(self) -> Tensor:
        """Return filters of which those of points are linear combinations, ``(m, k * k)``."""

    @staticmethod
    @abc.abstractmethod
    def _half(like: Tensor, *counts: int) -> tuple[Tensor, Tensor]:
        """Return the nodes of one half of the manifold, and of the other, with filters negated."""

    def family(self, points: Tensor) -> Tensor:
        """Return the filters :math:`F(z)` of points, ``batch + (k, k)``."""
        coordinates = self._coordinates(points).to(self.noise.dtype)
        filters = (coordinates @ self._basis()).unflatten(-1, self.event_shape)
        return unit_filters(filters) if self.unit else filters

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.density.has_rsample)

    @property
    def covariance_matrix(self) -> Tensor:
        coordinates, basis = self._nodes
        weights = self._log_weights().exp().unsqueeze(-2)
        second = basis.mT @ ((coordinates.mT * weights) @ coordinates) @ basis
        eye = torch.eye(self.kernel_size**2, dtype=basis.dtype, device=basis.device)
        noise = eye if self.noise_tril is None else self.noise_tril @ self.noise_tril.mT
        amplitude, sigma = (s[..., None, None] for s in (self.amplitude, self.noise))
        covariance = amplitude.square() * second + sigma.square() * noise
        return covariance.expand(self.batch_shape + covariance.shape[-2:])

    def matched_gaussian(self) -> GaussianFilter:
        """Return the normal distribution of equal covariance, the control without a manifold."""
        return GaussianFilter(self.covariance_matrix, validate_args=False)

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        new = copy.copy(self)
        # Parameters are not expanded: nodes serve all rows.
        new._batch_shape = torch.empty(self.batch_shape, device="meta").expand(batch_shape).shape
        return new

    def rescale(self, factor: Tensor | float) -> Self:
        factor = torch.as_tensor(factor, dtype=self.noise.dtype, device=self.noise.device).abs()
        if self._validate_args and not torch._is_all_true(factor > 0):
            raise ValueError(
                f"{type(self).__name__}: expected factor of rescale not to be zero, got {factor}"
            )
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
        dtype = torch.promote_types(value.dtype, self.noise.dtype)
        if dtype != self.noise.dtype:
            return self._in(dtype).log_prob(value)
        white = self._whiten(value.to(dtype).flatten(-2)) / self.noise.unsqueeze(-1)
        largest = 1e-2 * torch.finfo(dtype).max ** 0.5  # the square of a longer one overflows
        white = white.clamp(-largest, largest)
        constant = white.shape[-1] * (self.noise.log() + 0.5 * math.log(2 * math.pi))
        if self.noise_tril is not None:
            constant = constant + self.noise_tril.diagonal().log().sum()
        log_prob = (self._fixed_mixture or self._mixture())(white) - constant
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def given(self, points: Tensor) -> TorchDistribution:
        r"""Return the distribution of filters given their points of the manifold.

        It is normal, with covariance :math:`\tau^2 F F^\top + \sigma^2 L L^\top`: the amplitude
        is integrated out.

        Args:
            points: Shape ``batch + manifold.event_shape``, where ``batch`` broadcasts with
                ``batch_shape``.

        Returns:
            Distribution with event shape ``(k, k)``, in the dtype of amplitude and noise, to
            which points are rounded; its ``log_prob`` promotes with values.

        Example:
            >>> KleinFilter(3, 1.0, 0.5).given(torch.zeros(4, 2)).batch_shape
            torch.Size([4])
        """
        factor = self.amplitude[..., None, None] * self.family(points)
        return gaussian_along(factor, self.noise.square(), self.noise_tril)

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
        wide = self._in(torch.promote_types(value.dtype, self.noise.dtype))
        likelihood = wide.given(points).log_prob(value.to(wide.noise.dtype))
        return likelihood + self.density.log_prob(points) - wide.log_prob(value)

    def _promote_to(self, density: TorchDistribution) -> None:
        nodes = self._half(self.noise, *(4 for _ in self._needed[self.unit]))[0]
        dtype = torch.promote_types(self.noise.dtype, density.log_prob(nodes[0]).dtype)
        self.amplitude, self.noise = self.amplitude.to(dtype), self.noise.to(dtype)

    def _uniform(self, validate_args: bool | None) -> ManifoldUniform:
        dtype, device = self.noise.dtype, self.noise.device
        return ManifoldUniform(
            self.manifold, dtype=dtype, device=device, validate_args=validate_args
        )

    def _in(self, dtype: torch.dtype) -> Self:
        """Return the same distribution in another precision."""
        if dtype == self.noise.dtype:
            return self
        new = copy.copy(self)
        new.amplitude, new.noise = self.amplitude.to(dtype), self.noise.to(dtype)
        new._unscaled = self._unscaled[0].to(dtype), self._unscaled[1].to(dtype)
        new.noise_tril = None if self.noise_tril is None else self.noise_tril.to(dtype)
        new._nodes = new._quadrature(self._counts)
        if self._fixed_log_weights is not None:
            new._fixed_log_weights = new._log_masses().log_softmax(-1)
        new._fixed_mixture = None
        return new

    def _mixture(self) -> SquareMixture:
        """Return what the density averages over the manifold, for noise that is standard."""
        coordinates, basis = self._nodes
        basis = self._whiten(basis)
        amplitude, noise = self._unscaled
        # A ratio, as squares of a small amplitude or noise underflow.
        power = (amplitude / noise).square().unsqueeze(-1)
        total = 1 + power * (coordinates @ basis).square().sum(-1)
        offset = self._log_weights() - 0.5 * total.log()
        return SquareMixture(coordinates, basis, power / (2 * total), offset)

    def _around(self, points: Tensor) -> Tensor:
        filters = self.family(points)
        batch = filters.shape[:-2]
        amplitude = self.amplitude * filters.new_empty(batch).normal_()
        noise = torch.randn_like(filters.flatten(-2))
        if self.noise_tril is not None:
            noise = noise @ self.noise_tril.mT
        noise = noise.reshape(filters.shape)
        return amplitude[..., None, None] * filters + self.noise[..., None, None] * noise

    def _quadrature(self, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the filters of half the nodes as coordinates, and the basis."""
        coordinates = self._coordinates(self._half(self.noise, *counts)[0])
        basis = self._basis()
        if not self.unit:
            return coordinates, basis
        basis = basis - basis.mean(-1, keepdim=True)
        return coordinates / (coordinates @ basis).norm(dim=-1, keepdim=True), basis

    def _has_gradient(self) -> bool:
        scales = (*self._unscaled, self.noise_tril)
        return self._fixed_log_weights is None or any(
            scale is not None and scale.requires_grad for scale in scales
        )

    def _density_has_gradient(self) -> bool:
        if isinstance(self.density, ManifoldUniform):
            return False
        some = self._half(self.noise, *(2 for _ in self._counts))[0]
        with torch.enable_grad():
            return log_density(self.density, some).requires_grad

    def _log_weights(self) -> Tensor:
        """Return weights of the nodes, of sum one, ``batch + (n,)``."""
        if self._fixed_log_weights is not None:
            return self._fixed_log_weights
        masses = self._log_masses()
        if fault := self._mass_fault(masses):
            warnings.warn(fault, stacklevel=3)
        return masses.log_softmax(-1)

    def _found_log_weights(self, may_add: bool) -> Tensor:
        """Return the same for a density without gradient, with more nodes if it is narrow."""
        masses = self._log_masses()
        if isinstance(self.density, ManifoldUniform):
            return masses.log_softmax(-1)
        while may_add and lacks_nodes(type(self).__name__, self._counts, masses):
            self._counts = tuple(2 * count for count in self._counts)
            masses = self._log_masses()
        if fault := self._mass_fault(masses):
            raise ValueError(fault)
        return masses.log_softmax(-1)

    def _log_masses(self) -> Tensor:
        halves = self._half(self.noise, *self._counts)
        log_cell = self.manifold.log_volume - math.log(2 * math.prod(self._counts))
        return log_masses(self.density, halves, log_cell)

    def _mass_fault(self, masses: Tensor) -> str:
        return mass_fault(type(self).__name__, self._counts, masses) if self._validate_args else ""

    def _whiten(self, filters: Tensor) -> Tensor:
        """Return the filters, flat, in coordinates in which the noise is white."""
        if self.noise_tril is None:
            return filters
        rows = filters.reshape(-1, filters.shape[-1])
        white = torch.linalg.solve_triangular(self.noise_tril, rows.mT, upper=False).mT
        return white.reshape(filters.shape)

    def _found_counts(self, number: int | None, are_numbers: bool) -> tuple[int, ...]:
        """Return the numbers of nodes, by default enough for draws of the distribution."""
        name, needed = type(self).__name__, self._needed[self.unit]
        if number is not None:
            return given_counts(name, number, len(needed))
        coordinates, basis = self._quadrature((16, 8)[: len(needed)])
        largest = (coordinates @ self._whiten(basis)).detach().norm(dim=-1).max()
        ratio = (self.amplitude / self.noise).detach().max() * largest
        return counts_for(name, ratio, needed, is_fixed=are_numbers)

    def _check_tril(self) -> None:
        name, size, tril = type(self).__name__, self.kernel_size**2, self.noise_tril
        if tril is None:
            return
        if tril.shape != (size, size):
            raise ValueError(
                f"{name}: expected noise_tril of shape {(size, size)}, got {tuple(tril.shape)}"
            )
        if self._validate_args and not constraints.lower_cholesky.check(tril):
            raise ValueError(
                f"{name}: expected noise_tril to be lower triangular with a positive diagonal"
            )


def _check_density(name: str, density: TorchDistribution, manifold: Manifold) -> None:
    if manifold_of(density) != manifold or density.event_shape != manifold.event_shape:
        raise ValueError(
            f"{name}: expected density on {manifold}, with event shape "
            f"{tuple(manifold.event_shape)}, got {density}"
        )


def _own(tensor: Tensor) -> Tensor:
    """Return a copy of what has no gradient: results that are found once must stay right."""
    return tensor if tensor.requires_grad else tensor.clone()
