"""Learning a prior on filters from filters, such as patches of photographs."""

from __future__ import annotations

from functools import partial
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor

from pyro_manifolds.nn.filter_prior import KleinFilterPrior
from pyro_manifolds.nn.held_out import (
    check_counts,
    check_filters,
    split_filters,
    train_by_score,
)

__all__ = ["fit_filter_prior"]

_NAME = "fit_filter_prior"  # in messages of errors


def fit_filter_prior(
    prior: KleinFilterPrior,
    filters: Tensor,
    *,
    validation: Tensor | float = 0.1,
    steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 0.03,
    check_every: int = 50,
    patience: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> list[float]:
    """Fit a prior to filters, such as patches of photographs, by maximum likelihood.

    Pyro's SVI with an empty guide on minibatches. The amplitude and the noise start from the size
    of the filters; the step size falls to a twentieth. The parameters end as the best ones on the
    filters held out, and the prior is ready for a net: in ``eval()`` mode, without gradients, so
    that ``prior()`` is a fixed distribution. ``prior.requires_grad_(True)`` lets it learn again.
    Neither Pyro's parameter store nor the global random state is changed.

    Args:
        prior: The prior, trained in place.
        filters: Shape ``(n, k, k)``; they are moved to the dtype and device of the prior.
        validation: Filters held out, or the fraction of ``filters`` to hold out at random.
            Overlapping patches of one photograph are not held out by leaving out some of them.
        steps: Number of gradient steps at most.
        batch_size: Filters in a batch, capped at what there is.
        learning_rate: Step size of Adam at the start.
        check_every: Steps between two scores on the filters held out.
        patience: Number of scores without a better one after which it stops.
        seed: Seed of the batches and of what is held out.
        progress: Whether to show a progress bar.

    Returns:
        Mean log-density of the filters held out, in nats, before training and at each check.

    Raises:
        ValueError: If an argument is out of range, or has the wrong shape, or if every filter is
            constant.
        FloatingPointError: If the likelihood stops being finite.

    Example:
        >>> from pyro_manifolds.nn import KleinFilterPrior, fit_filter_prior
        >>> filters = KleinFilter(3, 2.0, 0.5, unit=True).sample((500,))
        >>> prior = KleinFilterPrior(3, 0)
        >>> scores = fit_filter_prior(prior, filters, steps=100, progress=False)
        >>> prior().amplitude.round(), scores[-1] > scores[0]
        (tensor(2.), True)
    """
    _check_sites(prior)
    check_filters(_NAME, prior.kernel_size, filters, validation)
    check_counts(
        _NAME, steps=steps, batch_size=batch_size, check_every=check_every, patience=patience
    )
    like = cast(Tensor, prior.log_amplitude).detach()
    filters = filters.to(like)
    with (
        torch.random.fork_rng([like.device] if like.is_cuda else []),
        pyro.get_param_store().scope(),
    ):
        torch.manual_seed(seed)
        rows, held_out = split_filters(filters, validation)
        train = filters[rows]
        _start(prior, train)
        prior.requires_grad_(True).train()
        decay = 0.05 ** (1 / steps)
        svi = SVI(_model, _guide, ClippedAdam({"lr": learning_rate, "lrd": decay}), Trace_ELBO())
        step, score = partial(svi.step, prior), partial(_score, prior, held_out)
        scores = train_by_score(
            *(_NAME, prior, train, step, score),
            steps=steps,
            batch_size=batch_size,
            check_every=check_every,
            patience=patience,
            progress=progress,
        )
    prior.requires_grad_(False).eval()
    return scores


def _model(prior: KleinFilterPrior, filters: Tensor) -> None:
    pyro.module("prior", prior)
    with pyro.plate("data", len(filters)), poutine.scale(scale=1 / len(filters)):
        pyro.sample("filter", prior(), obs=filters)


def _guide(prior: KleinFilterPrior, filters: Tensor) -> None:
    """All that is learned is a parameter of the model."""


@torch.no_grad()
def _start(prior: KleinFilterPrior, filters: Tensor) -> None:
    """Start with half of the variance round the mean on the Klein bottle."""
    centred = filters - filters.mean((-2, -1), keepdim=True)
    if centred.abs().max() <= 10 * torch.finfo(filters.dtype).eps * filters.abs().max():
        raise ValueError(
            f"{_NAME}: expected filters that vary from pixel to pixel, got constant ones"
        )
    half = centred.square().sum((-2, -1)).mean() / 2
    norm = prior().family(filters.new_zeros(2)).norm()
    cast(Tensor, prior.log_amplitude).copy_((half.sqrt() / norm).log())
    cast(Tensor, prior.log_noise).copy_((half.sqrt() / prior.kernel_size).log())


@torch.no_grad()
def _score(prior: KleinFilterPrior, filters: Tensor) -> float:
    law = prior()
    return torch.cat([law.log_prob(part) for part in filters.split(1000)]).mean().item()


def _check_sites(prior: KleinFilterPrior) -> None:
    if prior.log_amplitude is None or prior.log_noise is None:
        raise ValueError(
            f"{_NAME}: expected a prior whose amplitude and noise are parameters, got one where "
            "they are sites; fit that with SVI and a guide"
        )
