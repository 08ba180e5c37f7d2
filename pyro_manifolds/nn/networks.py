"""Parts that several models are made of by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro.distributions as dist
from torch import Tensor, nn

__all__ = ["bernoulli", "perceptron"]


def perceptron(
    sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU
) -> list[nn.Module]:
    """Return linear layers with activations between them.

    Example:
        >>> from pyro_manifolds.nn.networks import perceptron
        >>> [type(layer).__name__ for layer in perceptron((2, 8, 3))]
        ['Linear', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(size_in, size_out), activation()]
    return layers[:-1]


def bernoulli(logits: Tensor) -> dist.TorchDistribution:
    """Return a Bernoulli law, for images of zeros and ones.

    Example:
        >>> from pyro_manifolds.nn.networks import bernoulli
        >>> bernoulli(torch.zeros(3)).probs
        tensor([0.5000, 0.5000, 0.5000])
    """
    return dist.Bernoulli(logits=logits)
