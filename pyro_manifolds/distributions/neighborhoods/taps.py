"""Taps: which frame and slot a moving window reads, and how they are applied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from numbers import Integral

import torch
from torch import Tensor

__all__ = [
    "EDGES",
    "Tap",
    "add_moved",
    "add_rolled",
    "checked_taps",
    "checked_weights",
    "filled",
    "multiply",
    "read_frames",
]

Tap = tuple[int, int]
EDGES = ("circular", "replicate", "zero")


def read_frames(num_frames: int, d: int, edges: str) -> tuple[Tensor, Tensor]:
    """Return the frames that can read d frames ahead, and the frames that they read.

    Example:
        >>> from pyro_manifolds.distributions.neighborhoods.taps import read_frames
        >>> [read_frames(4, 1, edges)[1].tolist() for edges in ("circular", "replicate", "zero")]
        [[1, 2, 3, 0], [1, 2, 3, 3], [1, 2, 3]]
    """
    here = torch.arange(num_frames)
    there = here + d
    if edges == "circular":
        return here, there % num_frames
    if edges == "replicate":
        return here, there.clamp(0, num_frames - 1)
    inside = (there >= 0) & (there < num_frames)
    return here[inside], there[inside]


def checked_taps(taps: Sequence[Tap]) -> tuple[Tap, ...]:
    """Return the taps as pairs of plain integers, or raise an error."""
    found = tuple(tuple(tap) for tap in taps)
    if not found:
        raise ValueError("Shifted: expected at least one tap, got none")
    for tap in found:
        whole = all(isinstance(x, Integral) and not isinstance(x, bool) for x in tap)
        if len(tap) != 2 or not whole:
            raise ValueError(f"Shifted: expected taps to be pairs (d, e) of integers, got {tap}")
    return tuple((int(d), int(e)) for d, e in found)


def checked_weights(weights: Tensor, number: int) -> Tensor:
    """Return the weights of so many taps, or raise an error."""
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        raise TypeError(
            "Shifted: expected weights to be a tensor of floating point numbers, got "
            f"{weights.dtype if isinstance(weights, Tensor) else type(weights).__name__}"
        )
    if weights.shape != (number,):
        raise ValueError(
            f"Shifted: expected weights of shape {(number,)}, one for each tap, got "
            f"{tuple(weights.shape)}"
        )
    values = weights.detach()
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise ValueError(
            f"Shifted: expected finite weights >= 0, got values from {float(values.min()):g} "
            f"to {float(values.max()):g}"
        )
    return weights


def filled(size: int, places: list[Tensor], entries: list[Tensor]) -> Tensor:
    """Return zeros, with the entries added at their places."""
    values = torch.cat(entries)
    index = torch.cat(places).to(values.device)
    return values.new_zeros(size).index_add(0, index, values)


def multiply(x: Tensor, table: Tensor) -> Tensor:
    """Multiply frames and slots of every capsule by one table."""
    frames, _, slots = x.shape[-3:]
    rows = x.transpose(-3, -2).flatten(-2) @ table
    return rows.unflatten(-1, (frames, slots)).transpose(-3, -2)


def add_moved(x: Tensor, tables: Tensor, reads: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Multiply the slots by each table, and add up with the frames moved as it says."""
    total = torch.zeros_like(x)
    for table, (sources, targets) in zip(tables.unbind(), reads, strict=True):
        moved = (x @ table).index_select(-3, sources.to(x.device))
        total = total.index_add(x.dim() - 3, targets.to(x.device), moved)
    return total


def add_rolled(x: Tensor, taps: Sequence[Tap], sign: int) -> Tensor:
    """Add up copies that are rolled, over frames and slots, by each tap times the sign."""
    return reduce(torch.add, (x.roll((sign * d, sign * e), (-3, -1)) for d, e in taps))
