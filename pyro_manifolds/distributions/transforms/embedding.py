"""Embeddings as transforms: smooth injective maps that raise the dimension."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Transform

from pyro_manifolds.distributions.transforms.image import ImageOf
from pyro_manifolds.distributions.transforms.remembering import RememberingTransform
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.ops.gauss_newton import gauss_newton
from pyro_manifolds.ops.volume_element import half_log_det_gram, jacobian, push_forward

__all__ = ["ComposedEmbedding", "Embedding", "FunctionEmbedding"]


class Embedding(RememberingTransform):
    r"""Smooth injective map :math:`f` of a space of dimension :math:`m` into :math:`\mathbb{R}^n`.

    Its log-determinant is that of the volume of the image, to which densities there refer,

    .. math:: \tfrac12 \log\det J^\top J, \quad J = \partial f / \partial z \in \mathbb{R}^{n
        \times m}

    A subclass gives ``dim`` (:math:`m`), ``embed_dim`` (:math:`n`), ``domain``, ``_call`` for
    points ``[..., m]``, which treats leading dimensions as a batch, ``_inverse``, ``_key()``, and
    ``log_abs_det_jacobian`` where there is a formula. It is called a bijection since it is one
    onto its image; a value beside the image has the inverse of some point near to it.

    An embedding must not be followed by another transform in a list of transforms, as torch would
    add the determinant of a square matrix, which is not that of the image: an ellipse made of a
    circle in this way has a mass of 0.77. :meth:`then` makes one embedding of both.

    References:
        | Embedding-reparameterization procedure for manifold-valued latent variables in
          generative models (Golikov and Kretov, 2018), arXiv 1812.02769

    Example:
        >>> from pyro_manifolds.distributions.transforms import FlatTorusEmbedding
        >>> circle = FlatTorusEmbedding(1)
        >>> ellipse = circle.then(dist.transforms.AffineTransform(0.0, torch.tensor([2.0, 1.0])))
        >>> z = torch.tensor([0.1])
        >>> ellipse.log_abs_det_jacobian(z, ellipse(z))
        tensor(2.1935)
    """

    bijective = True
    dim: int
    embed_dim: int
    domain_shape: Size

    def __init__(self, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)

    @property
    def codomain(self) -> Constraint:  # type: ignore[override]
        return ImageOf(self)

    @property
    def uniform_image(self) -> Manifold | None:
        """Manifold, if any, of which the uniform law on the domain becomes the uniform law."""
        return None

    @abc.abstractmethod
    def _key(self) -> tuple[Any, ...]:
        """Return what tells two instances of one class apart; functions by identity."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._key() == self._key()

    def __hash__(self) -> int:
        return hash((type(self), self.dim, self.embed_dim))  # not every transform has a hash

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self._key()))})"

    def then(self, transform: Transform) -> Embedding:
        r"""Return the embedding that goes on with a transform of :math:`\mathbb{R}^n`.

        Args:
            transform: Smooth and injective, with an inverse: another embedding, or any bijection.
        """
        return ComposedEmbedding(self, transform)

    def jacobian(self, x: Tensor) -> Tensor:
        """Return the images of an orthonormal frame of the domain, ``[..., embed_dim, dim]``."""
        return jacobian(self._call, x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return half_log_det_gram(self.jacobian(x))

    def forward_shape(self, shape: Size) -> Size:
        return Size(shape[: len(shape) - len(self.domain_shape)]) + Size([self.embed_dim])

    def inverse_shape(self, shape: Size) -> Size:
        return Size(shape[:-1]) + self.domain_shape


class FunctionEmbedding(Embedding):
    r"""Embedding by any function and its inverse, such as two networks.

    Args:
        function: Smooth injective map of ``[..., dim]`` to ``[..., embed_dim]`` that treats
            leading dimensions as a batch. ReLU makes densities jump.
        inverse: Map of ``[..., embed_dim]`` back, exact or nearly so.
        dim: Dimension of the domain.
        embed_dim: Dimension of the space around the image.
        domain: Where points of the domain lie, with one event dimension.
        refine_steps: Number of steps of Gauss-Newton from what ``inverse`` returns.

    Raises:
        ValueError: If ``dim`` exceeds ``embed_dim``, or ``domain`` has not one event dimension.

    Example:
        >>> from pyro_manifolds.distributions.transforms import FunctionEmbedding
        >>> parabola = FunctionEmbedding(
        ...     lambda z: torch.cat([z, z.square()], -1), lambda y: y[..., :1], 1, 2
        ... )
        >>> parabola(torch.tensor([3.0])), parabola.codomain.check(torch.tensor([3.0, 8.0]))
        (tensor([3., 9.]), tensor(False))
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        inverse: Callable[[Tensor], Tensor],
        dim: int,
        embed_dim: int,
        *,
        domain: Constraint = constraints.real_vector,
        refine_steps: int = 0,
        cache_size: int = 0,
    ) -> None:
        super().__init__(cache_size=cache_size)
        if not 1 <= dim <= embed_dim:
            raise ValueError(
                f"FunctionEmbedding: expected 1 <= dim <= embed_dim, got {dim} and {embed_dim}"
            )
        if domain.event_dim != 1:
            raise ValueError(
                f"FunctionEmbedding: expected a domain with one event dimension, got {domain} "
                f"with {domain.event_dim}; use constraints.independent"
            )
        self.function, self.inverse = function, inverse
        self.dim, self.embed_dim, self.domain_shape = dim, embed_dim, Size([dim])
        self.domain = domain
        self.refine_steps = refine_steps

    def _key(self) -> tuple[Any, ...]:
        return (self.function, self.inverse, self.dim, self.embed_dim, self.refine_steps)

    def _call(self, x: Tensor) -> Tensor:
        return self.function(x)

    def _inverse(self, y: Tensor) -> Tensor:
        start = self.inverse(y)
        if not self.refine_steps:
            return start
        return gauss_newton(self.function, start, y, self.refine_steps, max_step=math.inf)


class ComposedEmbedding(Embedding):
    """Embedding followed by a transform of the space around its image: see ``Embedding.then``.

    Args:
        first: The embedding.
        second: The transform.

    Raises:
        TypeError: If ``second`` is not a transform.
        ValueError: If ``second`` is not injective.
    """

    def __init__(self, first: Embedding, second: Transform, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        if not isinstance(second, Transform):
            raise TypeError(
                f"ComposedEmbedding: expected a Transform, got {type(second).__name__}"
            )
        if not second.bijective:
            raise ValueError(f"ComposedEmbedding: expected an injective transform, got {second}")
        self.first, self.second = first, second
        self.domain, self.domain_shape, self.dim = first.domain, first.domain_shape, first.dim
        self.embed_dim = second.forward_shape(Size([first.embed_dim]))[-1]

    def _key(self) -> tuple[Any, ...]:
        return (self.first, self.second)

    def _call(self, x: Tensor) -> Tensor:
        return self.second(self.first._call(x))

    def _inverse(self, y: Tensor) -> Tensor:
        return self.first._inverse(self.second.inv(y))

    def jacobian(self, x: Tensor) -> Tensor:
        """Return the images of an orthonormal frame of the domain, ``[..., embed_dim, dim]``."""
        return push_forward(self.second, self.first._call(x), self.first.jacobian(x))
