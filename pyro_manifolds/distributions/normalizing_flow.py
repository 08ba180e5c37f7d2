"""Distributions that a chain of bijections of a manifold makes of a simple one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution
from torch.types import _size

from pyro_manifolds.manifolds import Manifold

__all__ = ["Bijection", "NormalizingFlow"]


class Bijection(Protocol):
    """Bijection of a manifold that may depend on a context, such as a module with parameters."""

    def __call__(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the image of ``x``, and the logarithm of the factor by which volume grows."""

    def inverse(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Return the point whose image is ``z``."""


class NormalizingFlow(TorchDistribution):
    r"""Distribution of :math:`x` for which :math:`z = f_n(\cdots f_1(x))` has a known law.

    With respect to the Riemannian volume of the manifold, the density is

    .. math:: p(x) = p_{\text{base}}(z) \, |\det \partial z / \partial x|

    Samples are canonical representatives with pathwise gradients by context, parameters of the
    bijections and of the base. What is on a cover is pushed to its quotients by
    :class:`CoveringPushforward`. :class:`~pyro_manifolds.nn.TorusFlow` and
    :class:`~pyro_manifolds.nn.CylinderFlow` return it.

    References:
        | Normalizing Flows on Tori and Spheres (Rezende et al., 2020), arXiv 2002.02428

    Args:
        base_dist: Distribution of ``z`` on the manifold.
        bijections: Applied in this order to go from ``x`` to ``z``.
        manifold: The manifold.
        context: What the bijections depend on, shape ``batch_shape + (n,)``, if anything.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If the event shape of ``base_dist`` does not fit.

    Example:
        >>> from pyro_manifolds.distributions import NormalizingFlow
        >>> d = NormalizingFlow(ManifoldUniform(Torus(2)), [], Torus(2))
        >>> d.log_prob(torch.zeros(2))
        tensor(-3.6758)
    """

    def __init__(
        self,
        base_dist: Distribution,
        bijections: Sequence[Bijection],
        manifold: Manifold,
        context: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if base_dist.event_shape != manifold.event_shape:
            raise ValueError(
                f"NormalizingFlow: expected base_dist of event_shape "
                f"{tuple(manifold.event_shape)}, got {tuple(base_dist.event_shape)}; "
                "declare event dimensions with .to_event()"
            )
        self.bijections = bijections
        self.manifold = manifold
        self.context = context
        batch = Size() if context is None else context.shape[:-1]
        batch_shape = torch.broadcast_shapes(base_dist.batch_shape, batch)
        self.base_dist = base_dist.expand(batch_shape)
        super().__init__(batch_shape, manifold.event_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        return f"NormalizingFlow({self.base_dist}, {len(self.bijections)} bijections)"

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {} if self.context is None else {"context": constraints.real_vector}

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_rsample)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Constraint:
        return self.manifold.support

    def expand(self, batch_shape: _size, _instance: Any = None) -> NormalizingFlow:
        new = self._get_checked_instance(NormalizingFlow, _instance)
        batch_shape = Size(batch_shape)
        if self.context is not None:
            self.context.expand(batch_shape + self.context.shape[-1:])  # refuses what cannot be
        new.base_dist = self.base_dist.expand(batch_shape)
        new.bijections, new.manifold = self.bijections, self.manifold
        new.context = self.context  # not expanded: networks read each row once
        super(NormalizingFlow, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        return self._from_base(self.base_dist.rsample(sample_shape))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self._from_base(self.base_dist.sample(sample_shape))

    def _from_base(self, z: Tensor) -> Tensor:
        for bijection in reversed(self.bijections):
            z = bijection.inverse(z, self.context)
        return self.manifold.projx(z)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_growth = value.new_zeros(())
        for bijection in self.bijections:
            value, term = bijection(value, self.context)
            log_growth = log_growth + term
        # Rounding may have left an open manifold by its edge.
        return self.base_dist.log_prob(self.manifold.projx(value)) + log_growth
