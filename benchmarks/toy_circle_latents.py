"""The latents of ``benchmarks.toy_circle``: on the line, in the plane, and on the circle."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import softplus

from pyro_manifolds import Circle, ManifoldUniform, PowerSpherical, Sphere, VonMises, WrappedNormal
from pyro_manifolds.distributions import EmbeddingPushforward, Moved
from pyro_manifolds.distributions.transforms import FlatTorusEmbedding, LearnedEmbedding, Rotation

__all__ = ["CIRCLE", "INVALID", "LATENTS", "Latent", "round_nodes"]

CIRCLE = FlatTorusEmbedding(1)

Nodes = Callable[[int], tuple[Tensor, Tensor]]


class Latent(NamedTuple):
    """A latent: all that tells one row of the table from another.

    Attributes:
        prior: Law of the latent.
        outputs: Number of outputs of the encoder for one datum.
        posterior: From those to the guide.
        nodes: From a number to nodes and log-weights of a rule for integrals over the prior, or
            none where there are too many dimensions.
        features: From the latent to what the decoder reads.
        embedding: What is followed by a rotation, if it is learned: the divergence before it is
            not that after it then, and reported besides.
        nominal: Whether that divergence is trained with, which makes no bound.
    """

    prior: TorchDistribution
    outputs: int
    posterior: Callable[[Tensor], TorchDistribution]
    nodes: Nodes | None
    features: Callable[[Tensor], Tensor] = lambda z: z
    embedding: LearnedEmbedding | None = None
    nominal: bool = False


def _real(dim: int) -> Latent:
    """Return a latent in the plane or on the line, with a normal posterior."""

    def posterior(h: Tensor) -> TorchDistribution:
        return dist.Normal(h[..., :dim], softplus(h[..., dim:] - 1)).to_event(1)

    def nodes(number: int) -> tuple[Tensor, Tensor]:
        z = torch.linspace(-8, 8, number, dtype=torch.float64)
        return z.unsqueeze(-1), dist.Normal(0.0, 1.0).log_prob(z) + math.log(16 / (number - 1))

    prior = dist.Normal(torch.zeros(dim), 1.0).to_event(1)
    return Latent(prior, 2 * dim, posterior, nodes if dim == 1 else None)


def _even(number: int) -> tuple[Tensor, Tensor]:
    """Return nodes in the unit interval, ``[number, 1]``, and their log-weights."""
    z = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    return z.unsqueeze(-1), z.new_full((number,), -math.log(number))


def round_nodes(number: int) -> tuple[Tensor, Tensor]:
    """Return nodes on the unit circle, ``[number, 2]``, and their log-weights.

    Example:
        >>> from benchmarks.toy_circle_latents import round_nodes
        >>> points, log_weights = round_nodes(4)
        >>> points.sum(0).abs().max() < 1e-12, log_weights.exp().sum()
        (tensor(True), tensor(1., dtype=torch.float64))
    """
    z, log_weights = _even(number)
    return CIRCLE(z), log_weights


def _angle(posterior: Callable[[Tensor, Tensor], TorchDistribution]) -> Latent:
    """Return a latent angle, whose location comes from the plane."""
    circle = Circle()

    def nodes(number: int) -> tuple[Tensor, Tensor]:
        z, log_weights = round_nodes(number)
        return circle.unembed(z), log_weights

    return Latent(
        ManifoldUniform(circle),
        3,
        lambda h: posterior(circle.unembed(h[..., :2]), h[..., 2]),
        nodes,
        features=circle.embed,
    )


def _unit_vector(
    outputs: int,
    posterior: Callable[[Tensor], TorchDistribution],
    embedding: LearnedEmbedding | None = None,
    nominal: bool = False,
) -> Latent:
    prior = ManifoldUniform(Sphere(1))
    return Latent(prior, outputs, posterior, round_nodes, embedding=embedding, nominal=nominal)


def _learned(embedding: LearnedEmbedding) -> Latent:
    def nodes(number: int) -> tuple[Tensor, Tensor]:
        z, log_weights = _even(number)
        with torch.no_grad():
            return copy.deepcopy(embedding).double()(z), log_weights

    prior = EmbeddingPushforward(embedding.prior(), embedding)
    return Latent(prior, 2, lambda h: EmbeddingPushforward(_beta(h), embedding), nodes)


def _learned_rotated(embedding: LearnedEmbedding, nominal: bool = False) -> Latent:
    # A rotation would carry the image, which is near the circle only, to another curve.
    onto = embedding.onto(Sphere(1))
    return _unit_vector(
        4, lambda h: _rotated(EmbeddingPushforward(_beta(h), onto), h), onto, nominal
    )


# The heads below start with a standard deviation of about 0.3 radians, whatever the family. One
# that starts wider is a handicap of its own.


def _beta(h: Tensor) -> TorchDistribution:
    share, count = h[..., :1].sigmoid(), 100 * h[..., 1:2].exp()
    return dist.Beta(1 + share * count, 1 + (1 - share) * count).to_event(1)


def _rotated(law: TorchDistribution, h: Tensor) -> TorchDistribution:
    return Moved(law, Rotation.by_angle(Circle().unembed(h[..., 2:4])))


def _power_spherical(h: Tensor) -> TorchDistribution:
    return PowerSpherical(Sphere(1).unembed(h[..., :2]), 20 * h[..., 2].exp())


INVALID = "the same, nominal divergence"

# Each is made of a function that returns an embedding of the circle learned from samples.
LATENTS: dict[str, Callable[[Callable[[], LearnedEmbedding]], Latent]] = {
    "normal, d = 1": lambda fit: _real(1),
    "normal, d = 2": lambda fit: _real(2),
    "Beta, projection": lambda fit: _unit_vector(
        2, lambda h: EmbeddingPushforward(_beta(h), CIRCLE)
    ),
    "Beta, learned embedding": lambda fit: _learned(fit()),
    "Beta, learned embedding + rotation": lambda fit: _learned_rotated(fit()),
    INVALID: lambda fit: _learned_rotated(fit(), nominal=True),
    "Beta, projection + rotation": lambda fit: _unit_vector(
        4, lambda h: _rotated(EmbeddingPushforward(_beta(h), CIRCLE), h)
    ),
    "wrapped normal": lambda fit: _angle(
        lambda loc, h: WrappedNormal(Circle(), loc, softplus(h - 1))
    ),
    "von Mises": lambda fit: _angle(lambda loc, h: VonMises(loc, 10 * h.exp())),
    "power spherical": lambda fit: _unit_vector(3, _power_spherical),
}
