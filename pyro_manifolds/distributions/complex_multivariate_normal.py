"""Normal distributions of complex vectors."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions.utils import lazy_property
from torch.types import _size

from pyro_manifolds.distributions import complex_constraints as constraints
from pyro_manifolds.distributions.complex_arguments import (
    as_complex,
    broadcast_shapes,
    check_complex_value,
    common_kind,
    name_of_one,
)
from pyro_manifolds.ops.complex_linalg import (
    coherence_root,
    join_parts,
    log_det_tril,
    multiply_vectors,
    precision_to_scale_tril,
    solve_tril_vectors,
    split_parts,
    squared_norm,
)

__all__ = ["ComplexMultivariateNormal"]

_LOG_PI = math.log(math.pi)


class ComplexMultivariateNormal(TorchDistribution):
    r"""Normal distribution of complex vectors, proper or improper.

    With :math:`w = z - \mu`, covariance :math:`\Gamma = E w w^H = L L^H` and relation
    :math:`C = E w w^\top = L K L^\top`, the proper distribution (:math:`K = 0`, the default) has
    the density

    .. math:: p(z) = \pi^{-n} \det(\Gamma)^{-1} e^{-w^H \Gamma^{-1} w}

    with respect to Lebesgue measure on :math:`\mathbb{R}^{2n}`, and with a coherence :math:`K` it
    is the normal density of the real and imaginary parts. Every complex symmetric matrix of
    spectral norm less than one is a coherence, whatever the covariance. Variances are
    those of whole numbers, :math:`E|w_i|^2`, as in :class:`ComplexNormal`, and ``log_prob`` is
    always real.

    References:
        | Second-Order Complex Random Vectors and Normal Distributions (Picinbono, 1996)
        | Statistical Signal Processing of Complex-Valued Data (Schreier and Scharf, 2010)

    Args:
        loc: Mean, ``batch_shape + (n,)``; a real one stands for a complex one.
        scale_tril: Lower triangular :math:`L` with a real, positive diagonal,
            ``batch_shape + (n, n)``.
        covariance_matrix: Hermitian, positive definite :math:`\Gamma`.
        precision_matrix: Its inverse. Give one of the three.
        coherence: Complex symmetric :math:`K` of spectral norm less than one,
            ``batch_shape + (n, n)``; proper if left out.
        validate_args: Whether to check arguments and values.

    Raises:
        TypeError: If a value is real.
        ValueError: If not exactly one of the matrices is given, if shapes do not fit, or if
            validation is on and an argument or value is out of range.

    Example:
        >>> covariance = torch.tensor([[2.0, 1.0j], [-1.0j, 2.0]])
        >>> d = ComplexMultivariateNormal(torch.zeros(2), covariance_matrix=covariance)
        >>> d.log_prob(torch.tensor([1.0 + 0.0j, 1.0j]))
        tensor(-5.3881)
        >>> d.entropy()
        tensor(5.3881)
    """

    support = constraints.complex_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        *,
        scale_tril: Tensor | None = None,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        coherence: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        matrices: dict[str, Any] = {
            "scale_tril": scale_tril,
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
        }
        owner = type(self).__name__
        name = name_of_one(owner, **matrices)
        kind = common_kind(loc, matrices[name], coherence)
        loc, given = as_complex(loc, kind), {name: as_complex(matrices[name], kind)}
        if coherence is not None:
            given["coherence"] = as_complex(coherence, kind)
        batch_shape = _batch_shape(owner, loc, given)
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        self.coherence = None
        for key, matrix in given.items():
            setattr(self, key, matrix.expand(batch_shape + matrix.shape[-2:]))
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)
        # Not expanded: one factor serves every row.
        self._tril = _TO_TRIL[name](given[name])
        self._root = None if coherence is None else coherence_root(given["coherence"])

    @classmethod
    def from_covariance_and_relation(
        cls,
        loc: Tensor,
        covariance_matrix: Tensor,
        relation: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> ComplexMultivariateNormal:
        r"""Return the distribution of covariance :math:`E w w^H` and relation :math:`E w w^\top`.

        Args:
            loc: Mean.
            covariance_matrix: Hermitian, positive definite.
            relation: Complex symmetric matrix, also called pseudo-covariance.
            validate_args: Whether to check arguments and values.

        Example:
            >>> covariance, relation = 4 * torch.eye(2), torch.tensor([[0, 2j], [2j, 0]])
            >>> d = ComplexMultivariateNormal.from_covariance_and_relation(
            ...     torch.zeros(2), covariance, relation
            ... )
            >>> d.coherence
            tensor([[0.+0.0000j, 0.+0.5000j],
                    [0.+0.5000j, 0.+0.0000j]])
        """
        kind = common_kind(loc, covariance_matrix, relation)
        tril = torch.linalg.cholesky_ex(as_complex(covariance_matrix, kind)).L
        half = torch.linalg.solve_triangular(tril, as_complex(relation, kind), upper=False)
        coherence = torch.linalg.solve_triangular(tril, half.mT, upper=False)
        coherence = 0.5 * (coherence + coherence.mT)  # symmetric to the last digit
        return cls(loc, scale_tril=tril, coherence=coherence, validate_args=validate_args)

    @classmethod
    def from_real(
        cls, distribution: MultivariateNormal, *, validate_args: bool | None = None
    ) -> ComplexMultivariateNormal:
        """Return the distribution of ``x + iy`` for a normal vector of ``x`` and then ``y``.

        Args:
            distribution: Normal distribution of real vectors of even size.
            validate_args: Whether to check arguments and values.

        Raises:
            ValueError: If the size is odd.

        Example:
            >>> covariance = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
            >>> real = dist.MultivariateNormal(torch.zeros(2), covariance)
            >>> d = ComplexMultivariateNormal.from_real(real)
            >>> d.covariance_matrix, d.relation
            (tensor([[4.+0.j]]), tensor([[2.+0.j]]))
        """
        size = distribution.event_shape[-1]
        if size % 2:
            raise ValueError(
                f"{cls.__name__}.from_real: expected a distribution of vectors of even size, "
                f"got size {size}"
            )
        xx, xy, yx, yy = (
            block
            for rows in distribution.covariance_matrix.chunk(2, -2)
            for block in rows.chunk(2, -1)
        )
        covariance, relation = torch.complex(xx + yy, yx - xy), torch.complex(xx - yy, yx + xy)
        return cls.from_covariance_and_relation(
            join_parts(distribution.loc), covariance, relation, validate_args=validate_args
        )

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        proper = {
            "loc": constraints.complex_vector,
            "scale_tril": constraints.complex_cholesky,
            "covariance_matrix": constraints.hermitian_positive_definite,
            "precision_matrix": constraints.hermitian_positive_definite,
        }
        return proper if self.coherence is None else proper | {"coherence": constraints.coherence}

    @staticmethod
    def infer_shapes(  # type: ignore[override]
        loc: Size,
        scale_tril: Size | None = None,
        covariance_matrix: Size | None = None,
        precision_matrix: Size | None = None,
        coherence: Size | None = None,
    ) -> tuple[Size, Size]:
        matrices = (scale_tril, covariance_matrix, precision_matrix, coherence)
        batches = [shape[:-2] for shape in matrices if shape is not None]
        return torch.broadcast_shapes(loc[:-1], *batches), Size(loc[-1:])

    def expand(self, batch_shape: _size, _instance: Any = None) -> ComplexMultivariateNormal:
        new = self._get_checked_instance(ComplexMultivariateNormal, _instance)
        batch_shape = Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        for name in ("scale_tril", "covariance_matrix", "precision_matrix", "coherence"):
            if name in self.__dict__:
                matrix = self.__dict__[name]
                square = batch_shape + 2 * self.event_shape
                setattr(new, name, None if matrix is None else matrix.expand(square))
        new._tril, new._root = self._tril, self._root
        super(ComplexMultivariateNormal, new).__init__(
            batch_shape, self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @lazy_property
    def scale_tril(self) -> Tensor:
        return self._tril.expand(self.batch_shape + self._tril.shape[-2:])

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        covariance = self._tril @ self._tril.mH
        return covariance.expand(self.batch_shape + covariance.shape[-2:])

    @lazy_property
    def precision_matrix(self) -> Tensor:
        precision = torch.cholesky_inverse(self._tril)
        return precision.expand(self.batch_shape + precision.shape[-2:])

    @property
    def relation(self) -> Tensor:
        r"""Relation or pseudo-covariance :math:`E w w^\top`, complex symmetric."""
        if self.coherence is None:
            return torch.zeros_like(self.scale_tril)
        return self.scale_tril @ self.coherence @ self.scale_tril.mT

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Total variances of the entries, real."""
        return squared_norm(self._tril.unsqueeze(-1)).sum(-1).expand(self.loc.shape)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        shape = shape[:-1] + (2 * shape[-1],)
        noise = torch.randn(shape, dtype=self.loc.real.dtype, device=self.loc.device)
        noise = math.sqrt(0.5) * noise
        if self._root is not None:
            noise = multiply_vectors(self._root, noise)
        return self.loc + multiply_vectors(self._tril, join_parts(noise))

    def log_prob(self, value: Tensor) -> Tensor:
        check_complex_value(type(self).__name__, value)
        if self._validate_args:
            self._validate_sample(value)
        white = solve_tril_vectors(self._tril, value - self.loc)
        constant = -self.event_shape[0] * _LOG_PI - self._log_volume
        if self._root is None:
            return constant - squared_norm(white)
        return constant - solve_tril_vectors(self._root, split_parts(white)).square().sum(-1)

    @property
    def _log_volume(self) -> Tensor:
        """Half the log-determinant of the covariance of the vector beside its conjugate."""
        volume = 2 * log_det_tril(self._tril)
        return volume if self._root is None else volume + log_det_tril(self._root)

    def entropy(self) -> Tensor:
        entropy = self._log_volume + self.event_shape[0] * (1 + _LOG_PI)
        return entropy.expand(self.batch_shape)

    def to_real(self) -> MultivariateNormal:
        """Return the same distribution of the real parts followed by the imaginary parts.

        Example:
            >>> d = ComplexMultivariateNormal(torch.zeros(2), scale_tril=torch.eye(2))
            >>> d.to_real().covariance_matrix.diagonal()
            tensor([0.5000, 0.5000, 0.5000, 0.5000])
        """
        gamma, relation = self.covariance_matrix, self.relation
        total, apart = gamma + relation, gamma - relation
        upper = torch.cat([total.real, -apart.imag], -1)
        lower = torch.cat([total.imag, apart.real], -1)
        return MultivariateNormal(
            split_parts(self.loc),
            covariance_matrix=0.5 * torch.cat([upper, lower], -2),
            validate_args=self._validate_args,
        )


_TO_TRIL = {
    "scale_tril": lambda matrix: matrix,
    "covariance_matrix": lambda matrix: torch.linalg.cholesky_ex(matrix).L,
    "precision_matrix": precision_to_scale_tril,
}


def _batch_shape(owner: str, loc: Tensor, matrices: dict[str, Tensor]) -> Size:
    """Return the shape of the batch, if the events have one size."""
    if not loc.dim():
        raise ValueError(f"{owner}: expected loc of shape (..., n), got ()")
    size = loc.shape[-1]
    for name, matrix in matrices.items():
        if matrix.dim() < 2 or matrix.shape[-2:] != (size, size):
            raise ValueError(
                f"{owner}: expected {name} of shape (..., {size}, {size}), as loc is "
                f"{tuple(loc.shape)}, got {tuple(matrix.shape)}"
            )
    batches = {name: matrix.shape[:-2] for name, matrix in matrices.items()}
    return broadcast_shapes(f"{owner}: batches", loc=loc.shape[:-1], **batches)
