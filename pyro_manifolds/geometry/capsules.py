"""Codes in capsules: how far a step in time is a roll of the slots, and how far by chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

__all__ = [
    "check_codes",
    "equivariance_chance",
    "equivariance_error",
    "prior_null",
    "roll_capsules",
]

T = TypeVar("T")


def roll_capsules(t: Tensor, shift: int | Tensor) -> Tensor:
    """Roll the slots of each capsule: slot ``i`` goes to slot ``i + shift``.

    Args:
        t: Codes ``[..., D]``; the last dimension are the slots of a capsule.
        shift: One number of slots, or an int64 tensor of them, which broadcasts with
            ``t.shape[:-1]``.

    Raises:
        TypeError: If ``shift`` is a tensor of fractions.

    Example:
        >>> codes = torch.arange(6).reshape(2, 3)
        >>> roll_capsules(codes, 1)
        tensor([[2, 0, 1],
                [5, 3, 4]])
        >>> roll_capsules(codes, torch.tensor([1, 0]))
        tensor([[2, 0, 1],
                [3, 4, 5]])
    """
    if isinstance(shift, int):
        return t.roll(shift, -1)
    if shift.is_floating_point() or shift.is_complex():
        raise TypeError(f"roll_capsules: expected a whole number as shift, got {shift.dtype}")
    size = t.shape[-1]
    batch = torch.broadcast_shapes(t.shape[:-1], shift.shape)
    slots = torch.arange(size, device=t.device) - shift.to(t.device).unsqueeze(-1)
    return t.expand(*batch, size).gather(-1, slots.remainder(size).expand(*batch, size))


def equivariance_error(t: Tensor, *, roll: int = 1) -> Tensor:
    r"""Distance of the code of each frame from the rolled codes of all frames before.

    With capsules of unit length, :math:`\hat t`,

    .. math::
        E = \sum_{l < l'} \sum_c
            \left\| \mathrm{roll}_{l' - l} \, \hat t_{l, c} - \hat t_{l', c} \right\|_1

    as a mean over the batch. The sum is over pairs in the order of time and never goes round, so
    it does not need as many frames as slots.

    A small value is no evidence that anything was learned: codes from a prior with a window that
    is rolled over time have one, and so has any code that is nearly constant. Report it beside
    :func:`prior_null` and :func:`equivariance_chance`, and see :func:`roll_forward` for a metric
    that such codes do not pass.

    References:
        | Topographic VAEs learn Equivariant Capsules (Keller and Welling, 2021)
        | https://arxiv.org/abs/2109.01394

    Args:
        t: Codes ``[..., S, C, D]`` of S frames in C capsules of D slots.
        roll: Slots per frame.

    Returns:
        One number, differentiable in the codes.

    Raises:
        ValueError: If there are fewer than three dimensions, or one of the last three is empty.

    Example:
        >>> first = torch.randn(4, 1, 3, 6)
        >>> codes = torch.cat([first.roll(k, -1) for k in range(6)], 1)
        >>> equivariance_error(codes) < 1e-4
        tensor(True)
    """
    check_codes("equivariance_error", t)
    length = torch.linalg.vector_norm(t, dim=-1, keepdim=True)
    unit = t / length.clamp(min=torch.finfo(t.dtype).tiny)
    num_frames = t.shape[-3]
    error = unit.new_zeros(t.shape[:-3])
    for lag in range(1, num_frames):
        earlier, later = unit[..., : num_frames - lag, :, :], unit[..., lag:, :, :]
        error = error + (roll_capsules(earlier, roll * lag) - later).abs().sum((-3, -2, -1))
    return error.mean()


def equivariance_chance(num_frames: int, num_capsules: int, capsule_size: int) -> float:
    r"""Mean :func:`equivariance_error` of independent standard normal codes.

    Capsules are then independent uniform directions :math:`x, y` in D dimensions, and
    :math:`\mathbb{E} |x_1 - y_1|` is the mean length of a chord of the sphere times the mean
    absolute coordinate of a direction:

    .. math::
        \frac{2^{D-1} \, \Gamma(D/2)^2}{\sqrt{\pi} \, \Gamma(D - 1/2)} \cdot
        \frac{\Gamma(D/2)}{\sqrt{\pi} \, \Gamma((D+1)/2)}

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> round(equivariance_chance(num_frames=18, num_capsules=18, capsule_size=18), 4)
        13270.7018
    """
    numbers = (num_frames, num_capsules, capsule_size)
    if min(numbers) < 1:
        raise ValueError(
            "equivariance_chance: expected num_frames, num_capsules and capsule_size of at least "
            f"1, got {numbers}"
        )
    half = capsule_size / 2
    log_gap = (capsule_size - 1) * math.log(2) - math.log(math.pi) + 3 * math.lgamma(half)
    log_gap -= math.lgamma(capsule_size - 0.5) + math.lgamma(half + 0.5)
    pairs = num_frames * (num_frames - 1) / 2
    return pairs * num_capsules * capsule_size * math.exp(log_gap)


def prior_null(
    metric: Callable[[Tensor], T], prior: Distribution, num_sequences: int = 64, *, seed: int = 0
) -> T:
    """Return a metric of codes drawn from a prior: what it is without data and without learning.

    Args:
        metric: Function of codes ``[num_sequences, ..., S, C, D]``, such as
            :func:`equivariance_error` or :func:`shift_hit_rates`.
        prior: Distribution of the codes of a sequence, with event shape ``(S, C, D)``.
        num_sequences: How many sequences to draw, at least 1.
        seed: Seed of the draws; global generators are left as they were.

    Returns:
        What ``metric`` returns.

    Raises:
        ValueError: If the event shape has another number of dimensions, or there are no sequences.

    Example:
        >>> independent = dist.Normal(torch.zeros(6, 4, 6), 1.0).to_event(3)
        >>> null = prior_null(equivariance_error, independent, num_sequences=1000)
        >>> round(float(null) / equivariance_chance(6, 4, 6), 2)
        1.0
    """
    if len(prior.event_shape) != 3:
        raise ValueError(
            "prior_null: expected a prior with event shape (S, C, D), frames by capsules by "
            f"slots, got {tuple(prior.event_shape)}"
        )
    if num_sequences < 1:
        raise ValueError(f"prior_null: expected num_sequences >= 1, got {num_sequences}")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        return metric(prior.sample(torch.Size([num_sequences])))


def check_codes(caller: str, t: Tensor) -> None:
    """Raise unless codes have frames, capsules and slots, at least one of each."""
    if t.dim() < 3 or 0 in t.shape[-3:]:
        raise ValueError(
            f"{caller}: expected codes of shape [..., S, C, D], frames by capsules by slots, "
            f"got {tuple(t.shape)}"
        )
