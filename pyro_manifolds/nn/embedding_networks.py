"""Networks of learned embeddings: smooth decoders, and encoders that may propose several codes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_manifolds.nn.networks import perceptron

__all__ = ["EmbeddingDecoder", "EmbeddingEncoder"]


class _InUnits(nn.Module):
    """Network with units of length, in the space around an image, that are those of samples."""

    location: Tensor
    scale: Tensor

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(embed_dim))
        self.register_buffer("scale", torch.ones(()))

    def set_units(self, samples: Tensor) -> None:
        """Make the mean of samples and their distance from it the origin and the unit."""
        self.location.copy_(samples.mean(0))
        self.scale.copy_((samples - samples.mean(0)).square().mean().sqrt())


class EmbeddingDecoder(_InUnits):
    """Perceptron from the domain of an embedding to the space around its image.

    Args:
        dim: Dimension of the domain.
        embed_dim: Dimension of the space around the image.
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        activation: Class of the activation; a smooth one.
        base: Law on the domain, ``"uniform"`` or ``"normal"``.

    Example:
        >>> from pyro_manifolds.nn.embedding_networks import EmbeddingDecoder
        >>> EmbeddingDecoder(1, 2)(torch.rand(5, 1)).shape
        torch.Size([5, 2])
    """

    shrink: Tensor

    def __init__(
        self,
        dim: int,
        embed_dim: int,
        *,
        width: int = 64,
        depth: int = 2,
        activation: Callable[[], nn.Module] = nn.SiLU,
        base: str = "uniform",
    ) -> None:
        super().__init__(embed_dim)
        self.network = nn.Sequential(*perceptron((dim, *[width] * depth, embed_dim), activation))
        self.centre = 0.5 if base == "uniform" else 0.0
        self.spread = math.sqrt(12) if base == "uniform" else 1.0
        self.register_buffer("shrink", torch.ones(()))  # below one, edges of the domain are cut

    def forward(self, z: Tensor) -> Tensor:
        z = (z - self.centre) * (self.spread * self.shrink)
        return self.location + self.scale * self.network(z)


class EmbeddingEncoder(_InUnits):
    """Perceptron from the space around an image to the domain, with one code or several.

    Several codes may differ where one continuous code would have to run through the whole domain:
    near the seam of a closed manifold. The decoder tells which of them is right.

    Args:
        embed_dim: Dimension of the space around the image.
        dim: Dimension of the domain.
        heads: Number of codes.
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        activation: Class of the activation.
        base: Law on the domain, ``"uniform"`` or ``"normal"``.

    Example:
        >>> from pyro_manifolds.nn.embedding_networks import EmbeddingEncoder
        >>> EmbeddingEncoder(2, 1, heads=3)(torch.randn(5, 2)).shape
        torch.Size([5, 3, 1])
    """

    def __init__(
        self,
        embed_dim: int,
        dim: int,
        *,
        heads: int = 1,
        width: int = 64,
        depth: int = 2,
        activation: Callable[[], nn.Module] = nn.SiLU,
        base: str = "uniform",
    ) -> None:
        super().__init__(embed_dim)
        self.network = nn.Sequential(
            *perceptron((embed_dim, *[width] * depth, heads * dim), activation)
        )
        self.heads, self.bounded = heads, base == "uniform"

    def forward(self, y: Tensor) -> Tensor:
        codes = self.network((y - self.location) / self.scale).unflatten(-1, (self.heads, -1))
        return codes.sigmoid() if self.bounded else codes
