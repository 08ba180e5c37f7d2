"""Data for complex VAEs: digits, signals, Fourier coefficients of photographs."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_manifolds.datasets import TEST_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS, photographs

__all__ = [
    "Split",
    "coefficients",
    "digits",
    "fourier_patches",
    "signals",
]


class Split(NamedTuple):
    """Data to train and to test with; labels where there are some."""

    train: Tensor
    test: Tensor
    labels: Tensor | None = None


@cache
def digits(num_train: int = 1400) -> Split:
    """The 8 x 8 digits of scikit-learn, from 0 to 1, and the labels of those to train with."""
    from sklearn.datasets import load_digits

    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = (images / 16).float()[order], labels[order]
    return Split(images[:num_train], images[1400:], labels[:num_train])


@cache
def signals(num_train: int, num_test: int, length: int = 32) -> Split:
    """Analytic signals: two chirps each, of uniform phases, with complex noise of deviation 0.1.

    Frequencies are positive and far below that of Nyquist. They change by up to a half over the
    signal, and each chirp fades in and out in a window of its own.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(num_train + num_test, 2, 1, generator=generator)

    time = torch.linspace(0, 1, length)
    frequency, phase = uniform(1.0, 6.0), uniform(0.0, 1.0)
    turns = phase + frequency * (time + uniform(-0.25, 0.25) * time.square())
    envelope = uniform(0.5, 1.5) * (-((time - uniform(0.2, 0.8)) / 0.3).square()).exp()
    clean = torch.polar(envelope, 2 * math.pi * turns).sum(1)
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=generator)
    return Split(*(clean + 0.1 * noise).split((num_train, num_test)))


@cache
def fourier_patches(num_train: int, num_test: int, size: int = 8) -> Split:
    """Complex Fourier coefficients of patches of photographs, of mean square one in each patch.

    Of the coefficients of real patches those count that are complex, one of each conjugate pair:
    30 of 8 x 8. The half of the patches with more contrast is kept. Photographs to test with are
    others than those to train with.
    """
    generator = torch.Generator().manual_seed(0)
    parts = []
    for names, count in ((TRAIN_PHOTOGRAPHS, num_train), (TEST_PHOTOGRAPHS, num_test)):
        found = torch.cat(
            [coefficients(image.float(), size) for image in photographs(names).values()]
        )
        chosen = torch.randperm(len(found), generator=generator)[:count]
        parts.append(found[chosen])
    return Split(*parts)


def coefficients(image: Tensor, size: int) -> Tensor:
    """Those of patches at half a patch's distance, from a photograph."""
    patches = image.unfold(0, size, size // 2).unfold(1, size, size // 2).flatten(0, 1)
    found = torch.fft.fft2(patches, norm="ortho")
    # No coefficient in these columns and rows is the conjugate of another.
    half, edges = found[:, :, 1 : size // 2], found[:, 1 : size // 2, :: size // 2]
    found = torch.cat([half.flatten(1), edges.flatten(1)], -1)
    energy = torch.view_as_real(found).square().mean((1, 2)) * 2
    kept = energy > energy.median()
    return found[kept] / energy[kept].sqrt().unsqueeze(-1)
