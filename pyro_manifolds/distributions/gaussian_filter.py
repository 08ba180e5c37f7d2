"""Gaussian distributions of square filters."""

from __future__ import annotations

import math
from typing import Any

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

from pyro_manifolds.distributions.filter_distribution import FilterDistribution

__all__ = ["GaussianFilter", "gaussian_along"]


class GaussianFilter(FilterDistribution):
    r"""Normal distribution of zero mean on square filters, whose weights may be correlated.

    The density is with respect to Lebesgue measure on the weights, which count row by row. It is
    what ``matched_gaussian()`` of :class:`KleinFilter` and :class:`CircleFilter` returns: the
    control that knows which weights vary together, and not that filters crowd round a surface.

    Args:
        covariance_matrix: Positive definite, shape ``batch_shape + (k * k, k * k)``.
        scale_tril: Its lower Cholesky factor; give one of the two.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If not exactly one of the two is given, or its shape is wrong.

    Example:
        >>> d = GaussianFilter(torch.eye(9))
        >>> d.event_shape, d.log_prob(torch.zeros(3, 3))
        (torch.Size([3, 3]), tensor(-8.2704))
    """

    arg_constraints = {
        "covariance_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    has_rsample = True

    def __init__(
        self,
        covariance_matrix: Tensor | None = None,
        *,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        matrix = _one_of(covariance_matrix, scale_tril)
        self.kernel_size = math.isqrt(matrix.shape[-1])
        self._normal = MultivariateNormal(
            matrix.new_zeros(matrix.shape[-1]),
            covariance_matrix=covariance_matrix,
            scale_tril=scale_tril,
            validate_args=validate_args,
        )
        event_shape = Size((self.kernel_size, self.kernel_size))
        super().__init__(self._normal.batch_shape, event_shape, validate_args=False)
        self._validate_args = self._normal._validate_args

    def __repr__(self) -> str:
        return f"GaussianFilter(kernel_size: {self.kernel_size})"

    @property
    def scale_tril(self) -> Tensor:
        """Lower Cholesky factor of the covariance, ``batch_shape + (k * k, k * k)``."""
        return self._expanded(self._normal.scale_tril)

    @property
    def covariance_matrix(self) -> Tensor:
        return self._expanded(self._normal.covariance_matrix)

    def expand(self, batch_shape: _size, _instance: Any = None) -> GaussianFilter:
        new = self._get_checked_instance(GaussianFilter, _instance)
        new.kernel_size = self.kernel_size
        shape = torch.empty(self._normal.batch_shape, device="meta").expand(batch_shape).shape
        new._normal = self._normal  # not expanded: one factor serves every row
        super(FilterDistribution, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rescale(self, factor: Tensor | float) -> GaussianFilter:
        factor = torch.as_tensor(factor).to(self._normal.scale_tril).abs()[..., None, None]
        if self._validate_args and not torch._is_all_true(factor > 0):
            raise ValueError(
                f"GaussianFilter: expected factor of rescale not to be zero, got {factor}"
            )
        return GaussianFilter(scale_tril=factor * self.scale_tril, validate_args=False)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)[:-2]
        noise = self._normal.scale_tril.new_empty(shape + (self.kernel_size**2, 1)).normal_()
        return (self._normal.scale_tril @ noise).reshape(shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        normal, dtype = self._normal, self._normal.loc.dtype
        wide = torch.promote_types(value.dtype, dtype)
        if wide != dtype:
            normal = _in_dtype(normal, wide)
        return normal.log_prob(value.to(wide).flatten(-2)).expand(
            torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        )

    def entropy(self) -> Tensor:
        return self._normal.entropy().expand(self.batch_shape)

    def _expanded(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self.batch_shape + matrix.shape[-2:])


def gaussian_along(factor: Tensor, variance: Tensor, tril: Tensor | None) -> TorchDistribution:
    r"""Return the normal distribution of filters that vary along one, and by noise.

    Of zero mean and covariance :math:`F F^\top + s^2 L L^\top`; ``log_prob`` promotes with values.

    Args:
        factor: Filters :math:`F`, ``batch + (k, k)``.
        variance: Variance :math:`s^2` of the noise, which broadcasts with the batch.
        tril: Lower triangular :math:`L`, shape ``(k * k, k * k)``; the identity by default.

    Example:
        >>> from pyro_manifolds.distributions.gaussian_filter import gaussian_along
        >>> gaussian_along(torch.ones(4, 3, 3), torch.tensor(0.5), None).variance[0, 0]
        tensor([1.5000, 1.5000, 1.5000])
    """
    shape = factor.shape[-2:]
    column, variance = factor.flatten(-2).unsqueeze(-1), variance.unsqueeze(-1)
    loc = column.new_zeros(shape.numel())
    normal: TorchDistribution
    if tril is None:
        diagonal = variance.expand(variance.shape[:-1] + loc.shape)
        normal = LowRankMultivariateNormal(loc, column, diagonal)
    else:
        coloured = variance.unsqueeze(-1) * (tril @ tril.mT)
        normal = MultivariateNormal(loc, column @ column.mT + coloured)
    return _Reshaped(normal, [ReshapeTransform(loc.shape, shape)])


class _Reshaped(TransformedDistribution):
    """A normal distribution of vectors as one of filters, with its moments."""

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean.unflatten(-1, self.event_shape)

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance.unflatten(-1, self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        normal: Any = self.base_dist
        dtype = torch.promote_types(value.dtype, normal.loc.dtype)
        if dtype == normal.loc.dtype:
            return super().log_prob(value)
        wide = _in_dtype(normal, dtype)
        return _Reshaped(wide, self.transforms, validate_args=self._validate_args).log_prob(value)


def _in_dtype(normal: MultivariateNormal | LowRankMultivariateNormal, dtype: torch.dtype) -> Any:
    loc = normal.loc.to(dtype)
    if isinstance(normal, LowRankMultivariateNormal):
        factor, diagonal = normal.cov_factor.to(dtype), normal.cov_diag.to(dtype)
        return LowRankMultivariateNormal(loc, factor, diagonal, validate_args=False)
    return MultivariateNormal(loc, scale_tril=normal.scale_tril.to(dtype), validate_args=False)


def _one_of(covariance_matrix: Tensor | None, scale_tril: Tensor | None) -> Tensor:
    if (covariance_matrix is None) == (scale_tril is None):
        given = "neither" if scale_tril is None else "both"
        raise ValueError(
            f"GaussianFilter: expected one of covariance_matrix and scale_tril, got {given}"
        )
    name, matrix = (
        ("scale_tril", scale_tril)
        if covariance_matrix is None
        else ("covariance_matrix", covariance_matrix)
    )
    if not isinstance(matrix, Tensor):
        raise ValueError(
            f"GaussianFilter: expected {name} to be a tensor of shape (..., k * k, k * k), "
            f"got {matrix!r}"
        )
    side = math.isqrt(matrix.shape[-1]) if matrix.dim() else 0
    if matrix.shape[-2:] != (side**2,) * 2 or not side:
        raise ValueError(
            f"GaussianFilter: expected {name} of shape (..., k * k, k * k), "
            f"got {tuple(matrix.shape)}"
        )
    return matrix
