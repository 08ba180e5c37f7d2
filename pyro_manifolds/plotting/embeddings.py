"""Learned embeddings: samples of the target, the image over them, its seam and what it misses."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from torch import Tensor

from pyro_manifolds.distributions.transforms import LearnedEmbedding
from pyro_manifolds.nn.embedding_diagnostics import EmbeddingDiagnostics

__all__ = ["draw_embedding"]


def draw_embedding(
    ax: Axes,
    embedding: LearnedEmbedding,
    samples: Tensor,
    *,
    diagnostics: EmbeddingDiagnostics | None = None,
    num_points: int = 2000,
    cmap: str = "viridis",
) -> PathCollection:
    """Draw the image of an embedding over samples of its target, in their first two coordinates.

    In more than two dimensions these are the principal components of the samples. Colours are the
    first coordinate of the domain: where the most different ones meet is the seam, which is marked
    by red dots. Samples that the image misses are black crosses.

    Args:
        ax: Axes.
        embedding: The embedding.
        samples: Samples of the target, shape ``[N, embed_dim]``.
        diagnostics: What :func:`~pyro_manifolds.nn.diagnose_embedding` found; by default
            ``embedding.diagnostics``, and nothing is marked if there are none.
        num_points: Number of points of the image.
        cmap: Name of a colour map of matplotlib.

    Returns:
        The image, for a colour bar.

    Raises:
        ValueError: If samples have a wrong shape.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from pyro_manifolds.distributions.transforms import LearnedEmbedding
        >>> from pyro_manifolds.plotting import draw_embedding
        >>> arc = LearnedEmbedding(
        ...     lambda z: torch.cat([(3 * z).cos(), (3 * z).sin()], -1), dim=1, embed_dim=2
        ... )
        >>> image = draw_embedding(Figure().subplots(), arc, torch.randn(50, 2), num_points=10)
        >>> image.get_offsets().shape
        (10, 2)
    """
    if samples.dim() != 2 or samples.shape[-1] != embedding.embed_dim:
        raise ValueError(
            f"draw_embedding: expected samples of shape (N, {embedding.embed_dim}), "
            f"got {tuple(samples.shape)}"
        )
    found = embedding.diagnostics if diagnostics is None else diagnostics
    samples = samples.detach().to(embedding.codes)
    mean, axes = samples.mean(0), torch.eye(embedding.embed_dim).to(samples)
    if embedding.embed_dim > 2:
        axes = torch.linalg.svd(samples - mean, full_matrices=False).Vh
    else:
        mean = torch.zeros_like(mean)

    def flat(points: Tensor) -> list[Any]:
        return [x.numpy() for x in ((points.to(samples) - mean) @ axes[:2].mT).cpu().unbind(-1)]

    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        codes = embedding.prior().sample((num_points,))
        x, y = flat(embedding(codes))
    x_samples, y_samples = flat(samples)
    ax.scatter(x_samples, y_samples, 4, color="0.8", linewidths=0, label="samples", zorder=1)
    colours = codes[:, 0].cpu().numpy()
    dots = ax.scatter(x, y, 4, colours, cmap=cmap, linewidths=0, label="image", zorder=2)
    if found is not None and len(found.missed):
        x, y = flat(found.missed)
        ax.scatter(x, y, 16, "black", marker="x", linewidths=0.8, label="missed", zorder=3)
    if found is not None and len(found.seam):
        x, y = flat(found.seam)
        ax.scatter(x, y, 14, "tab:red", label="seam", zorder=4)
    ax.set_aspect("equal")
    return dots
