"""Learning an embedding from samples of a manifold."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pyro_manifolds.distributions.transforms.learned_embedding import LearnedEmbedding
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn.embedding_diagnostics import diagnose_embedding
from pyro_manifolds.nn.embedding_training import (
    ACTIVATIONS,
    EmbeddingTraining,
    Settings,
    Source,
)
from pyro_manifolds.nn.held_out import check_counts

__all__ = ["fit_embedding"]

_NAME = "fit_embedding"  # in messages of errors


def fit_embedding(
    target: Manifold | Tensor,
    dim: int | None = None,
    *,
    base: Literal["uniform", "normal"] = "uniform",
    method: Literal["matched", "wae"] = "matched",
    width: int = 64,
    depth: int | None = None,
    activation: str = "silu",
    steps: int | None = None,
    batch_size: int = 512,
    learning_rate: float = 5e-3,
    check_every: int = 250,
    patience: int = 5,
    restarts: int = 1,
    held_out: float = 0.2,
    neighbours: int = 10,
    mmd_weight: float = 1.0,
    kernel: Literal["imq", "rbf"] = "imq",
    heads: int = 1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    warn: bool = True,
) -> LearnedEmbedding:
    r"""Learn a smooth map :math:`f` that makes a known law the law of given samples.

    ``EmbeddingPushforward(q, f)`` is then a latent on the manifold of the samples whose divergence
    from ``EmbeddingPushforward(f.prior(), f)`` is that of ``q`` from ``f.prior()``, exactly.

    A smooth map of a cube cannot be onto a closed manifold and one to one: there is a seam, where
    edges of the image meet. ``method="matched"`` puts it where shortest paths from a random centre
    end and comes as close to it from both sides as it can; see
    :class:`~pyro_manifolds.nn.embedding_objectives.MatchedCodes`. ``method="wae"`` is the
    Wasserstein auto-encoder of the reference: it needs no graph of neighbours, but its continuous
    encoder leaves a gap or folds. At the end edges are cut where the image overlaps itself, and
    the result is looked at by :func:`diagnose_embedding`, which warns of what is left.

    References:
        | Embedding-reparameterization procedure for manifold-valued latent variables in
          generative models (Golikov and Kretov, 2018), arXiv 1812.02769
        | Wasserstein Auto-Encoders (Tolstikhin, Bousquet, Gelly and Schoelkopf, 2017),
          arXiv 1711.01558

    Args:
        target: Compact manifold, of which uniform points are drawn and embedded; or samples,
            shape ``[N, n]``.
        dim: Dimension of the manifold; needed for samples.
        base: Law on the domain: uniform on the unit cube, or standard normal.
        method: What to train by.
        width: Width of the hidden layers.
        depth: Number of hidden layers; 2 for a curve and 3 otherwise by default.
        activation: ``"silu"``, ``"tanh"``, ``"gelu"`` or ``"softplus"``.
        steps: Number of steps at most; 3000 for a curve and 5000 otherwise by default.
        batch_size: Samples in a batch.
        learning_rate: Step size of Adam at the start; it falls to nearly zero.
        check_every: Steps in a round, after which codes are matched anew and checked.
        patience: Number of good checks on samples held out after which it stops.
        restarts: Number of further attempts, with other seeds, if the image folds.
        held_out: Share of the samples that are not trained on.
        neighbours: Number of neighbours of a sample in the graph that is cut open.
        mmd_weight: Weight of the discrepancy of codes from the base; of ``"wae"`` only.
        kernel: Its kernel, inverse multiquadratic or Gaussian.
        heads: Number of codes that its encoder proposes; the best is taken.
        seed: Seed of everything random. The global random state is not changed.
        checkpoint: File that is written after each round, and from which an interrupted call with
            the same arguments goes on.
        progress: Whether to show a progress bar.
        warn: Whether to warn of what the diagnostics find.

    Returns:
        The embedding, in ``eval()`` mode and without gradients, with ``diagnostics``.

    Raises:
        ValueError: If an argument is out of range or has the wrong shape, or the samples do not
            hang together.
        TypeError: If ``target`` is neither.
        FloatingPointError: If the loss stops being finite.

    Example:
        >>> from pyro_manifolds.distributions import EmbeddingPushforward
        >>> from pyro_manifolds.distributions.transforms import fit_embedding
        >>> embedding = fit_embedding(Circle(), steps=500, progress=False, warn=False)
        >>> embedding.diagnostics.swept > 0.95, embedding.diagnostics.folds
        (True, False)
        >>> q = EmbeddingPushforward(dist.Beta(2.0, 3.0).expand([1]).to_event(1), embedding)
        >>> p = EmbeddingPushforward(embedding.prior(), embedding)
        >>> torch.distributions.kl_divergence(q, p)
        tensor(0.2349)
    """
    dim = _check(target, dim, base, method, activation, kernel, held_out)
    settings = Settings(
        target=_fingerprint(target) if isinstance(target, Tensor) else str(target),
        dim=dim,
        base=base,
        method=method,
        width=width,
        depth=(2 if dim == 1 else 3) if depth is None else depth,
        activation=activation,
        steps=(3000 if dim == 1 else 5000) if steps is None else steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        check_every=check_every,
        patience=patience,
        restarts=restarts,
        held_out=held_out,
        neighbours=neighbours,
        mmd_weight=mmd_weight,
        kernel=kernel,
        heads=heads,
        seed=seed,
    )
    _check_settings(settings)
    devices = [target.device] if isinstance(target, Tensor) and target.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        source = Source(target, held_out)
        embedding = EmbeddingTraining(settings, source, checkpoint, progress).run()
    embedding.diagnostics = diagnose_embedding(
        embedding, target if isinstance(target, Manifold) else source.held_out, warn=False
    )
    if warn and embedding.diagnostics.complaints():
        complaints = "; ".join(embedding.diagnostics.complaints())
        warnings.warn(f"{_NAME}: {complaints}", stacklevel=2)
    return embedding


def _fingerprint(samples: Tensor) -> str:
    """Return what tells samples from others, short enough for an error."""
    total, squares = samples.double().sum().item(), samples.double().square().sum().item()
    return f"samples {tuple(samples.shape)}, sum {total:.10g}, squares {squares:.10g}"


def _check(
    target: Manifold | Tensor,
    dim: int | None,
    base: str,
    method: str,
    activation: str,
    kernel: str,
    held_out: float,
) -> int:
    """Return the dimension, or raise."""
    for name, value, allowed in (
        ("base", base, ("uniform", "normal")),
        ("method", method, ("matched", "wae")),
        ("activation", activation, tuple(ACTIVATIONS)),
        ("kernel", kernel, ("imq", "rbf")),
    ):
        if value not in allowed:
            raise ValueError(f"{_NAME}: expected {name} in {allowed}, got {value!r}")
    if not 0 < held_out < 1:
        raise ValueError(f"{_NAME}: expected held_out in (0, 1), got {held_out}")
    if isinstance(target, Manifold):
        if not target.is_compact:
            raise ValueError(
                f"{_NAME}: expected a compact manifold or samples, got {target}, which has no "
                "uniform law"
            )
        if dim not in (None, target.dim):
            raise ValueError(f"{_NAME}: expected dim to be that of {target} or none, got {dim}")
        return target.dim
    if not isinstance(target, Tensor):
        raise TypeError(
            f"{_NAME}: expected target to be a manifold of this library or a tensor, "
            f"got {type(target).__name__}"
        )
    if target.ndim != 2 or len(target) < 100 or not target.isfinite().all():
        raise ValueError(
            f"{_NAME}: expected finite samples of shape (N, n) with N >= 100, "
            f"got shape {tuple(target.shape)}"
        )
    if dim is None or not 1 <= dim <= target.shape[-1]:
        raise ValueError(
            f"{_NAME}: expected dim between 1 and {target.shape[-1]}, the dimension of the "
            f"manifold that the samples lie on, got {dim}"
        )
    return dim


def _check_settings(s: Settings) -> None:
    check_counts(
        _NAME,
        width=s.width,
        depth=s.depth,
        steps=s.steps,
        batch_size=s.batch_size,
        check_every=s.check_every,
        patience=s.patience,
        neighbours=s.neighbours,
        heads=s.heads,
    )
    if s.restarts < 0:
        raise ValueError(f"{_NAME}: expected restarts >= 0, got {s.restarts}")
