"""Filters to train a prior on, and filters held out, by which the best parameters are kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

__all__ = ["check_counts", "check_filters", "split_filters", "train_by_score"]


def split_filters(filters: Tensor, validation: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return the rows of ``filters`` to train on, and the filters held out.

    Args:
        filters: Shape ``(n, k, k)``.
        validation: Filters held out, or the fraction of ``filters`` to hold out at random.

    Example:
        >>> from pyro_manifolds.nn.held_out import split_filters
        >>> rows, held_out = split_filters(torch.randn(20, 3, 3), 0.1)
        >>> rows.shape, held_out.shape
        (torch.Size([18]), torch.Size([2, 3, 3]))
    """
    if isinstance(validation, Tensor):
        return torch.arange(len(filters), device=filters.device), validation.to(filters)
    order = torch.randperm(len(filters), device=filters.device)
    number = max(1, int(validation * len(filters)))
    return order[number:], filters[order[:number]]


def train_by_score(
    caller: str,
    prior: nn.Module,
    filters: Tensor,
    step: Callable[[Tensor], float],
    score: Callable[[], float],
    *,
    steps: int,
    batch_size: int,
    check_every: int,
    patience: float = math.inf,
    progress: bool,
) -> list[float]:
    """Take steps on random batches; leave the prior with the parameters of the best score.

    Args:
        caller: Name of the training in errors and on the progress bar.
        prior: What is trained.
        filters: Filters to train on, shape ``(n, k, k)``.
        step: Takes a step on a batch of them, and returns the loss.
        score: Returns what is to be large, found on the filters held out.
        steps: Number of steps at most.
        batch_size: Filters in a batch, capped at what there is.
        check_every: Steps between two scores.
        patience: Number of scores without a better one after which it stops.
        progress: Whether to show a progress bar.

    Returns:
        Scores, before training and at each check.

    Raises:
        FloatingPointError: In the name of the caller, if a loss is not finite.
    """
    scores, best, since = [score()], copy.deepcopy(prior.state_dict()), 0
    size = (min(batch_size, len(filters)),)
    bar = tqdm(range(1, steps + 1), desc=caller, disable=not progress, mininterval=1.0)
    for count in bar:
        loss = step(filters[torch.randint(len(filters), size, device=filters.device)])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{caller}: expected a finite loss, got {loss} at step {count}; "
                "lower the learning rate"
            )
        if count % check_every and count < steps:
            continue
        scores.append(score())
        bar.set_postfix(validation=f"{scores[-1]:.3f}", refresh=False)
        since += 1
        if scores[-1] >= max(scores):
            best, since = copy.deepcopy(prior.state_dict()), 0
        if since >= patience:
            break
    bar.close()
    prior.load_state_dict(best)
    return scores


def check_filters(caller: str, side: int, filters: Tensor, validation: Tensor | float) -> None:
    """Refuse filters of another shape than ``(n, side, side)``, or not finite.

    Raises:
        ValueError: In the name of the caller.
    """
    parts = {"filters": filters}
    if isinstance(validation, Tensor):
        parts["validation"] = validation
    elif not 0 < validation < 1:
        raise ValueError(
            f"{caller}: expected validation to be filters or in (0, 1), got {validation}"
        )
    for name, part in parts.items():
        if part.dim() != 3 or part.shape[1:] != (side, side) or len(part) < 2:
            raise ValueError(
                f"{caller}: expected {name} of shape (n, {side}, {side}) with n >= 2, "
                f"got {tuple(part.shape)}"
            )
        if not part.isfinite().all():
            raise ValueError(f"{caller}: expected finite {name}, got nan or infinity")


def check_counts(caller: str, **counts: int) -> None:
    """Refuse counts below one.

    Raises:
        ValueError: In the name of the caller.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{caller}: expected {name} >= 1, got {count}")
