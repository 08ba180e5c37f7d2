"""Supports that are images of embeddings, and how Pyro moves in and out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import torch
from pyro.distributions.constraints import Constraint
from torch import Tensor
from torch.distributions import ComposeTransform, Transform, biject_to, transform_to

if TYPE_CHECKING:
    from pyro_manifolds.distributions.transforms.embedding import Embedding

__all__ = ["ImageOf"]


class ImageOf(Constraint):
    """Image of a set under an embedding.

    A value belongs to it if the inverse of the embedding leads to the set, and from there back to
    the value, up to the square root of the resolution of the dtype. ``biject_to`` and
    ``transform_to`` are those of the set, followed by the embedding.

    Args:
        embedding: The embedding.
        domain: The set, that of the whole embedding by default.

    Example:
        >>> from pyro_manifolds.distributions.transforms import FlatTorusEmbedding, ImageOf
        >>> ImageOf(FlatTorusEmbedding(1)).check(torch.tensor([[0.6, 0.8], [0.6, 0.9]]))
        tensor([ True, False])
    """

    is_discrete = False
    event_dim = 1

    def __init__(self, embedding: Embedding, domain: Constraint | None = None) -> None:
        self.embedding = embedding
        self.domain = embedding.domain if domain is None else domain
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        if value.shape[-1:] != (self.embedding.embed_dim,):
            raise ValueError(
                f"{self.embedding}: expected values of a shape that ends in "
                f"({self.embedding.embed_dim},), got {tuple(value.shape)}"
            )
        origin = self.embedding.inv(value)
        gap = torch.linalg.vector_norm(self.embedding(origin) - value, dim=-1)
        size = 1 + torch.linalg.vector_norm(value, dim=-1)
        near = gap <= torch.finfo(value.dtype).eps ** 0.5 * size
        return near & self.domain.check(origin)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ImageOf)
            and other.embedding == self.embedding
            and other.domain == self.domain
        )

    def __hash__(self) -> int:
        return hash((ImageOf, self.embedding))

    def __repr__(self) -> str:
        return f"image_of({self.embedding})"


@transform_to.register(ImageOf)
def _transform_to_image(constraint: ImageOf) -> Transform:
    return ComposeTransform([transform_to(constraint.domain), constraint.embedding])


@biject_to.register(ImageOf)
def _biject_to_image(constraint: ImageOf) -> Transform | NoReturn:
    try:
        to_domain = biject_to(constraint.domain)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"No bijection from R^n covers {constraint.domain}, whose image this is, without a "
            "cut. Move the site there by EmbeddingReparam, and from there by ManifoldReparam "
            "(pyro_manifolds.infer.reparam.AutoManifoldReparam does both); or guide it by "
            "pyro_manifolds.infer.autoguide.AutoWrappedNormal, of one component."
        ) from error
    return ComposeTransform([to_domain, constraint.embedding])
