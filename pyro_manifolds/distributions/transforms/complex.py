"""Bijections from real numbers onto complex ones: numbers, the unit disk, matrices.

All log-determinants are real, and with respect to the measure dx dy of the real and imaginary
parts that are free. A complex log-determinant, be it zero, makes a complex log-density of the
whole model, and of such nothing can be differentiated.
"""

from __future__ import annotations

import math

import torch
from pyro.distributions import constraints
from torch import Size, Tensor
from torch.distributions import Transform, biject_to, transform_to

from pyro_manifolds.distributions import complex_constraints
from pyro_manifolds.ops.matrix_root import matrix_root
from pyro_manifolds.ops.torchscript import warn_of_complex_derivatives

__all__ = [
    "RealToCoherence",
    "RealToComplex",
    "RealToComplexCholesky",
    "RealToHermitianPositiveDefinite",
    "RealToUnitDisk",
]


class _FromReals(Transform):
    """A bijection without parameters: all instances are equal."""

    bijective = True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self if cache_size == self._cache_size else type(self)(cache_size)


class _FromPairs(_FromReals):
    """A bijection from pairs of real numbers, the last dimension, to complex numbers."""

    domain = constraints.real_vector

    def forward_shape(self, shape: Size) -> Size:
        if tuple(shape[-1:]) != (2,):
            raise ValueError(
                f"{type(self).__name__}: expected a shape that ends in 2, got {tuple(shape)}"
            )
        return Size(shape[:-1])

    def inverse_shape(self, shape: Size) -> Size:
        return Size(shape) + Size([2])


class RealToComplex(_FromPairs):
    """Pairs of real numbers as complex numbers, ``(x, y)`` as ``x + iy``.

    This is ``biject_to(constraints.complex)``. Its log-determinant is zero, a real zero.

    Example:
        >>> from pyro_manifolds.distributions.transforms import RealToComplex
        >>> t, x = RealToComplex(), torch.tensor([[1.0, 2.0], [3.0, -4.0]])
        >>> t(x), t.log_abs_det_jacobian(x, t(x))
        (tensor([1.+2.j, 3.-4.j]), tensor([0., 0.]))
    """

    codomain = complex_constraints.complex

    def _call(self, x: Tensor) -> Tensor:
        return _from_pairs(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return _to_pairs(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


class RealToUnitDisk(_FromPairs):
    r"""Pairs of real numbers as complex numbers of modulus less than one.

    With :math:`v = x + iy` the map is :math:`v / \sqrt{1 + |v|^2}`, with the log-determinant
    :math:`-2 \log(1 + |v|^2)`.

    Example:
        >>> from pyro_manifolds.distributions.transforms import RealToUnitDisk
        >>> RealToUnitDisk()(torch.tensor([0.0, 1.0]))
        tensor(0.+0.7071j)
    """

    codomain = complex_constraints.unit_disk

    def _call(self, x: Tensor) -> Tensor:
        return _from_pairs(x * (1 + _inflated_square(x)).rsqrt())

    def _inverse(self, y: Tensor) -> Tensor:
        pair = _to_pairs(y)
        gap = (1 - _inflated_square(pair)).clamp(min=torch.finfo(pair.dtype).eps)
        return pair * gap.rsqrt()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -2 * x.square().sum(-1).log1p()


class RealToCoherence(_FromReals):
    r"""Real matrices ``[n, n + 1]`` as complex symmetric ones of spectral norm less than one.

    The lower triangle, with the diagonal, is the real part of a symmetric matrix :math:`S`, and
    what remains is its imaginary part. The map is :math:`K = (I + S S^H)^{-1/2} S`, with the
    log-determinant :math:`-(n + 1) \log\det(I + S S^H)`.

    Example:
        >>> from pyro_manifolds.distributions.transforms import RealToCoherence
        >>> RealToCoherence()(torch.tensor([[0.0, 1.0]]))
        tensor([[0.+0.7071j]])
    """

    domain = constraints.independent(constraints.real, 2)
    codomain = complex_constraints.coherence

    def _call(self, x: Tensor) -> Tensor:
        s = _symmetric(x)
        y = torch.linalg.solve(matrix_root(_identity_like(s) + _inflated_gram(s)), s)
        return (y + y.mT) / 2

    def _inverse(self, y: Tensor) -> Tensor:
        s = torch.linalg.solve(matrix_root(_identity_like(y) - _inflated_gram(y)), y)
        pad = s.real.new_zeros(s.shape[:-1] + (1,))
        return torch.cat([s.real.tril(), pad], -1) + torch.cat([pad, s.imag.triu()], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        s = _symmetric(x)
        return -(x.shape[-2] + 1) * torch.logdet(_identity_like(s) + s @ s.mH).real

    def forward_shape(self, shape: Size) -> Size:
        if len(shape) < 2 or shape[-1] != shape[-2] + 1:
            raise ValueError(
                f"RealToCoherence: expected a shape that ends in (n, n + 1), got {tuple(shape)}"
            )
        return Size(shape[:-1]) + Size([shape[-2]])

    def inverse_shape(self, shape: Size) -> Size:
        _check_square(self, shape)
        return Size(shape[:-1]) + Size([shape[-1] + 1])


class _FromSquares(_FromReals):
    """A bijection from real square matrices to complex ones of the same size."""

    domain = constraints.independent(constraints.real, 2)

    def forward_shape(self, shape: Size) -> Size:
        return _check_square(self, shape)

    def inverse_shape(self, shape: Size) -> Size:
        return _check_square(self, shape)


class RealToComplexCholesky(_FromSquares):
    r"""Real square matrices as complex lower triangular ones with a positive diagonal.

    Below the diagonal are the real parts and above it, transposed, the imaginary ones; the
    diagonal has logarithms. The log-determinant is :math:`\sum_i \log L_{ii}`.

    Example:
        >>> from pyro_manifolds.distributions.transforms import RealToComplexCholesky
        >>> RealToComplexCholesky()(torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
        tensor([[1.+0.j, 0.+0.j],
                [2.+3.j, 1.+0.j]])
    """

    codomain = complex_constraints.complex_cholesky

    def _call(self, x: Tensor) -> Tensor:
        warn_of_complex_derivatives()
        diagonal = x.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return torch.complex(x.tril(-1) + diagonal, x.triu(1).mT)

    def _inverse(self, y: Tensor) -> Tensor:
        logarithms = y.diagonal(dim1=-2, dim2=-1).real.log().diag_embed()
        return y.real.tril(-1) + y.imag.tril(-1).mT + logarithms

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.diagonal(dim1=-2, dim2=-1).sum(-1)


class RealToHermitianPositiveDefinite(_FromSquares):
    r"""Real square matrices as Hermitian positive definite ones, by their Cholesky factors.

    To the log-determinant of :class:`RealToComplexCholesky` that of :math:`L L^H` is added,
    :math:`n \log 2 + \sum_{i=1}^n (2 (n - i) + 1) \log L_{ii}`.

    Example:
        >>> from pyro_manifolds.distributions.transforms import RealToHermitianPositiveDefinite
        >>> RealToHermitianPositiveDefinite()(torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
        tensor([[ 1.+0.j,  2.-3.j],
                [ 2.+3.j, 14.+0.j]])
    """

    codomain = complex_constraints.hermitian_positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = RealToComplexCholesky()(x)
        return factor @ factor.mH

    def _inverse(self, y: Tensor) -> Tensor:
        return RealToComplexCholesky().inv(torch.linalg.cholesky(y))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        size = x.shape[-1]
        powers = 2 * torch.arange(size, 0, -1, dtype=x.dtype, device=x.device)
        return (powers * x.diagonal(dim1=-2, dim2=-1)).sum(-1) + size * math.log(2)


def _from_pairs(x: Tensor) -> Tensor:
    warn_of_complex_derivatives()
    # Unlike view_as_complex, for all strides and offsets.
    return torch.complex(x[..., 0], x[..., 1])


def _inflated_square(x: Tensor) -> Tensor:
    # A few units of rounding more: moduli of large numbers then stay below one.
    return (1 + 8 * torch.finfo(x.dtype).eps) * x.square().sum(-1, keepdim=True)


def _inflated_gram(s: Tensor) -> Tensor:
    return (1 + 64 * torch.finfo(s.dtype).eps) * (s @ s.mH)


def _to_pairs(y: Tensor) -> Tensor:
    return torch.view_as_real(y.resolve_conj())


def _symmetric(x: Tensor) -> Tensor:
    warn_of_complex_derivatives()
    lower, upper = x[..., :-1].tril(), x[..., 1:].triu()
    return torch.complex(lower + lower.tril(-1).mT, upper + upper.triu(1).mT)


def _identity_like(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _check_square(transform: Transform, shape: Size) -> Size:
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(
            f"{type(transform).__name__}: expected the shape of square matrices, "
            f"got {tuple(shape)}"
        )
    return Size(shape)


def _register(kind: type[_FromReals]) -> None:
    for registry in (biject_to, transform_to):
        registry.register(kind.codomain, lambda constraint: kind())


_register(RealToComplex)
_register(RealToUnitDisk)
_register(RealToCoherence)
_register(RealToComplexCholesky)
_register(RealToHermitianPositiveDefinite)
