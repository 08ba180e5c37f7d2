"""Universal coverings of flat manifolds, and of products."""

from __future__ import annotations

import itertools
import math
from typing import NoReturn

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution

from pyro_manifolds.distributions.transforms.covering import Covering, FiniteCovering
from pyro_manifolds.manifolds import FlatManifold, Manifold, Product
from pyro_manifolds.manifolds.glide import GlideQuotient
from pyro_manifolds.ops.events import join_events, split_events
from pyro_manifolds.ops.lattice import winding_vectors
from pyro_manifolds.ops.wrapped_normal import wrapped_normal_log_prob

__all__ = ["FlatCovering", "ProductCovering", "covering_of"]


class FlatCovering(Covering):
    r"""Universal covering of a flat manifold by :math:`\mathbb{R}^n`.

    The fibre is infinite. Its sum is exact, at constant cost and at every scale, for independent
    normals; for a full covariance on a torus it is cut where the remainder is below the resolution
    of the dtype, at a cost that grows with the scale. Under a Moebius band of finite width the
    plane is folded at the edges, so there the map is an isometry but on the lines of reflection.

    Example:
        >>> covering = KleinBottle().covering
        >>> covering(torch.tensor([4.0, 1.0]))
        tensor([ 0.8584, -1.0000])
    """

    manifold: FlatManifold

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        return constraints.real_vector if self.manifold.ndim else constraints.real

    @property
    def cover_shape(self) -> Size:
        return self.manifold.event_shape

    @property
    def num_sheets(self) -> float:  # type: ignore[override]
        return 1 if set(self.manifold.lattice) == {None} else math.inf

    def fibre(self, y: Tensor, windings: int = 1) -> Tensor:
        """Return the lifts of ``y`` with up to ``windings`` whole turns in each coordinate."""
        sheets = self.manifold.deck(y)
        turns = [
            [0] if p is None else range(-windings, windings + 1) for p in self.manifold.lattice
        ]
        periods = y.new_tensor([p or 0.0 for p in self.manifold.lattice])
        shifts = y.new_tensor(list(itertools.product(*turns))) * periods
        shifts = shifts.reshape((-1,) + (1,) * (y.dim() - self.manifold.ndim) + self.cover_shape)
        return (sheets.unsqueeze(1) + shifts).flatten(0, 1)

    def log_fibre_sum(self, base_dist: Distribution, y: Tensor) -> Tensor:
        base = _strip_independent(base_dist)
        if isinstance(base, torch.distributions.Normal):
            sheets = self.manifold.deck(y)
            terms = self._log_density(sheets - base.loc, base.scale)
            return terms.squeeze(0) if terms.shape[0] == 1 else terms.logsumexp(0)
        flips = isinstance(self.manifold, GlideQuotient)  # where a covariance depends on the lift
        if isinstance(base, torch.distributions.MultivariateNormal) and not flips:
            return self._log_multivariate_sum(base, y)
        return _refuse_base(base_dist, self)

    def _log_density(self, difference: Tensor, scale: Tensor) -> Tensor:
        """Return the log-density of independent normals modulo the lattice."""
        lattice = self.manifold.lattice
        if len(set(lattice)) == 1:
            terms = _log_prob_modulo(difference, scale, lattice[0])
            return terms.sum(-1) if self.manifold.ndim else terms
        pairs = zip(difference.unbind(-1), scale.unbind(-1), lattice, strict=True)
        return sum(itertools.starmap(_log_prob_modulo, pairs), difference.new_zeros(()))

    def _log_multivariate_sum(
        self, base: torch.distributions.MultivariateNormal, y: Tensor
    ) -> Tensor:
        periods = self.manifold.lattice
        shifts = winding_vectors(base.scale_tril, periods)
        value = base.loc + self.manifold.logmap(base.loc, y)
        shape = (-1,) + (1,) * (value.dim() - 1) + self.cover_shape
        return base.log_prob(value + shifts.reshape(shape)).logsumexp(0)

    def _call(self, x: Tensor) -> Tensor:
        return self.manifold.project(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.manifold.project(y)


class ProductCovering(Covering):
    """Product of coverings, part by part.

    Its densities are those of :class:`~pyro_manifolds.distributions.Concatenated` bases, whose
    fibre sums factorise.
    """

    manifold: Product

    @property
    def parts(self) -> list[Covering]:
        """The coverings of the factors."""
        return [factor.covering for factor in self.manifold.manifolds]

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        return constraints.real_vector

    @property
    def cover_shape(self) -> Size:
        return Size([sum(part.cover_shape.numel() for part in self.parts)])

    @property
    def num_sheets(self) -> float:  # type: ignore[override]
        return math.prod(part.num_sheets for part in self.parts)

    def fibre(self, y: Tensor) -> Tensor:
        """Return all combinations of the points above the parts of ``y``."""
        fibres = [
            part.fibre(p) for part, p in zip(self.parts, self.manifold.split(y), strict=True)
        ]
        combinations = torch.cartesian_prod(*(torch.arange(len(fibre)) for fibre in fibres))
        columns = combinations.reshape(-1, len(fibres)).unbind(-1)
        chosen = [fibre[index] for fibre, index in zip(fibres, columns, strict=True)]
        return self._join(chosen)

    def log_fibre_sum(self, base_dist: Distribution, y: Tensor) -> Tensor:
        bases = getattr(base_dist, "parts", None)
        if bases is None:
            return _refuse_base(base_dist, self)
        triples = zip(self.parts, bases, self.manifold.split(y), strict=True)
        return torch.stack([part.log_fibre_sum(base, p) for part, base, p in triples]).sum(0)

    def _call(self, x: Tensor) -> Tensor:
        pieces = split_events(x, self._cover_shapes)
        return self.manifold.join(
            [part(piece) for part, piece in zip(self.parts, pieces, strict=True)]
        )

    def _inverse(self, y: Tensor) -> Tensor:
        pairs = zip(self.parts, self.manifold.split(y), strict=True)
        return self._join([part.inv(point) for part, point in pairs])

    @property
    def _cover_shapes(self) -> list[Size]:
        return [part.cover_shape for part in self.parts]

    def _join(self, lifts: list[Tensor]) -> Tensor:
        return join_events(lifts, self._cover_shapes)


def covering_of(manifold: Manifold) -> Covering:
    """Return the covering of a manifold by the space on which samples are drawn."""
    if isinstance(manifold, Product):
        return ProductCovering(manifold)
    return (FlatCovering if isinstance(manifold, FlatManifold) else FiniteCovering)(manifold)


def _log_prob_modulo(difference: Tensor, scale: Tensor, period: float | None) -> Tensor:
    if period is None:
        return dist.Normal(0.0, scale, validate_args=False).log_prob(difference)
    return wrapped_normal_log_prob(difference, scale, period)


def _strip_independent(base: Distribution) -> Distribution:
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    return base


def _refuse_base(base: Distribution, covering: Covering) -> NoReturn:
    name = type(_strip_independent(base)).__name__
    raise NotImplementedError(
        f"CoveringPushforward: the fibre of {covering} is infinite, and the sum of {name} over it "
        "has no known bound on its remainder; expected independent normals, or a density on a "
        "cover with finitely many sheets (such as the torus)"
    )
