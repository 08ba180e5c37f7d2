"""Distributions of Pyro on circles, tori and spheres, as distributions on our manifolds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution, MixtureSameFamily
from torch.distributions import constraints as torch_constraints
from torch.types import _size

from pyro_manifolds.distributions.constraints import OnManifold
from pyro_manifolds.distributions.manifold_mixture import ManifoldMixture
from pyro_manifolds.distributions.projected_normal import ProjectedNormal
from pyro_manifolds.distributions.von_mises import VonMises
from pyro_manifolds.distributions.von_mises_fisher import VonMisesFisher
from pyro_manifolds.manifolds import Manifold, Sphere, Torus

__all__ = ["DeclaredOn", "adopt", "manifold_of"]


def adopt(law: Distribution) -> TorchDistribution | None:
    """Return the same distribution with the support of a manifold, or None if there is none.

    Pyro declares the angles of ``VonMises``, ``SineBivariateVonMises`` and ``SineSkewed`` to be
    real numbers, on which variational guides grow without end. Here they live on a circle or a
    torus. ``VonMises``, ``ProjectedNormal`` and ``VonMises3D`` become ours, which are exact at
    every concentration and in every dimension; whatever else has the support
    ``constraints.sphere`` is declared to live on a :class:`Sphere`. Mixtures of such follow, and
    events, masks and expansions of them. What lives on a manifold already is returned as it is.

    Args:
        law: Any distribution.

    Example:
        >>> from pyro_manifolds.distributions.adoption import adopt
        >>> adopt(dist.VonMises(torch.zeros(3), 1.0).to_event(1)).support
        IndependentConstraint(on_manifold(Circle()), 1)
        >>> adopt(dist.Normal(0.0, 1.0)) is None
        True
    """
    support = _support_of(law)
    if _base_of(support) is not None:
        return law  # type: ignore[return-value]
    for kind, rule in _RULES.items():
        if isinstance(law, kind):
            return rule(law)
    if support is constraints.sphere and law.event_shape[-1] > 1:
        return DeclaredOn(law, Sphere(law.event_shape[-1] - 1))
    return None


def manifold_of(law: Distribution) -> Manifold | None:
    """Return the manifold of :func:`adopt`, also where an event consists of several points.

    Example:
        >>> from pyro_manifolds.distributions.adoption import manifold_of
        >>> manifold_of(dist.VonMises(torch.zeros(3), 1.0).to_event(1))
        Circle()
    """
    adopted = adopt(law)
    constraint = None if adopted is None else _base_of(adopted.support)
    return None if constraint is None else constraint.manifold


class DeclaredOn(TorchDistribution):
    """Distribution of another library, declared to live on a manifold.

    The density is that of ``base_dist`` at the canonical representative, and must be with respect
    to the Riemannian volume.

    Args:
        base_dist: The distribution.
        manifold: The manifold on which its draws are points.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If the event shape is not that of points of the manifold.

    Example:
        >>> from pyro_manifolds.distributions.adoption import DeclaredOn
        >>> d = DeclaredOn(dist.Uniform(-math.pi, math.pi), Circle())
        >>> d.log_prob(torch.tensor(9.0))
        tensor(-1.8379)
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(
        self, base_dist: Distribution, manifold: Manifold, *, validate_args: bool | None = None
    ) -> None:
        if base_dist.event_shape != manifold.event_shape:
            raise ValueError(
                f"DeclaredOn: expected base_dist of event_shape {tuple(manifold.event_shape)}, "
                f"that of points of {manifold}, got {tuple(base_dist.event_shape)}"
            )
        self.base_dist = base_dist
        self.manifold = manifold
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        return f"DeclaredOn({self.base_dist}, {self.manifold})"

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_rsample)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Constraint:
        return self.manifold.support

    @property
    def mean(self) -> Tensor:
        """Mean that ``base_dist`` states, as a canonical point."""
        return self.manifold.projx(self.base_dist.mean)

    def expand(self, batch_shape: _size, _instance: Any = None) -> DeclaredOn:
        new = self._get_checked_instance(DeclaredOn, _instance)
        new.base_dist, new.manifold = self.base_dist.expand(Size(batch_shape)), self.manifold
        super(DeclaredOn, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = Size()) -> Tensor:
        return self.manifold.projx(self.base_dist.rsample(Size(sample_shape)))

    def sample(self, sample_shape: _size = Size()) -> Tensor:
        with torch.no_grad():
            return self.manifold.projx(self.base_dist.sample(Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # Pyro's normaliser of SineBivariateVonMises takes the default type.
        return self.base_dist.log_prob(self.manifold.projx(value)).to(value.dtype)


def _support_of(law: Distribution) -> Constraint | None:
    try:
        return law.support
    except NotImplementedError:
        return None


def _base_of(support: Constraint | None) -> OnManifold | None:
    """Return the constraint to a manifold behind events of several points."""
    while isinstance(support, torch_constraints.independent):
        support = support.base_constraint
    return support if isinstance(support, OnManifold) else None


def _inside(rewrap: Callable[[Any, Any], Any]) -> Callable[[Any], TorchDistribution | None]:
    """Adopt what is wrapped, and wrap it again."""

    def rule(law: Any) -> TorchDistribution | None:
        base = adopt(law.base_dist)
        return None if base is None else rewrap(law, base)

    return rule


def _adopt_von_mises(law: Any) -> VonMises:
    return VonMises(law.loc, law.concentration, validate_args=law._validate_args)


def _adopt_projected_normal(law: Any) -> ProjectedNormal | None:
    if law.event_shape[-1] < 2:
        return None
    return ProjectedNormal(law.concentration, validate_args=law._validate_args)


def _adopt_von_mises_3d(law: Any) -> VonMisesFisher:
    c = law.concentration
    # At zero any direction will do; a shift below resolution keeps length and direction smooth.
    tiny = torch.finfo(c.dtype).eps
    axis = torch.zeros_like(c)
    axis[..., 0] = tiny
    length = torch.linalg.vector_norm(c.detach(), dim=-1, keepdim=True)
    c = c + torch.where(length < tiny, axis, 0.0)
    length = torch.linalg.vector_norm(c, dim=-1, keepdim=True)
    return VonMisesFisher(c / length, length.squeeze(-1), validate_args=law._validate_args)


def _on_torus(law: Any) -> DeclaredOn:
    return DeclaredOn(law, Torus(law.event_shape[0]))


def _adopt_skewed(law: Any) -> DeclaredOn | None:
    # Sines are of angles; Pyro's documentation also names a base of unit vectors.
    return None if _support_of(law.base_dist) is constraints.sphere else _on_torus(law)


def _adopt_mixture(law: Any) -> ManifoldMixture | None:
    components = adopt(law.component_distribution)
    if components is None:
        return None
    return ManifoldMixture(law.mixture_distribution, components, validate_args=law._validate_args)


_RULES: dict[type[Distribution], Callable[[Any], TorchDistribution | None]] = {
    torch.distributions.Independent: _inside(
        lambda law, base: base.to_event(law.reinterpreted_batch_ndims)
    ),
    dist.MaskedDistribution: _inside(lambda law, base: base.mask(law._mask)),
    dist.ExpandedDistribution: _inside(lambda law, base: base.expand(law.batch_shape)),
    torch.distributions.VonMises: _adopt_von_mises,
    dist.ProjectedNormal: _adopt_projected_normal,
    dist.VonMises3D: _adopt_von_mises_3d,
    dist.SineBivariateVonMises: _on_torus,
    dist.SineSkewed: _adopt_skewed,
    MixtureSameFamily: _adopt_mixture,
}
