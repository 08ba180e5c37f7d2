"""Starting an encoder in the right homotopy class: principal components laid along a manifold."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_manifolds.manifolds import Manifold

__all__ = ["AlignedHead", "Alignment", "align_to_manifold", "principal_start"]


class Alignment(NamedTuple):
    """Affine map of data to the ambient space of a manifold, ``data @ weight.T + bias``.

    Attributes:
        weight: Matrix of shape ``[embed_dim, features]``.
        bias: Vector of shape ``[embed_dim]``.
        residual: Mean squared distance of the mapped data to the embedded manifold, divided by the
            mean squared spread of the latter: near zero where the data look like the manifold.
    """

    weight: Tensor
    bias: Tensor
    residual: float


def align_to_manifold(
    data: Tensor,
    manifold: Manifold,
    *,
    restarts: int = 64,
    steps: int = 100,
    seed: int = 0,
) -> Alignment:
    r"""Rotate the leading principal components of data onto an embedded manifold.

    The components are whitened, given the covariance of the uniform distribution on the embedded
    manifold, and rotated so that they lie as near to it as can be: alternately each datum is moved
    to its nearest point of the manifold (``unembed``), and the rotation to these points
    is solved for (Procrustes), from many random rotations at once; the best is returned.

    An encoder that starts from this map starts in the right homotopy class, if the data show it
    in their leading components. One that starts at random must tear its way there, and often does
    not get there. No label and no point of the manifold is needed.

    References:
        | A Method for Registration of 3-D Shapes (Besl and McKay, 1992), for the alternation

    Args:
        data: Data of shape ``[n, features]`` with ``features >= embed_dim``.
        manifold: A compact manifold.
        restarts: Number of random rotations to start from.
        steps: Number of alternations.
        seed: Seed of the rotations and of the reference sample.

    Raises:
        ValueError: If the manifold is not compact, or the data have not the shape above.

    Example:
        >>> circle = Circle().embed(torch.linspace(0, 6, 50)) @ torch.randn(2, 8)
        >>> align_to_manifold(circle, Circle()).residual < 0.01
        True
    """
    dim = manifold.embed_dim
    if not manifold.is_compact:
        raise ValueError(f"align_to_manifold: expected a compact manifold, got {manifold}")
    if data.dim() != 2 or data.shape[1] < dim or data.shape[0] <= dim:
        raise ValueError(
            f"align_to_manifold: expected data of shape [n > {dim}, features >= {dim}], "
            f"got {tuple(data.shape)}"
        )
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        mean, root = _moments(manifold, data)
        rotations = torch.linalg.qr(torch.randn(restarts, dim, dim, dtype=data.dtype))[0]
        center, whiten, scores = _whitened(data, dim)
        for _ in range(steps):
            nearest = _nearest(manifold, mean + scores @ rotations.mT @ root.mT)
            targets = torch.linalg.solve_triangular(root, (nearest - mean).mT, upper=False)
            left, _, right = torch.linalg.svd(targets @ scores)
            rotations = left @ right
        mapped = mean + scores @ rotations.mT @ root.mT
        residuals = (mapped - _nearest(manifold, mapped)).square().sum(-1).mean(-1)
        best = residuals.argmin()
        weight = root @ rotations[best] @ whiten
        residual = residuals[best] / root.square().sum()
        return Alignment(weight, mean - weight @ center, residual.item())


def principal_start(data: Tensor, dim: int) -> Alignment:
    """Return the whitened leading principal components: the start for a Euclidean latent.

    Args:
        data: Data of shape ``[n, features]``.
        dim: Number of components.

    Example:
        >>> principal_start(torch.randn(100, 16), 2).weight.shape
        torch.Size([2, 16])
    """
    center, whiten, _ = _whitened(data, dim)
    return Alignment(whiten, -whiten @ center, 0.0)


def _moments(manifold: Manifold, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and Cholesky factor of the covariance of the embedded uniform distribution."""
    points = manifold.random_uniform(8192, *manifold.event_shape, dtype=like.dtype)
    ambient = manifold.embed(points.as_subclass(Tensor))
    covariance = torch.cov(ambient.mT)
    # Embeddings may lie in a subspace: the trace of the projector of a projective space is one.
    jitter = 1e-6 * covariance.trace() * torch.eye(len(covariance), dtype=like.dtype)
    return ambient.mean(0), torch.linalg.cholesky(covariance + jitter)


def _whitened(data: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centre, the whitening matrix and the scores of the leading components."""
    center = data.mean(0)
    _, singular, directions = torch.linalg.svd(data - center, full_matrices=False)
    whiten = directions[:dim] * (len(data) ** 0.5 / singular[:dim]).unsqueeze(-1)
    return center, whiten, (data - center) @ whiten.mT


def _nearest(manifold: Manifold, ambient: Tensor) -> Tensor:
    return manifold.embed(manifold.unembed(ambient))


class AlignedHead(nn.Module):
    """Head of an encoder that starts as an alignment, which a network then corrects.

    Args:
        alignment: The affine map of the raw data to start from.
        in_features: Number of features of the network, whose correction starts at zero.
        manifold: The manifold.

    Example:
        >>> data = torch.randn(100, 16)
        >>> head = AlignedHead(align_to_manifold(data, Torus(2)), 8, Torus(2))
        >>> head(data, torch.zeros(100, 8)).shape
        torch.Size([100, 2])
    """

    def __init__(self, alignment: Alignment, in_features: int, manifold: Manifold) -> None:
        super().__init__()
        self.manifold = manifold
        self.direct = nn.Linear(alignment.weight.shape[1], manifold.embed_dim)
        self.direct.load_state_dict({"weight": alignment.weight, "bias": alignment.bias})
        self.correction = nn.Linear(in_features, manifold.embed_dim)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, data: Tensor, features: Tensor) -> Tensor:
        return self.manifold.unembed(self.direct(data) + self.correction(features))
