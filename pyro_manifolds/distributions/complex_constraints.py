"""Supports and parameters that are complex numbers, which torch has no constraints for."""

import torch
from pyro.distributions.constraints import Constraint, independent
from torch import Tensor

__all__ = [
    "coherence",
    "complex",
    "complex_cholesky",
    "complex_vector",
    "hermitian_positive_definite",
    "unit_disk",
]

_CLOSE = 1e-5  # what entries may be off, in units of the largest one


class _Complex(Constraint):
    """Complex numbers with a finite real and a finite imaginary part.

    ``constraints.real`` is no substitute: it accepts complex numbers, even infinite ones, and
    the identity that it leads to gives log-determinants that are complex.
    """

    is_discrete = False
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        return value - value == 0  # far cheaper than isfinite, of which torch makes six steps


class _UnitDisk(Constraint):
    """Complex numbers of modulus less than one."""

    is_discrete = False
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        return value.real.square() + value.imag.square() < 1


class _Coherence(Constraint):
    """Complex symmetric matrices of spectral norm less than one."""

    is_discrete = False
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        identity = torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
        return _is_close(value, value.mT) & _has_cholesky(identity - value @ value.mH)


class _ComplexCholesky(Constraint):
    """Complex lower triangular matrices with a real and positive diagonal."""

    is_discrete = False
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        diagonal = value.diagonal(dim1=-2, dim2=-1)
        positive = (diagonal.real > 0) & (diagonal == diagonal.real)
        is_lower = value - value.tril() == 0  # and finite
        return is_lower.flatten(-2).all(-1) & positive.all(-1)


class _HermitianPositiveDefinite(Constraint):
    """Hermitian positive definite matrices."""

    is_discrete = False
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return _is_close(value, value.mH) & _has_cholesky(value)


def _is_close(matrix: Tensor, other: Tensor) -> Tensor:
    """Tell whether matrices are equal up to rounding, many times faster than ``torch.isclose``."""
    return _largest(matrix - other) <= _CLOSE * _largest(matrix)


def _largest(matrix: Tensor) -> Tensor:
    if matrix.is_complex():
        matrix = torch.view_as_real(matrix.resolve_conj()).flatten(-2)
    return matrix.abs().amax((-2, -1))


def _has_cholesky(matrix: Tensor) -> Tensor:
    return torch.linalg.cholesky_ex(matrix).info == 0


complex = _Complex()
complex_vector = independent(complex, 1)
unit_disk = _UnitDisk()
coherence = _Coherence()
complex_cholesky = _ComplexCholesky()
hermitian_positive_definite = _HermitianPositiveDefinite()
