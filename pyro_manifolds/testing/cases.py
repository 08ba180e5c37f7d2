"""What the laws need to know of the thing that they judge: one row of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor

from pyro_manifolds.distributions.transforms import Covering
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.testing.quadrature import Rule

__all__ = ["Case", "CoveringCase", "ManifoldCase"]

Nested: TypeAlias = float | Sequence["Nested"]
Move: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One regime of one distribution, and the oracles that exist for it.

    A law is a function of a case and a dtype that raises ``AssertionError``. It asks the case,
    never the class of the distribution; a field that is left out switches off the laws that need
    it.

    Attributes:
        build: Constructor; takes the parameters by name and ``validate_args``, or, where there
            are no parameters, ``dtype`` and ``validate_args``. It may map parameters onto their
            domain (normalise a direction), so that derivatives by free numbers exist.
        params: Parameters of one distribution without batch dimensions, as nested sequences.
        manifold: Where the distribution lives.
        other: Parameters, the rest as in ``params``, of another distribution of the family, for
            guides and divergences.
        quadrature: Nodes and weights over the manifold in a dtype, fine enough for both.
        deck: Generators of the deck group, acting on representatives.
        orbit: All images of points, ``[..., *event]``, under words of the generators up to a
            length, stacked in front; with ``base`` an independent oracle for the density.
        base: Constructor of the distribution on the cover, with arguments as for ``build``.
        reach: Length of words that covers the base up to the precision of float64, for a value
            of the scale.
        fibre_scales: Scales at which the density is compared with the sum over the orbit.
        wrong: Factors of parameters that make the wrong distribution which must be told apart.
        extremes: Values of parameters at which everything must stay finite in float32.
        uniform: Parameters at which the distribution is uniform.
        gaussian: Parameters at which it is normal with a small standard deviation.
        invalid: Parameters that validation must refuse.
        kl: Builds a reference and says that the divergence to it is registered.
        kl_bound: Builds a reference for ``covering_kl_bound``.
        kl_estimate: Builds a reference for ``covering_kl_estimate``.
        kl_adds: Whether it is also registered for independent copies as one event.
        has_entropy: Whether ``entropy()`` is offered.
        has_mean: Whether ``mean`` is the intrinsic mean (and the cut locus has no mass).
        compiles: Whether the density has no branch on data, so that it can be compiled and mapped.
        lifts: Whether the prior and the guide can be moved to their common cover.
    """

    build: Callable[..., TorchDistribution]
    params: Mapping[str, Any]
    manifold: Manifold
    other: Mapping[str, Any] | None = None
    quadrature: Callable[[torch.dtype], Rule] | None = None
    quadrature_error: float = 0.0
    deck: tuple[Move, ...] = ()
    orbit: Callable[[Tensor, int], Tensor] | None = None
    base: Callable[..., TorchDistribution] | None = None
    reach: Callable[[float], int] = lambda scale: 1
    fibre_scales: tuple[float, ...] = ()
    wrong: Mapping[str, Any] = field(default_factory=dict)
    extremes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    uniform: Mapping[str, Any] | None = None
    gaussian: Callable[[float], Mapping[str, Any]] | None = None
    invalid: tuple[Mapping[str, Any], ...] = ()
    kl: Callable[..., TorchDistribution] | None = None
    kl_bound: Callable[..., TorchDistribution] | None = None
    kl_estimate: Callable[..., TorchDistribution] | None = None
    kl_adds: bool = True
    has_entropy: bool = False
    has_mean: bool = False
    compiles: bool = True
    lifts: bool = False

    @property
    def support(self) -> Constraint:
        """Support of the distribution."""
        support = self.make(torch.float32).support
        assert support is not None
        return support

    @property
    def has_loc(self) -> bool:
        """Whether one of the parameters is a location."""
        return "loc" in self.params

    @property
    def intrinsic_dim(self) -> int:
        """Dimension of the manifold."""
        return self.manifold.dim

    def parameters(
        self,
        dtype: torch.dtype,
        batch_shape: Sequence[int] = (),
        *,
        requires_grad: bool = False,
        **overrides: Any,
    ) -> dict[str, Tensor]:
        """Return fresh tensors; an override may be one number for all entries."""
        found = {}
        for name, default in self.params.items():
            shape = torch.as_tensor(default).shape
            value = torch.as_tensor(overrides.get(name, default), dtype=dtype)
            full = value.expand(Size(batch_shape) + shape).clone()
            found[name] = full.requires_grad_(requires_grad)
        return found

    def make(
        self,
        dtype: torch.dtype,
        batch_shape: Sequence[int] = (),
        *,
        validate_args: bool | None = None,
        **overrides: Any,
    ) -> TorchDistribution:
        """Return the distribution, with some of its parameters overridden."""
        if not self.params:
            d = self.build(dtype=dtype, validate_args=validate_args)
            return d.expand(Size(batch_shape)) if batch_shape else d
        params = self.parameters(dtype, batch_shape, **overrides)
        return self.build(**params, validate_args=validate_args)

    def make_other(self, dtype: torch.dtype) -> TorchDistribution:
        """Return the other distribution of the family."""
        return self.make(dtype, **(self.other or {}))

    def points(self, dtype: torch.dtype, size: int) -> Tensor:
        """Return draws, as points of the manifold without history."""
        return self.make(dtype).sample((size,))


@dataclass(frozen=True)
class ManifoldCase:
    """One manifold.

    Attributes:
        manifold: The manifold.
        injectivity_radius: Length up to which geodesics are shortest, from every point drawn.
        volume: The volume, by another way than the manifold's own.
        deck: Generators of the deck group, acting on representatives.
        orbit: All images of points under words up to a length, stacked in front.
        cover_dist: Distance on the cover, for pairs of representatives.
        inner_points: Moves points away from the edge, where there is one.
        crossing: Two points on both sides of a seam, nearer than the injectivity radius.
    """

    manifold: Manifold
    injectivity_radius: float
    volume: float
    deck: tuple[Move, ...] = ()
    orbit: Callable[[Tensor, int], Tensor] | None = None
    cover_dist: Callable[[Tensor, Tensor], Tensor] | None = None
    inner_points: Move = lambda x: x
    crossing: tuple[Nested, Nested] | None = None

    def points(self, dtype: torch.dtype, *batch: int) -> Tensor:
        """Draw points, uniform where that is possible."""
        size = Size(batch) + self.manifold.event_shape
        if self.manifold.is_compact:
            drawn = self.manifold.random_uniform(size, dtype=dtype).as_subclass(Tensor)
        else:
            drawn = self.manifold.unembed(
                torch.randn(*batch, self.manifold.embed_dim, dtype=dtype)
            )
        return self.inner_points(drawn)

    def tangents(self, x: Tensor, length: float | None = None) -> Tensor:
        """Draw tangent vectors at ``x``, of a given length if there is one."""
        u = self.manifold.proju(x, torch.randn_like(x))
        if length is None:
            return u
        norm = self.manifold.norm(x, u)
        return u * (length / norm).reshape(norm.shape + (1,) * self.manifold.ndim)


@dataclass(frozen=True)
class CoveringCase:
    """One covering.

    Attributes:
        covering: The covering.
        cover_points: Draws points of the cover: of a dtype, so many.
        tangent_basis: Orthonormal basis of the tangent space of the cover at a point, as rows;
            the whole space if not given.
    """

    covering: Covering
    cover_points: Callable[[torch.dtype, int], Tensor]
    tangent_basis: Callable[[Tensor], Tensor] | None = None
