"""Log-sum-exp potentials of complex points, with their metrics in closed form."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["LogSumExpPotential", "PotentialKind"]

PotentialKind = Literal["plus", "log_mixture", "minus_log_mixture", "fubini_study"]


class LogSumExpPotential:
    r"""Real function of a complex point, and the Hermitian matrix of which it is the potential.

    With the quadratic forms :math:`q_k(z) = (z - \mu_k)^H P_k (z - \mu_k)` of :math:`K`
    components, ``kind`` is one of

    - ``plus``: :math:`\log \sum_k w_k e^{q_k}`. Always plurisubharmonic: its metric is positive
      definite;
    - ``log_mixture``: :math:`\log \sum_k w_k \det P_k\, e^{-q_k}`, the density of a mixture of
      proper normals up to :math:`\pi^{-n}`. Its metric has either sign;
    - ``minus_log_mixture``: the negative of that, of either sign too;
    - ``fubini_study``: :math:`\log \sum_k w_k e^{-q_k} + z^H P z` with one :math:`P` for all, the
      logarithm of a sum of squared moduli of holomorphic functions. Plurisubharmonic; the metric
      :math:`P \operatorname{Cov}_r(\mu) P` is singular if :math:`K \le n`.

    There is no default: the sign decides which one is a metric. With responsibilities :math:`r`,
    the metric is :math:`\operatorname{E}_r \partial\bar\partial \varphi_k +
    \operatorname{Cov}_r(\partial\varphi_k)`, at a cost of :math:`O(K n^2)` a point. Second
    derivatives by ``torch.func`` of the value cost tens of times as much.

    The plus kind grows away from the data, and is a poor stand-in for the metric of a decoder: on
    small VAEs of digits the rank correlation of the two volumes was 0.0
    (``python -m benchmarks.decoder_ranks``). See :class:`EncoderPrecisionProxy` for another.

    Args:
        kind: Which of the four.
        loc: Centres :math:`\mu`, complex, shape ``[K, n]``.
        precision_diag: Diagonals of :math:`P_k`, real and positive, shape ``[K, n]``; ``[n]`` if
            they share it, as they must for ``fubini_study``.
        precision_matrix: Instead, Hermitian positive definite matrices ``[K, n, n]`` or
            ``[n, n]``.
        log_weight: Logarithms of the weights :math:`w`, shape ``[K]``; by default those of
            :math:`1 / K`.

    Raises:
        ValueError: If the kind is unknown, a shape does not fit, the centres are not complex, or
            there is not exactly one of the precisions.

    Example:
        >>> from pyro_manifolds.geometry import LogSumExpPotential
        >>> loc = torch.tensor([[1.0 + 0j], [-1.0 + 0j]])
        >>> potential = LogSumExpPotential("plus", loc, precision_diag=torch.ones(1))
        >>> z = torch.zeros(3, 1, dtype=torch.cfloat)
        >>> potential(z), potential.metric(z)[0]  # 1, and 1 + 1
        (tensor([1., 1., 1.]), tensor([[2.+0.j]]))
    """

    def __init__(
        self,
        kind: PotentialKind,
        loc: Tensor,
        *,
        precision_diag: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        log_weight: Tensor | None = None,
    ) -> None:
        if kind not in get_args(PotentialKind):
            raise ValueError(
                f"LogSumExpPotential: expected kind among {', '.join(get_args(PotentialKind))}, "
                f"got {kind!r}"
            )
        if loc.dim() != 2 or not loc.is_complex():
            raise ValueError(
                "LogSumExpPotential: expected complex loc of shape (K, n), "
                f"got {loc.dtype} of shape {tuple(loc.shape)}"
            )
        if (precision_diag is None) == (precision_matrix is None):
            raise ValueError(
                "LogSumExpPotential: expected one of precision_diag and precision_matrix"
            )
        real = loc.real.dtype
        self.kind, self.loc, self.is_diagonal = kind, loc, precision_matrix is None
        if precision_diag is not None:
            self.precision = precision_diag.to(real)
        elif precision_matrix is not None:
            self.precision = precision_matrix.to(loc.dtype)
        self._check_precision()
        num = len(loc)
        if log_weight is not None and log_weight.shape != (num,):
            raise ValueError(
                f"LogSumExpPotential: expected log_weight of shape ({num},), "
                f"got {tuple(log_weight.shape)}"
            )
        uniform = loc.real.new_full((num,), -math.log(num))
        self.log_weight = uniform if log_weight is None else log_weight.to(real)

    def _check_precision(self) -> None:
        num, n = self.loc.shape
        shared = (n,) if self.is_diagonal else (n, n)
        allowed = [shared] if self.kind == "fubini_study" else [shared, (num, *shared)]
        if self.precision.shape not in allowed:
            name = "precision_diag" if self.is_diagonal else "precision_matrix"
            raise ValueError(
                f"LogSumExpPotential: expected {name} of shape "
                f"{' or '.join(map(str, allowed))} for kind {self.kind!r}, "
                f"got {tuple(self.precision.shape)}"
            )

    def __call__(self, z: Tensor) -> Tensor:
        """Return the value at points of shape ``[..., n]``, real, of shape ``[...]``."""
        _, quadratic = self._forms(z)
        value = self._logits(quadratic).logsumexp(-1)
        if self.kind == "fubini_study":
            return value + self._square(z, self._apply(z))
        return -value if self.kind == "minus_log_mixture" else value

    def responsibilities(self, z: Tensor) -> Tensor:
        """Return the weights of the components at points ``[..., n]``, of shape ``[..., K]``."""
        return self._logits(self._forms(z)[1]).softmax(-1)

    def metric(self, z: Tensor) -> Tensor:
        r"""Return :math:`\partial_i \bar\partial_j` of the value, of shape ``[..., n, n]``."""
        image, quadratic = self._forms(z)
        r = self._logits(quadratic).softmax(-1)
        # Centred first: the difference of moments would cancel where components are close.
        slopes = image.conj() - (r.unsqueeze(-1) * image.conj()).sum(-2, keepdim=True)
        covariance = (r.unsqueeze(-1) * slopes).mT @ slopes.conj()
        if self.kind == "fubini_study":
            return covariance
        if self.kind == "plus":
            return covariance + self._mean_precision(r)
        metric = covariance - self._mean_precision(r)
        return -metric if self.kind == "minus_log_mixture" else metric

    def log_det(self, z: Tensor) -> Tensor:
        """Return the logarithm of the determinant of the metric, of shape ``[...]``.

        It is nan where the metric is not positive definite, which only the kind "plus" always is.
        """
        factor, failed = torch.linalg.cholesky_ex(self.metric(z))
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        return torch.where(failed == 0, log_det, math.nan)

    def _forms(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``P_k (z - mu_k)``, of shape ``[..., K, n]``, and the quadratic forms."""
        if not z.is_complex():
            raise ValueError(f"LogSumExpPotential: expected complex points, got {z.dtype}")
        gap = z.unsqueeze(-2) - self.loc
        image = self._apply(gap)
        return image, self._square(gap, image)

    def _apply(self, gap: Tensor) -> Tensor:
        if self.is_diagonal:
            return self.precision * gap
        return (self.precision @ gap.unsqueeze(-1)).squeeze(-1)

    def _square(self, gap: Tensor, image: Tensor) -> Tensor:
        return (gap.real * image.real + gap.imag * image.imag).sum(-1)

    def _logits(self, quadratic: Tensor) -> Tensor:
        if self.kind == "plus":
            return self.log_weight + quadratic
        if self.kind == "fubini_study":
            return self.log_weight - quadratic
        if self.is_diagonal:
            return self.log_weight + self.precision.log().sum(-1) - quadratic
        return self.log_weight + torch.linalg.slogdet(self.precision).logabsdet - quadratic

    def _mean_precision(self, r: Tensor) -> Tensor:
        """Return the transpose of the mean of the precisions under weights ``[..., K]``."""
        each = self._each_precision()
        if self.is_diagonal:
            return torch.diag_embed((r @ each).to(self.loc.dtype))
        return (r.to(each.dtype) @ each.flatten(1)).unflatten(-1, each.shape[1:]).mT

    def _each_precision(self) -> Tensor:
        last = self.loc.shape[1:] if self.is_diagonal else self.loc.shape[1:] * 2
        return self.precision.expand(len(self.loc), *last)
