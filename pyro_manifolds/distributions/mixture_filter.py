"""Mixtures of normal distributions of filters."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Size, Tensor
from torch.types import _size

from pyro_manifolds.distributions.filter_distribution import FilterDistribution

__all__ = ["MixtureFilter"]


class MixtureFilter(FilterDistribution):
    r"""Mixture of many normal distributions of square filters, with diagonal or low-rank noise.

    Filters of component :math:`n` are :math:`w = B (\mu_n + S_n \varepsilon + V_n \eta)`, row by
    row, with independent standard normal :math:`\varepsilon, \eta`, diagonal :math:`S_n`, and a
    basis :math:`B` that all components share, such as pixels or principal components. The density
    is with respect to Lebesgue measure on the :math:`d = k^2` weights; for all components at once
    it is two matrix products, summed in float64, and a logsumexp. This is what the quadrature of
    a :class:`~pyro_manifolds.nn.DeepFilterPrior` over its latent surface comes to.

    Args:
        logits: Weights of the components on the log scale, shape ``(n,)``; normalised here.
        loc: Means :math:`\mu_n`, shape ``(n, d)``.
        scale: Diagonals of :math:`S_n`, positive, shape ``(n, d)``.
        factor: Matrices :math:`V_n`, shape ``(n, d, rank)``; none by default.
        basis: Invertible matrix :math:`B`, shape ``(d, d)``; pixels by default.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If shapes do not fit, or, under validation, a scale is not positive.

    Example:
        >>> from pyro_manifolds.distributions import MixtureFilter
        >>> loc = torch.stack([torch.ones(9), -torch.ones(9)])
        >>> d = MixtureFilter(torch.zeros(2), loc, 0.5 * torch.ones(2, 9))
        >>> d.variance[0, 0], d.expand([16, 1]).to_event(2).sample().shape
        (tensor(1.2500), torch.Size([16, 1, 3, 3]))
    """

    arg_constraints = {
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        factor: Tensor | None = None,
        basis: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        _check_shapes(logits, loc, scale, factor, basis)
        self.logits, self.loc, self.scale = logits.log_softmax(-1), loc, scale
        self.factor = loc.new_empty(loc.shape + (0,)) if factor is None else factor
        self.basis = torch.eye(loc.shape[1]).to(loc) if basis is None else basis
        self.kernel_size = math.isqrt(loc.shape[1])
        self._size = loc.new_ones(())  # what filters are multiplied by, for each row of the batch
        super().__init__(Size(), Size([self.kernel_size] * 2), validate_args=validate_args)

    def __repr__(self) -> str:
        return f"MixtureFilter(components: {len(self.logits)}, kernel_size: {self.kernel_size})"

    @property
    def mean(self) -> Tensor:
        mean = (self.basis @ (self.logits.exp() @ self.loc)).reshape(self.event_shape)
        return (self._size[..., None, None] * mean).expand(self.batch_shape + self.event_shape)

    @property
    def covariance_matrix(self) -> Tensor:
        weights = self.logits.exp()
        columns = torch.cat([(self.loc - weights @ self.loc).unsqueeze(-1), self.factor], -1)
        columns = (weights.sqrt()[:, None, None] * columns).transpose(0, 1).flatten(1)
        covariance = columns @ columns.mT + torch.diag(weights @ self.scale.square())
        covariance = self.basis @ covariance @ self.basis.mT
        scaled = self._size.square()[..., None, None] * covariance
        return scaled.expand(self.batch_shape + covariance.shape)

    def expand(self, batch_shape: _size, _instance: Any = None) -> MixtureFilter:
        new = self._get_checked_instance(MixtureFilter, _instance or copy.copy(self))
        # Components serve all rows.
        new._batch_shape = torch.empty(self.batch_shape, device="meta").expand(batch_shape).shape
        return new

    def rescale(self, factor: Tensor | float) -> MixtureFilter:
        factor = torch.as_tensor(factor, dtype=self._size.dtype, device=self._size.device)
        new = self.expand(torch.broadcast_shapes(factor.shape, self.batch_shape))
        new._size = factor * self._size
        return new

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)[:-2]
        with torch.no_grad():
            weights = self.logits.exp()
            index = weights.multinomial(max(1, shape.numel()), replacement=True)
            index = index[: shape.numel()].reshape(shape)
            factor = self.factor[index]
            noise = torch.randn(shape + factor.shape[-1:]).to(factor)
            u = self.loc[index] + self.scale[index] * torch.randn_like(self.loc[index])
            u = u + (factor @ noise.unsqueeze(-1)).squeeze(-1)
            w = (u @ self.basis.mT).reshape(shape + self.event_shape)
            return self._size[..., None, None] * w

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # In float64: the squares are those of loc over scale, and all but a few units cancel.
        basis, inner = self.basis.double(), (value / self._size[..., None, None]).flatten(-2)
        u = inner.double() @ torch.linalg.inv(basis).mT
        linear, constant, columns, shift = _product(
            *(part.double() for part in (self.logits, self.loc, self.scale, self.factor))
        )
        terms = torch.cat([u, u.square()], -1) @ linear + constant
        if len(shift):
            projections = (u @ columns - shift.flatten()).unflatten(-1, shift.shape)
            terms = terms + 0.5 * projections.square().sum(-2)
        size = self.kernel_size**2 * self._size.abs().log()
        log_det = torch.linalg.slogdet(basis).logabsdet
        log_prob = (terms.logsumexp(-1) - log_det).to(value.dtype) - size
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))


def _product(
    logits: Tensor, loc: Tensor, scale: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the logarithms of all components come to, by the formula of Woodbury.

    They are ``[u, u^2] @ linear + constant`` and half the squares of ``u @ columns - shift``,
    where columns and shifts run over the rank first and the components second.
    """
    precision = scale.square().reciprocal()
    whitened = precision.unsqueeze(-1) * factor
    eye = torch.eye(factor.shape[-1], dtype=loc.dtype, device=loc.device)
    tril = torch.linalg.cholesky(eye + factor.mT @ whitened)
    columns = torch.linalg.solve_triangular(tril, whitened.mT, upper=False)  # [n, rank, d]
    shift = (columns @ loc.unsqueeze(-1)).squeeze(-1)
    linear = torch.cat([precision * loc, -0.5 * precision], -1).mT
    constant = logits - 0.5 * (precision * loc.square()).sum(-1) - scale.log().sum(-1)
    constant = constant - tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = constant - 0.5 * loc.shape[-1] * math.log(2 * math.pi)
    return linear, constant, columns.transpose(0, 1).flatten(0, 1).mT, shift.mT


def _check_shapes(
    logits: Tensor, loc: Tensor, scale: Tensor, factor: Tensor | None, basis: Tensor | None
) -> None:
    if logits.dim() != 1 or loc.dim() != 2 or len(loc) != len(logits):
        raise ValueError(
            "MixtureFilter: expected logits of shape (n,) and loc of shape (n, d), "
            f"got {tuple(logits.shape)} and {tuple(loc.shape)}"
        )
    size = loc.shape[1]
    if math.isqrt(size) ** 2 != size or scale.shape != loc.shape:
        raise ValueError(
            "MixtureFilter: expected loc and scale of one shape (n, k * k), "
            f"got {tuple(loc.shape)} and {tuple(scale.shape)}"
        )
    if factor is not None and (factor.dim() != 3 or factor.shape[:-1] != loc.shape):
        raise ValueError(
            f"MixtureFilter: expected factor of shape {tuple(loc.shape)} + (rank,), "
            f"got {tuple(factor.shape)}"
        )
    if basis is not None and basis.shape != (size, size):
        raise ValueError(
            f"MixtureFilter: expected basis of shape {(size, size)}, got {tuple(basis.shape)}"
        )
