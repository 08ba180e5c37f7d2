"""Distributions pushed forward through an embedding."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint
from torch.distributions import Distribution
from torch.types import _size

from pyro_manifolds.distributions.transforms.embedding import Embedding
from pyro_manifolds.distributions.transforms.image import ImageOf

__all__ = ["EmbeddingPushforward"]


class EmbeddingPushforward(dist.TransformedDistribution):
    r"""Distribution of :math:`y = f(z)` for an embedding :math:`f` and a known law of :math:`z`.

    With respect to the volume of dimension :math:`m` that :math:`\mathbb{R}^n` induces on the
    image, the density is

    .. math:: p(f(z)) = p_{\text{base}}(z) \, / \sqrt{\det J^\top J}

    Samples have the pathwise gradients of the base, and remember where they come from, so that
    their density needs no inverse. Two such distributions with the same embedding have exactly the
    divergence of their bases, since the volume cancels; with different ones it is refused. Where
    an embedding by network folds, the divergence of the bases is still an upper bound, while the
    density is that of one of several preimages, and wrong.

    It is an ordinary ``TransformedDistribution``: guides and NUTS work on a site as it is where
    they work on the base, and :class:`~pyro_manifolds.infer.reparam.EmbeddingReparam` moves it to
    the base.

    References:
        | Embedding-reparameterization procedure for manifold-valued latent variables in
          generative models (Golikov and Kretov, 2018), arXiv 1812.02769

    Args:
        base_dist: Distribution on the domain of the embedding, with the event shape of its points.
        embedding: The embedding.
        validate_args: Whether to check arguments and values.

    Raises:
        TypeError: If ``embedding`` is not an embedding.
        ValueError: If the event shape does not fit.

    Example:
        >>> from pyro_manifolds.distributions import EmbeddingPushforward
        >>> from pyro_manifolds.distributions.transforms import FlatTorusEmbedding
        >>> base = dist.Beta(torch.tensor([2.0]), torch.tensor([3.0])).to_event(1)
        >>> d = EmbeddingPushforward(base, FlatTorusEmbedding(1))
        >>> angle = torch.tensor(2 * math.pi * 0.3)
        >>> d.log_prob(torch.stack([angle.cos(), angle.sin()]))
        tensor(-1.2703)
    """

    def __init__(
        self,
        base_dist: Distribution,
        embedding: Embedding,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(embedding, Embedding):
            raise TypeError(
                f"EmbeddingPushforward: expected embedding to be an Embedding, "
                f"got {type(embedding).__name__}"
            )
        if base_dist.event_shape != embedding.domain_shape:
            raise ValueError(
                f"EmbeddingPushforward: expected base_dist of event_shape "
                f"{tuple(embedding.domain_shape)}, got {tuple(base_dist.event_shape)}; "
                "declare event dimensions with .to_event()"
            )
        super().__init__(base_dist, [embedding.with_cache()], validate_args=validate_args)

    def __repr__(self) -> str:
        return f"EmbeddingPushforward({self.base_dist}, {self.embedding})"

    @property
    def embedding(self) -> Embedding:
        """The embedding."""
        return self.transforms[0]

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Constraint:
        return ImageOf(self.embedding, self.base_dist.support)

    def expand(self, batch_shape: _size, _instance: Any = None) -> EmbeddingPushforward:
        new = self._get_checked_instance(EmbeddingPushforward, _instance)
        return super().expand(batch_shape, _instance=new)
