"""Embeddings by networks, with an inverse that needs no second network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor, nn

from pyro_manifolds.distributions.transforms.embedding import Embedding
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.ops.gauss_newton import gauss_newton
from pyro_manifolds.ops.volume_element import jacobian

__all__ = ["LearnedEmbedding"]

Base = Literal["uniform", "normal"]

_UNIT_CUBE = constraints.independent(constraints.unit_interval, 1)
_FAR = 0.15  # distance in the unit cube beyond which two codes may belong to two sheets
_SPREAD = math.sqrt(12)  # standard deviations of the unit interval in its length


class LearnedEmbedding(Embedding, nn.Module):
    r"""Embedding :math:`f` by a network, the decoder; :func:`fit_embedding` trains one.

    The inverse is the point of the domain whose image is nearest. Gauss-Newton finds it from two
    or more starts, of which the best end is taken: the nearest of a table of codes, the nearest
    one far from that, and what an ``encoder`` proposes, if there is one. A continuous encoder
    cannot follow a closed manifold across the seam, where the inverse must jump; a table can.
    The last step is differentiable.

    It is a module whose parameters belong to the map: a density through it is that of a fixed
    latent only while they are fixed, and :func:`fit_embedding` returns it frozen. Two embeddings
    are equal if they have the same decoder, the very same object; a copy by ``with_cache`` is
    equal, a deep copy is not.

    References:
        | Embedding-reparameterization procedure for manifold-valued latent variables in
          generative models (Golikov and Kretov, 2018), arXiv 1812.02769

    Args:
        decoder: Smooth map of ``[..., dim]`` to ``[..., embed_dim]`` that treats leading
            dimensions as a batch. ReLU makes densities jump.
        encoder: Map of ``[..., embed_dim]`` to one guess, ``[..., dim]``, or to several,
            ``[..., k, dim]``.
        dim: Dimension of the domain.
        embed_dim: Dimension of the space around the image.
        base: ``"uniform"`` for the unit cube as domain, ``"normal"`` for :math:`\mathbb{R}^m`.
        num_codes: Size of the table; 256, 1024 or 4096 by default, as ``dim`` is 1, 2 or more.
        refine_steps: Number of steps of Gauss-Newton from each start.

    Raises:
        ValueError: If ``dim`` exceeds ``embed_dim``, or another argument is out of range.

    Example:
        >>> from pyro_manifolds.distributions.transforms import LearnedEmbedding
        >>> arc = LearnedEmbedding(
        ...     lambda z: torch.cat([(3 * z).cos(), (3 * z).sin()], -1), dim=1, embed_dim=2
        ... )
        >>> y = arc(torch.tensor([0.25]))
        >>> arc.inv(y), arc.log_abs_det_jacobian(torch.tensor([0.25]), y).exp()
        (tensor([0.2500]), tensor(3.))
    """

    codes: Tensor
    manifold: Manifold | None

    def __init__(
        self,
        decoder: Callable[[Tensor], Tensor],
        encoder: Callable[[Tensor], Tensor] | None = None,
        *,
        dim: int,
        embed_dim: int,
        base: Base = "uniform",
        num_codes: int | None = None,
        refine_steps: int = 6,
        cache_size: int = 0,
    ) -> None:
        super().__init__(cache_size=cache_size)
        _check(dim, embed_dim, base, refine_steps)
        self.decoder, self.encoder = decoder, encoder
        self.dim, self.embed_dim, self.domain_shape = dim, embed_dim, Size([dim])
        self.base, self.refine_steps = base, refine_steps
        self.domain = _UNIT_CUBE if base == "uniform" else constraints.real_vector
        self._set_manifold(None)
        self.diagnostics: Any = None
        num_codes = num_codes or (256, 1024, 4096)[min(dim, 3) - 1]
        self.register_buffer("codes", even_points(base, num_codes, dim, seed=0))
        like = next(self.parameters(), None)
        if like is not None:
            self.codes = self.codes.to(like)

    def _key(self) -> tuple[Any, ...]:
        return (self.decoder, self.encoder, self.base, self.refine_steps, self.manifold)

    def __repr__(self) -> str:
        onto = f", onto={self.manifold}" if self.manifold else ""
        return f"LearnedEmbedding(dim={self.dim}, embed_dim={self.embed_dim}, {self.base}{onto})"

    def prior(self) -> dist.Distribution:
        """Return the law on the domain whose image is that of the samples it was fitted to."""
        zero = self.codes.new_zeros(self.dim)
        law = dist.Uniform if self.base == "uniform" else dist.Normal
        return law(zero, zero + 1).to_event(1)

    def onto(self, manifold: Manifold) -> LearnedEmbedding:
        """Return the embedding that goes on to the nearest point of a manifold.

        The image of a network is near the manifold, not on it. A group that acts on the manifold,
        such as a rotation, would carry that image to another one, on which the density is zero.

        Args:
            manifold: Manifold whose ``embed`` leads into the space around the image.

        Raises:
            ValueError: If ``embed`` leads elsewhere.

        Example:
            >>> from pyro_manifolds.distributions.transforms import LearnedEmbedding
            >>> curve = LearnedEmbedding(
            ...     lambda z: 1.1 * torch.cat([(3 * z).cos(), (3 * z).sin()], -1),
            ...     dim=1, embed_dim=2,
            ... )
            >>> curve.onto(Circle())(torch.tensor([0.5])).norm()
            tensor(1.)
        """
        if manifold.embed_dim != self.embed_dim:
            raise ValueError(
                f"LearnedEmbedding.onto: expected a manifold in R^{self.embed_dim}, "
                f"got {manifold} in R^{manifold.embed_dim}"
            )
        new = copy.copy(self)
        new.diagnostics = None
        new._set_manifold(manifold)
        return new

    def _set_manifold(self, manifold: Manifold | None) -> None:
        # Not a submodule: shallow copies share the table of those.
        object.__setattr__(self, "manifold", manifold)

    def forward(self, x: Tensor) -> Tensor:
        """Return the image, as a call does."""
        return self(x)

    def _call(self, x: Tensor) -> Tensor:
        y = self.decoder(x)
        return y if self.manifold is None else self.manifold.embed(self.manifold.unembed(y))

    def _inverse(self, y: Tensor) -> Tensor:
        unit = 1.0 if self.base == "uniform" else _SPREAD
        options: dict[str, Any] = {"max_step": 0.1 * unit}
        options["bounds"] = (0.0, 1.0) if self.base == "uniform" else None
        with torch.no_grad():
            starts, targets = self._starts(y, _FAR * unit), y.unsqueeze(-2)
            ends = gauss_newton(self._call, starts, targets, self.refine_steps, **options)
            best = _lengths(self._call(ends) - targets).argmin(-1)[..., None, None]
            start = ends.take_along_dim(best, -2).squeeze(-2)
        return gauss_newton(self._call, start, y, 1, **options)

    def _starts(self, y: Tensor, far: float) -> Tensor:
        """Return guesses ``[..., k, dim]`` of the inverse."""
        images = self._call(self.codes)
        # The square of y is the same for all codes.
        gaps = images.square().sum(-1) - 2 * y @ images.mT
        first = self.codes[gaps.argmin(-1)]
        near = _lengths(self.codes - first.unsqueeze(-2)) < far
        second = self.codes[gaps.masked_fill(near, math.inf).argmin(-1)]
        starts = [first.unsqueeze(-2), second.unsqueeze(-2)]
        if self.encoder is not None:
            guesses = self.encoder(y)
            starts.append(guesses if guesses.dim() > y.dim() else guesses.unsqueeze(-2))
        return torch.cat(starts, -2)

    def jacobian(self, x: Tensor) -> Tensor:
        """Return the derivative of the image, shape ``[..., embed_dim, dim]``."""
        return jacobian(self._call, x)


def even_points(base: Base, count: int, dim: int, *, seed: int) -> Tensor:
    """Return points spread as those of the base are, but more evenly, shape ``[count, dim]``."""
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)
    points = engine.draw(count, dtype=torch.get_default_dtype())
    if base == "uniform":
        return points
    smallest = 0.5 / count  # zero and one are at infinity
    return math.sqrt(2) * torch.erfinv(2 * points.clamp(smallest, 1 - smallest) - 1)


def _lengths(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1)


def _check(dim: int, embed_dim: int, base: str, refine_steps: int) -> None:
    if not 1 <= dim <= embed_dim:
        raise ValueError(
            f"LearnedEmbedding: expected 1 <= dim <= embed_dim, got {dim} and {embed_dim}"
        )
    if base not in ("uniform", "normal"):
        raise ValueError(f"LearnedEmbedding: expected base 'uniform' or 'normal', got {base!r}")
    if refine_steps < 1:
        raise ValueError(f"LearnedEmbedding: expected refine_steps >= 1, got {refine_steps}")
