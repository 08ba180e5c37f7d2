"""Filters to train a prior on, and filters held out to score it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_counts", "check_filters", "split_filters"]


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
