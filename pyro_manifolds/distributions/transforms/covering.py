"""Covering maps as transforms: the abstract class, and coverings with finitely many sheets."""

from __future__ import annotations

import abc
from typing import Any

from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution, Transform

from pyro_manifolds.manifolds import Manifold

__all__ = ["ComposedCovering", "Covering", "FiniteCovering"]


class Covering(Transform):
    r"""Covering map :math:`\pi: \tilde X \to M`, a local isometry onto a manifold.

    Not injective: it owes ``t(t.inv(y)) == y`` as points of the manifold. Its log-determinant is
    zero, and a density on the cover passes to the sum over the fibre,

    .. math:: p_M(y) = \sum_{x \in \pi^{-1}(y)} p(x)

    without a Jacobian. A subclass gives ``manifold``, ``num_sheets`` (``math.inf`` where
    the fibre is infinite), ``domain``, :meth:`fibre`, :meth:`log_fibre_sum`, ``_call`` (project)
    and ``_inverse`` (the canonical lift).

    References:
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        manifold: The base of the covering.
    """

    bijective = False
    num_sheets: float

    def __init__(self, manifold: Manifold, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.manifold = manifold

    @property
    def codomain(self) -> Constraint:  # type: ignore[override]
        return self.manifold.support

    def _key(self) -> tuple[Any, ...]:
        return (type(self), self.manifold)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Covering) and other._key() == self._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.manifold})"

    def with_cache(self, cache_size: int = 1) -> Covering:
        return type(self)(self.manifold, cache_size=cache_size)

    @property
    @abc.abstractmethod
    def cover_shape(self) -> Size:
        """Shape of one point of the cover."""

    @abc.abstractmethod
    def fibre(self, y: Tensor) -> Tensor:
        """Return the points of the cover above ``y``, stacked in front: ``[sheets, *y.shape]``."""

    @abc.abstractmethod
    def log_fibre_sum(self, base_dist: Distribution, y: Tensor) -> Tensor:
        """Return the logarithm of the density of ``base_dist`` summed over the fibre of ``y``."""

    def then(self, covering: Covering) -> Covering:
        """Return the composition: first ``self``, then a covering of a manifold by ours."""
        return ComposedCovering(self, covering)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[: x.dim() - len(self.cover_shape)])

    def forward_shape(self, shape: Size) -> Size:
        return Size(shape[: len(shape) - len(self.cover_shape)]) + self.manifold.event_shape

    def inverse_shape(self, shape: Size) -> Size:
        return Size(shape[: len(shape) - self.manifold.ndim]) + self.cover_shape


class FiniteCovering(Covering):
    """Covering with finitely many sheets, the one that a manifold describes itself.

    The manifold offers ``cover``, ``project``, ``lift``, ``deck`` and ``num_sheets``: spheres (one
    sheet), projective spaces and SO(3) (two), lens spaces, the Klein bottle under the torus, and
    the Moebius band under the cylinder.

    Example:
        >>> covering = KleinBottle().orientation_covering
        >>> covering.fibre(torch.tensor([0.5, 1.0]))
        tensor([[ 0.5000,  1.0000],
                [-2.6416, -1.0000]])
    """

    @property
    def cover(self) -> Manifold:
        """The covering manifold."""
        return self.manifold.cover

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        return self.cover.support

    @property
    def cover_shape(self) -> Size:
        return self.cover.event_shape

    @property
    def num_sheets(self) -> int:  # type: ignore[override]
        return self.manifold.num_sheets

    def fibre(self, y: Tensor) -> Tensor:
        # The deck of a folded strip goes on with reflections, which are not on the cover.
        sheets = self.manifold.deck(self._inverse(y))[: self.num_sheets]
        return self.cover.projx(sheets)

    def log_fibre_sum(self, base_dist: Distribution, y: Tensor) -> Tensor:
        return base_dist.log_prob(self.fibre(y)).logsumexp(0)

    def _call(self, x: Tensor) -> Tensor:
        return self.manifold.project(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.manifold.lift(y)


class ComposedCovering(Covering):
    """Composition of two coverings, ``second`` of a manifold by the base of ``first``.

    Args:
        first: Covering of the cover of ``second``.
        second: Covering with finitely many sheets.

    Raises:
        ValueError: If the base of ``first`` is not the cover of ``second``.
    """

    def __init__(self, first: Covering, second: Covering, cache_size: int = 0) -> None:
        super().__init__(second.manifold, cache_size=cache_size)
        if second.domain != first.codomain:
            raise ValueError(
                f"ComposedCovering: expected a second covering by {first.manifold}, "
                f"got {second} by {second.domain}"
            )
        self.first = first
        self.second = second

    def _key(self) -> tuple[Any, ...]:
        return (ComposedCovering, self.first, self.second)

    def __repr__(self) -> str:
        return f"{self.first}.then({self.second})"

    def with_cache(self, cache_size: int = 1) -> Covering:
        return ComposedCovering(self.first, self.second, cache_size=cache_size)

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        return self.first.domain

    @property
    def cover_shape(self) -> Size:
        return self.first.cover_shape

    @property
    def num_sheets(self) -> float:  # type: ignore[override]
        return self.first.num_sheets * self.second.num_sheets

    def fibre(self, y: Tensor) -> Tensor:
        return self.first.fibre(self.second.fibre(y)).flatten(0, 1)

    def log_fibre_sum(self, base_dist: Distribution, y: Tensor) -> Tensor:
        return self.first.log_fibre_sum(base_dist, self.second.fibre(y)).logsumexp(0)

    def _call(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))

    def _inverse(self, y: Tensor) -> Tensor:
        return self.first.inv(self.second.inv(y))
