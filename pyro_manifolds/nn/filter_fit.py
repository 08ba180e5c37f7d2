"""Learning a prior on filters from filters, such as patches of photographs."""

from __future__ import annotations

import copy
import math
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor
from tqdm import tqdm

from pyro_manifolds.nn.filter_prior import KleinFilterPrior

__all__ = ["fit_filter_prior"]


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
    filters held out. Neither Pyro's parameter store nor the global random state is changed.

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
        ValueError: If an argument is out of range, or has the wrong shape.
        FloatingPointError: If the likelihood stops being finite.

    Example:
        >>> from pyro_manifolds.nn import KleinFilterPrior, fit_filter_prior
        >>> filters = KleinFilter(3, 2.0, 0.5, unit=True).sample((500,))
        >>> prior = KleinFilterPrior(3, 0)
        >>> scores = fit_filter_prior(prior, filters, steps=100, progress=False)
        >>> prior().amplitude.detach().round(), scores[-1] > scores[0]
        (tensor(2.), True)
    """
    _check_fit(prior, filters, validation, steps, batch_size, check_every, patience)
    like = cast(Tensor, prior.log_amplitude).detach()
    with torch.random.fork_rng(), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        train, held_out = _split(filters.to(like), validation)
        _start(prior, train)
        decay = 0.05 ** (1 / steps)
        svi = SVI(_model, _guide, ClippedAdam({"lr": learning_rate, "lrd": decay}), Trace_ELBO())
        scores = [_score(prior, held_out)]
        best, since = copy.deepcopy(prior.state_dict()), 0
        bar = tqdm(range(1, steps + 1), desc="prior", disable=not progress, mininterval=1.0)
        for step in bar:
            rows = torch.randint(len(train), (min(batch_size, len(train)),), device=like.device)
            loss = svi.step(prior, train[rows])
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"fit_filter_prior: expected a finite loss, got {loss} at step {step}; "
                    "lower the learning rate"
                )
            if step % check_every and step < steps:
                continue
            scores.append(_score(prior, held_out))
            bar.set_postfix(validation=f"{scores[-1]:.3f}", refresh=False)
            better = scores[-1] >= max(scores)
            since = 0 if better else since + 1
            best = copy.deepcopy(prior.state_dict()) if better else best
            if since >= patience:
                break
        bar.close()
        prior.load_state_dict(best)
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
    half = centred.square().sum((-2, -1)).mean() / 2
    norm = prior().family(filters.new_zeros(2)).norm()
    cast(Tensor, prior.log_amplitude).copy_((half.sqrt() / norm).log())
    cast(Tensor, prior.log_noise).copy_((half.sqrt() / prior.kernel_size).log())


def _split(filters: Tensor, validation: Tensor | float) -> tuple[Tensor, Tensor]:
    if isinstance(validation, Tensor):
        return filters, validation.to(filters)
    order = torch.randperm(len(filters), device=filters.device)
    number = max(1, int(validation * len(filters)))
    return filters[order[number:]], filters[order[:number]]


@torch.no_grad()
def _score(prior: KleinFilterPrior, filters: Tensor) -> float:
    law = prior()
    return torch.cat([law.log_prob(part) for part in filters.split(1000)]).mean().item()


def _check_fit(
    prior: KleinFilterPrior, filters: Tensor, validation: Tensor | float, *counts: int
) -> None:
    if prior.log_amplitude is None or prior.log_noise is None:
        raise ValueError(
            "fit_filter_prior: expected a prior whose amplitude and noise are parameters, got "
            "one where they are sites; fit that with SVI and a guide"
        )
    side = prior.kernel_size
    parts = {"filters": filters}
    if isinstance(validation, Tensor):
        parts["validation"] = validation
    elif not 0 < validation < 1:
        raise ValueError(
            f"fit_filter_prior: expected validation to be filters or in (0, 1), got {validation}"
        )
    for name, part in parts.items():
        if part.dim() != 3 or part.shape[1:] != (side, side) or len(part) < 2:
            raise ValueError(
                f"fit_filter_prior: expected {name} of shape (n, {side}, {side}) with n >= 2, "
                f"got {tuple(part.shape)}"
            )
        if not part.isfinite().all():
            raise ValueError(f"fit_filter_prior: expected finite {name}, got nan or infinity")
    names = ("steps", "batch_size", "check_every", "patience")
    for name, count in zip(names, counts, strict=True):
        if count < 1:
            raise ValueError(f"fit_filter_prior: expected {name} >= 1, got {count}")
