"""Training of deep weight priors on filters."""

from __future__ import annotations

from functools import partial

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor

from pyro_manifolds.distributions import WrappedNormal
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.manifolds import KleinBottle, Manifold
from pyro_manifolds.nn.alignment import align_to_manifold, principal_start
from pyro_manifolds.nn.deep_filter_prior import DeepFilterPrior
from pyro_manifolds.nn.held_out import (
    check_counts,
    check_filters,
    split_filters,
    train_by_score,
)
from pyro_manifolds.ops.filters import nearest_klein_filters

__all__ = ["fit_deep_filter_prior", "starting_points"]

_NAME = "fit_deep_filter_prior"  # in messages of errors


def fit_deep_filter_prior(
    prior: DeepFilterPrior,
    filters: Tensor,
    *,
    validation: Tensor | float = 0.1,
    whiten: bool = True,
    points: Tensor | None = None,
    start_steps: int = 300,
    steps: int = 3000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    check_every: int = 250,
    seed: int = 0,
    progress: bool = True,
) -> list[float]:
    """Train a deep prior on filters: first towards given points, then by its ELBO.

    An encoder of a compact manifold that starts at random must tear its way to the right homotopy
    class: on patches of photographs that costs three nats. So for the first steps both networks
    learn from pairs of filters and points; then Pyro's SVI maximises the ELBO of the filters, with
    ClippedAdam and a step size that falls to a twentieth. The parameters end as the best ones on
    the filters held out, and the prior is ready for a net: in ``eval()`` mode, without gradients.
    Neither Pyro's parameter store nor the global random state is changed.

    Args:
        prior: The prior, trained in place.
        filters: Shape ``(n, k, k)``; they are moved to the dtype and device of the prior. Their
            root mean square becomes the unit of the networks.
        validation: Filters held out, or the fraction of ``filters`` to hold out at random. They
            only choose among the checks: neither units nor start are taken from them.
        whiten: Whether the decoder tells principal components of the filters, rather than pixels.
            On 5 x 5 patches of photographs the former is seven nats better.
        points: Points of the filters to start from, ``(n,) + manifold.event_shape``; by default
            :func:`starting_points`.
        start_steps: Number of steps towards these points; 0 to start at random.
        steps: Number of steps of SVI.
        batch_size: Filters in a batch, capped at what there is.
        learning_rate: Step size at the start.
        check_every: Steps between two scores on the filters held out.
        seed: Seed of the batches, of the draws and of what is held out.
        progress: Whether to show a progress bar.

    Returns:
        Mean ELBO of the filters held out, in nats, before SVI and at each check.

    Raises:
        ValueError: If an argument is out of range, or has the wrong shape.
        FloatingPointError: If the ELBO stops being finite.

    Example:
        >>> from pyro_manifolds.nn import DeepFilterPrior, fit_deep_filter_prior
        >>> filters = KleinFilter(3, 2.0, 0.1).sample((500,))
        >>> prior = DeepFilterPrior(3, hidden=16, rank=1)
        >>> options = {"start_steps": 40, "steps": 40, "progress": False}
        >>> scores = fit_deep_filter_prior(prior, filters, **options)
        >>> scores[-1] > scores[0]
        True
    """
    _check(prior, filters, validation, points, start_steps)
    check_counts(_NAME, steps=steps, batch_size=batch_size, check_every=check_every)
    like = prior.model.basis
    filters = filters.to(like)
    prior.requires_grad_(True).train()
    devices = [like.device] if like.is_cuda else []
    with torch.random.fork_rng(devices), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        rows, held_out = split_filters(filters, validation)
        train = filters[rows]
        prior.set_units(train, whiten=whiten)
        if start_steps:
            if points is None:
                start = starting_points(prior.manifold, train)
            else:
                start = points.to(like)[rows]
            _start(prior, train, start, start_steps, batch_size)
        decay = 0.05 ** (1 / steps)
        optimiser = ClippedAdam({"lr": learning_rate, "lrd": decay, "clip_norm": 100.0})
        svi = SVI(prior.model, prior.guide, optimiser, Trace_ELBO())
        scores = train_by_score(
            *(_NAME, prior, train, svi.step, partial(_score, prior, held_out)),
            steps=steps,
            batch_size=batch_size,
            check_every=check_every,
            progress=progress,
        )
    prior.requires_grad_(False).eval()
    return scores


@torch.no_grad()
def starting_points(manifold: Manifold, filters: Tensor) -> Tensor:
    """Lay filters out on a manifold, to start from.

    On the Klein bottle these are the points of the nearest Klein filters; on other compact
    manifolds, principal components of the directions of the filters are laid along the manifold,
    as :func:`align_to_manifold` does; on all others, they are the principal components.

    Args:
        manifold: The manifold.
        filters: Shape ``(n, k, k)``.

    Returns:
        Shape ``(n,) + manifold.event_shape``.

    Example:
        >>> from pyro_manifolds.nn import starting_points
        >>> starting_points(Torus(2), torch.randn(100, 3, 3)).shape
        torch.Size([100, 2])
    """
    if isinstance(manifold, KleinBottle) and filters.shape[-1] % 2 and filters.shape[-1] > 1:
        return torch.cat([nearest_klein_filters(part).points for part in filters.split(2000)])
    rows = filters.flatten(1)
    if manifold.is_compact:
        rows = torch.nn.functional.normalize(rows, dim=-1)
        weight, bias, _ = align_to_manifold(rows, manifold)
    else:
        weight, bias, _ = principal_start(rows, manifold.embed_dim)
    return manifold.unembed(rows @ weight.mT + bias)


def _start(
    prior: DeepFilterPrior, filters: Tensor, points: Tensor, steps: int, batch_size: int
) -> None:
    """Teach the encoder the points, and the decoder the filters of points near them."""
    optimiser = torch.optim.Adam(prior.parameters(), lr=3e-3)
    targets = prior.manifold.embed(points)
    head = prior.guide.head
    for _ in range(steps):
        rows = torch.randint(len(filters), (batch_size,), device=filters.device)
        w, features = filters[rows], prior.guide.features(filters[rows])
        with torch.no_grad():
            scale = head.scale(features)
            near = WrappedNormal(prior.manifold, points[rows], scale).sample()
        decoded = prior.decode(near).log_prob(w).mean() / w[0].numel()
        missed = (head.loc.linear(features) - targets[rows]).square().sum(-1).mean()
        optimiser.zero_grad()
        (missed - decoded).backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 10.0)
        optimiser.step()


@torch.no_grad()
def _score(prior: DeepFilterPrior, filters: Tensor) -> float:
    """Return the mean ELBO, with the same draws each time."""
    with torch.random.fork_rng([filters.device] if filters.is_cuda else []):
        torch.manual_seed(0)
        bounds = [
            evidence_bounds(prior.model, prior.guide, part, num_particles=4).elbo
            for part in filters.split(1000)
        ]
    return torch.cat(bounds).mean().item()


def _check(
    prior: DeepFilterPrior,
    filters: Tensor,
    validation: Tensor | float,
    points: Tensor | None,
    start_steps: int,
) -> None:
    check_filters(_NAME, prior.kernel_size, filters, validation)
    expected = (len(filters), *prior.manifold.event_shape)
    if points is not None and points.shape != expected:
        raise ValueError(
            f"fit_deep_filter_prior: expected points of shape {expected}, "
            f"got {tuple(points.shape)}"
        )
    if start_steps < 0:
        raise ValueError(f"fit_deep_filter_prior: expected start_steps >= 0, got {start_steps}")
