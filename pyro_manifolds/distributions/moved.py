"""Distributions moved by an isometry."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch.distributions import Distribution
from torch.types import _size

from pyro_manifolds.distributions.transforms.group_action import GroupAction
from pyro_manifolds.manifolds import Manifold

__all__ = ["Moved"]


class Moved(dist.TransformedDistribution):
    r"""Distribution of :math:`y = g \cdot z` for an isometry :math:`g` and a known law of `z`.

    With respect to the Riemannian volume the density is :math:`p(y) = p_{\text{base}}(g^{-1}
    y)`. The divergence from the uniform law of the manifold is that of the base, exactly. From any
    other it is not, and is not offered: a prior that is only nearly invariant, such as a uniform
    law pushed through a learned embedding, would give a number that is no bound of the evidence.

    References:
        | Embedding-reparameterization procedure for manifold-valued latent variables in
          generative models (Golikov and Kretov, 2018), arXiv 1812.02769

    Args:
        base_dist: Distribution on the manifold of the action, or on an image of an embedding with
            points of the same shape.
        action: The isometry, or a batch of them.
        validate_args: Whether to check arguments and values.

    Raises:
        TypeError: If ``action`` is not a group action.
        ValueError: If the event shape does not fit.

    Example:
        >>> from pyro_manifolds.distributions import EmbeddingPushforward, Moved
        >>> from pyro_manifolds.distributions.transforms import FlatTorusEmbedding, Rotation
        >>> beta = dist.Beta(torch.tensor([9.0]), torch.tensor([9.0])).to_event(1)
        >>> rotation = Rotation.by_angle(torch.linspace(0.0, 3.0, 5))
        >>> d = Moved(EmbeddingPushforward(beta, FlatTorusEmbedding(1)), rotation)
        >>> d.batch_shape, torch.distributions.kl_divergence(d, ManifoldUniform(Sphere(1)))
        (torch.Size([5]), tensor([0.7487, 0.7487, 0.7487, 0.7487, 0.7487]))
    """

    def __init__(
        self,
        base_dist: Distribution,
        action: GroupAction,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(action, GroupAction):
            raise TypeError(
                f"Moved: expected action to be a GroupAction, got {type(action).__name__}"
            )
        if base_dist.event_shape != action.manifold.event_shape:
            raise ValueError(
                f"Moved: expected base_dist of event_shape {tuple(action.manifold.event_shape)}, "
                f"that of points of {action.manifold}, got {tuple(base_dist.event_shape)}; "
                "declare event dimensions with .to_event()"
            )
        super().__init__(base_dist, [action.with_cache()], validate_args=validate_args)

    def __repr__(self) -> str:
        return f"Moved({self.base_dist}, {self.action})"

    @property
    def action(self) -> GroupAction:
        """The isometry."""
        return self.transforms[0]

    @property
    def manifold(self) -> Manifold:
        """The manifold on which the distribution lives."""
        return self.action.manifold

    def expand(self, batch_shape: _size, _instance: Any = None) -> Moved:
        new = self._get_checked_instance(Moved, _instance)
        return super().expand(batch_shape, _instance=new)
