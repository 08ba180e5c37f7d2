"""Sequences of images that one factor runs through a full cycle: what they are made of."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["CycleSteps", "TransformingSequences", "check_sequences", "cycle_steps", "cycle_values"]


class TransformingSequences(NamedTuple):
    """Sequences of images in each of which one factor runs through one full cycle.

    Attributes:
        images: Intensities from 0 to 1, shape ``(n, num_frames, size, size)``, or
            ``(n, num_frames, 3, size, size)`` for colours.
        labels: What is shown: the digit, or the index of the shape; shape ``(n,)``, int64.
        transformation: Which factor runs, an index into those asked for; ``(n,)``, int64.
        phase: Step of the cycle that frame 0 shows, from 0 to ``num_frames - 1``; frame ``l``
            shows step ``phase + l``, modulo ``num_frames``. Shape ``(n,)``, int64.
    """

    images: Tensor
    labels: Tensor
    transformation: Tensor
    phase: Tensor


class CycleSteps(NamedTuple):
    """Steps of several factors, of which one runs and the others stay.

    Attributes:
        steps: Step of each factor in each frame, shape ``(n, num_frames, factors)``.
        running: Which factor runs, ``(n,)``.
        phase: Its step in frame 0, ``(n,)``.
    """

    steps: Tensor
    running: Tensor
    phase: Tensor


def cycle_steps(
    num_sequences: int, num_frames: int, num_factors: int, generator: torch.Generator
) -> CycleSteps:
    """Draw which factor runs, where it starts, and where the others stay; all are uniform.

    Example:
        >>> from pyro_manifolds.datasets.sequences import cycle_steps
        >>> steps, running, phase = cycle_steps(1, 4, 1, torch.Generator().manual_seed(0))
        >>> (steps[0, :, 0] - phase).remainder(4)
        tensor([0, 1, 2, 3])
    """
    running = torch.randint(num_factors, (num_sequences,), generator=generator)
    start = torch.randint(num_frames, (num_sequences, num_factors), generator=generator)
    moves = functional.one_hot(running, num_factors).unsqueeze(-2)
    steps = start.unsqueeze(-2) + torch.arange(num_frames).unsqueeze(-1) * moves
    phase = start.gather(-1, running.unsqueeze(-1)).squeeze(-1)
    return CycleSteps(steps.remainder(num_frames), running, phase)


def cycle_values(
    steps: Tensor, num_frames: int, low: float, high: float, *, smooth: bool
) -> Tensor:
    """Values from ``low`` to ``high``: equal steps and a jump back, or a cosine there and back.

    Example:
        >>> from pyro_manifolds.datasets.sequences import cycle_values
        >>> cycle_values(torch.arange(4), 4, 0.0, 3.0, smooth=False)
        tensor([0., 1., 2., 3.])
        >>> cycle_values(torch.arange(4), 4, 0.0, 3.0, smooth=True)
        tensor([0.0000, 1.5000, 3.0000, 1.5000])
    """
    steps = steps.to(torch.get_default_dtype())
    if smooth:
        return low + (high - low) * (1 - (2 * math.pi / num_frames * steps).cos()) / 2
    return low + (high - low) / (num_frames - 1) * steps


def check_sequences(
    caller: str,
    num_sequences: int,
    num_frames: int,
    chosen: tuple[str, ...],
    known: tuple[str, ...],
    name: str,
) -> None:
    """Raise if there are no sequences, too few frames, or unknown, repeated or no factors."""
    for argument, number, least in (
        ("num_sequences", num_sequences, 1),
        ("num_frames", num_frames, 2),
    ):
        if number < least:
            raise ValueError(f"{caller}: expected {argument} >= {least}, got {number}")
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise ValueError(
            f"{caller}: expected {name} to be one or more of {', '.join(known)}, each once, "
            f"got {chosen}"
        )
