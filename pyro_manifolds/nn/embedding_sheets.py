"""Where parts of the image of an embedding, sheets, come near to one another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.distributions.transforms.learned_embedding import LearnedEmbedding
from pyro_manifolds.ops.gauss_newton import gauss_newton

__all__ = ["domain_unit", "lengths", "other_sheet", "overlapping", "resolution"]

_FAR = 0.15  # of the unit cube: points of the domain farther apart belong to two sheets


def resolution(samples: Tensor) -> float:
    """Return the distance below which nothing can be told, or need not be.

    It is the one to the nearest other sample that 99 of 100 samples stay below, and at least a
    hundredth of the size of the cloud.
    """
    distances = torch.cdist(samples, samples)
    distances.fill_diagonal_(math.inf)
    size = lengths(samples - samples.mean(0)).square().mean().sqrt()
    return max(distances.amin(-1).quantile(0.99).item(), 0.01 * size.item())


def overlapping(embedding: LearnedEmbedding, codes: Tensor, within: float) -> Tensor:
    """Tell which codes have images that another part of the image overlaps.

    That part comes within a distance and goes on to all sides, unlike an edge that only touches.
    """
    found, origins = other_sheet(embedding, codes, within)
    if embedding.base == "uniform":
        found = found & ((origins > 0) & (origins < 1)).all(-1)
    return found


def other_sheet(
    embedding: LearnedEmbedding, codes: Tensor, within: float
) -> tuple[Tensor, Tensor]:
    """Tell whose images another part of the image comes near, and return the code of that."""
    unit, table = domain_unit(embedding), embedding.codes
    images = embedding(codes)
    gaps = torch.cdist(images, embedding(table))
    near = torch.cdist(codes, table) < 1.5 * _FAR * unit
    closest, start = gaps.masked_fill(near, math.inf).min(-1)
    # No point of the image is farther from its nearest code than all of these are.
    suspects = closest <= within + 2 * gaps.amin(-1).max()
    origins, found = codes.clone(), torch.zeros_like(suspects)
    if suspects.any():
        bounds = (0.0, 1.0) if embedding.base == "uniform" else None
        targets = images[suspects]
        ends = gauss_newton(embedding, table[start[suspects]], targets, 8, 0.1 * unit, bounds)
        apart = lengths(ends - codes[suspects]) > _FAR * unit
        found[suspects] = apart & (lengths(embedding(ends) - targets) <= within)
        origins[suspects] = ends
    return found, origins


def domain_unit(embedding: LearnedEmbedding) -> float:
    """Return the length in the domain that a distance in the unit cube is a share of."""
    return 1.0 if embedding.base == "uniform" else math.sqrt(12)


def lengths(vectors: Tensor) -> Tensor:
    """Return Euclidean lengths along the last dimension."""
    return torch.linalg.vector_norm(vectors, dim=-1)
