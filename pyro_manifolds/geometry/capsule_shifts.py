"""By how many slots codes have moved: estimates from the codes, and how well they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pyro_manifolds.geometry.capsules import check_codes

__all__ = [
    "ShiftAgreement",
    "capsule_shifts",
    "estimated_shifts",
    "shift_agreement",
    "shift_hit_rates",
]


class ShiftAgreement(NamedTuple):
    """How well estimates of cyclic shifts agree with the true ones.

    Attributes:
        hit_rate: Fraction of estimates that are exact; 1/D by chance.
        mean_cosine: Mean cosine of the error as an angle; 0 by chance.
        correlation: Circular correlation by Fisher and Lee, from -1 to 1, which an equal offset
            of all estimates leaves alone; 0 by chance, and where either side is constant.
    """

    hit_rate: float
    mean_cosine: float
    correlation: float


def capsule_shifts(source: Tensor, target: Tensor) -> Tensor:
    r"""For each capsule, the shift by which the rolled source is most like the target.

    That is the :math:`r` with the largest :math:`\sum_i s_{i - r} t_i`: the one with the least
    squared distance. Of equal ones any is returned.

    Args:
        source: Codes ``[..., C, D]`` of C capsules of D slots.
        target: Codes that broadcast with them.

    Returns:
        Shifts from 0 to D - 1, shape ``[..., C]``, int64.

    Raises:
        ValueError: If there is no dimension of capsules, or the numbers of slots differ.

    Example:
        >>> codes = torch.randn(5, 8)
        >>> capsule_shifts(codes, codes.roll(3, -1))
        tensor([3, 3, 3, 3, 3])
    """
    return _correlations("capsule_shifts", source, target).argmax(-1)


def estimated_shifts(source: Tensor, target: Tensor) -> Tensor:
    """Shift of the slots from one code to another: the most frequent one over the capsules.

    Of a sequence ``t`` of codes ``[..., S, C, D]``, ``estimated_shifts(t[..., :1, :, :], t)`` are
    the shifts since frame 0, and ``estimated_shifts(t, t.roll(-1, -3))`` those from each frame of
    a cycle to the next.

    Args:
        source: Codes ``[..., C, D]`` of C capsules of D slots.
        target: Codes that broadcast with them.

    Returns:
        Shifts from 0 to D - 1, shape ``[...]``, int64. Of equally frequent ones, that with the
        largest correlation over all capsules, so that all shifts are equally likely by chance.

    Raises:
        ValueError: As for :func:`capsule_shifts`.

    Example:
        >>> first = torch.randn(1, 5, 8)
        >>> codes = torch.cat([first.roll(k, -1) for k in (0, 1, 4)])
        >>> estimated_shifts(codes[:1], codes)
        tensor([0, 1, 4])
    """
    correlations = _correlations("estimated_shifts", source, target)
    counts = functional.one_hot(correlations.argmax(-1), source.shape[-1]).sum(-2)
    # The smallest of equally frequent shifts would make small shifts twice as likely by chance.
    return (counts + correlations.mean(-2) / 4).argmax(-1)


def shift_agreement(estimated: Tensor, true: Tensor, size: int) -> ShiftAgreement:
    r"""Compare estimated with true shifts, as points of a ring of ``size`` slots.

    The correlation of angles :math:`a` and :math:`b` is

    .. math::
        \frac{\sum_{i<j} \sin(a_i - a_j) \sin(b_i - b_j)}
             {\sqrt{\sum_{i<j} \sin^2(a_i - a_j) \sum_{i<j} \sin^2(b_i - b_j)}}

    A correlation of the numbers themselves would be wrong on a ring: estimates that are all off
    by one slot have a wrap, which it takes for a gross error.

    References:
        | A correlation coefficient for circular data (Fisher and Lee, 1983),
          doi 10.1093/biomet/70.2.327

    Args:
        estimated: Shifts; whole numbers count modulo ``size``.
        true: Shifts, of the same shape.
        size: Number of slots, at least 2.

    Raises:
        ValueError: If shapes differ, there is no shift, or ``size`` is below 2.

    Example:
        >>> true = torch.arange(18)
        >>> shift_agreement((true + 1) % 18, true, 18)
        ShiftAgreement(hit_rate=0.0, mean_cosine=0.93969..., correlation=1.0...)
    """
    if size < 2:
        raise ValueError(f"shift_agreement: expected size >= 2, got {size}")
    if estimated.shape != true.shape or not true.numel():
        raise ValueError(
            "shift_agreement: expected estimated and true of one shape and not empty, got "
            f"{tuple(estimated.shape)} and {tuple(true.shape)}"
        )
    a, b = (x.detach().cpu().double().flatten() for x in (estimated, true))
    hits = (a - b).remainder(size) == 0
    a, b = 2 * math.pi / size * a, 2 * math.pi / size * b
    return ShiftAgreement(hits.double().mean().item(), (a - b).cos().mean().item(), _fisher(a, b))


def shift_hit_rates(
    t: Tensor, lags: Sequence[int] = (1,), *, cyclic: bool = True, roll: int = 1
) -> Tensor:
    """For each lag, how often the codes have moved by exactly as many slots as frames.

    Codes from a prior with a window that is rolled over time move so without any learning: report
    the rates beside ``prior_null(shift_hit_rates, prior)``. By chance they are 1/D.

    Args:
        t: Codes ``[..., S, C, D]`` of S frames in C capsules of D slots.
        lags: Numbers of frames from source to target, at least 0 and below S.
        cyclic: Whether frame 0 follows the last one; otherwise no pair goes round the end.
        roll: Slots per frame.

    Returns:
        Rates, shape ``[lags]``, over all frames and sequences.

    Raises:
        ValueError: If ``t`` has too few dimensions or a lag is out of range.

    Example:
        >>> first = torch.randn(4, 1, 3, 6)
        >>> codes = torch.cat([first.roll(k, -1) for k in range(6)], 1)
        >>> shift_hit_rates(codes, lags=(1, 3))
        tensor([1., 1.])
    """
    check_codes("shift_hit_rates", t)
    check_lags("shift_hit_rates", lags, t.shape[-3])
    rates = []
    for lag in lags:
        source, target = frame_pairs(t, t, lag, cyclic=cyclic, dim=-3)
        hits = estimated_shifts(source, target) == roll * lag % t.shape[-1]
        rates.append(hits.to(t.dtype).mean())
    return torch.stack(rates)


def frame_pairs(
    source: Tensor, target: Tensor, lag: int, *, cyclic: bool, dim: int
) -> tuple[Tensor, Tensor]:
    """Return frames, and those a lag later: round the end of a cycle, or up to the end."""
    if cyclic:
        return source, target.roll(-lag, dim)
    count = source.shape[dim] - lag
    return source.narrow(dim, 0, count), target.narrow(dim, lag, count)


def check_lags(caller: str, lags: Sequence[int], num_frames: int) -> None:
    """Raise unless there are lags and all lie between 0 and the last frame."""
    if not len(lags) or not all(0 <= lag < num_frames for lag in lags):
        raise ValueError(
            f"{caller}: expected one or more lags from 0 to {num_frames - 1}, got {tuple(lags)}"
        )


def _correlations(caller: str, source: Tensor, target: Tensor) -> Tensor:
    """Correlate the target with the source rolled by each number of slots, ``[..., C, D]``."""
    size = source.shape[-1] if source.dim() > 1 else 0
    if not size or target.dim() < 2 or target.shape[-1] != size:
        raise ValueError(
            f"{caller}: expected source and target of shape [..., C, D] with equal D, got "
            f"{tuple(source.shape)} and {tuple(target.shape)}"
        )
    spectra = []
    for t in (source, target):
        # A mean, which does not change which shift is best, would cost the precision of the rest.
        centred = t - t.mean(-1, keepdim=True)
        length = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        spectra.append(torch.fft.rfft(centred / length.clamp(min=torch.finfo(t.dtype).tiny)))
    return torch.fft.irfft(spectra[0].conj() * spectra[1], n=size)


def _fisher(a: Tensor, b: Tensor) -> float:
    """Circular correlation in linear time: the products of sines are sums over single angles."""

    def resultant(angles: Tensor) -> Tensor:
        return angles.cos().sum().square() + angles.sin().sum().square()

    count = len(a)
    spreads = [count**2 - resultant(2 * x) for x in (a, b)]
    if min(spreads) <= 1e-12 * count**2:  # rounding: all angles are equal, or opposite
        return 0.0
    joint = resultant(a - b) - resultant(a + b)
    return float(joint / (spreads[0] * spreads[1]).sqrt())
