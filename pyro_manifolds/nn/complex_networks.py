"""Complex networks through which phases go: encoder and decoder of complex data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Size, Tensor, nn

from pyro_manifolds.ops.complex_linalg import split_parts

__all__ = ["ComplexDecoder", "ComplexEncoder", "ModulusGate"]


class ModulusGate(nn.Module):
    r"""Activation of complex numbers that leaves their phases: :math:`z\,\sigma(|z|^2 + b)`.

    Args:
        size: Number of features, the last dimension, each with a :math:`b` of its own.

    Example:
        >>> from pyro_manifolds.nn import ModulusGate
        >>> ModulusGate(2)(torch.tensor([0, 10j])).detach()
        tensor([0.+0.j, 0.+10.j])
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor) -> Tensor:
        gate = torch.sigmoid(_squares(z) + self.bias)
        return torch.complex(gate * z.real, gate * z.imag)


class ComplexEncoder(nn.Module):
    """Complex layers from complex data to the posterior of a proper :class:`ComplexGuide`.

    Without biases, the default, a phase that all of a datum is turned by turns the means as much,
    and leaves the variances: right for data that are as likely at every phase.

    Args:
        dim: Number of complex latents.
        data_shape: Shape of a datum.
        hidden: Widths of the hidden layers, in complex numbers.
        bias: Whether complex layers have biases, which fix phases.

    Example:
        >>> from pyro_manifolds.nn import ComplexEncoder, ComplexGuide
        >>> guide = ComplexGuide(3, (16,), encoder=ComplexEncoder(3, (16,)))
        >>> x = torch.randn(16, dtype=torch.cfloat)
        >>> (guide.posterior(1j * x).mean - 1j * guide.posterior(x).mean).abs().max() < 1e-5
        tensor(True)
    """

    def __init__(
        self,
        dim: int,
        data_shape: Sequence[int],
        *,
        hidden: Sequence[int] = (64, 64),
        bias: bool = False,
    ) -> None:
        super().__init__()
        layers = _layers((Size(data_shape).numel(), *hidden), bias)
        self.trunk = nn.Sequential(nn.Flatten(-len(data_shape)), *layers, ModulusGate(hidden[-1]))
        self.loc = nn.Linear(hidden[-1], dim, bias=bias, dtype=torch.cfloat)
        self.log_variance = nn.Linear(hidden[-1], dim)

    def forward(self, x: Tensor) -> Tensor:
        h = self.trunk(x)
        return torch.cat([split_parts(self.loc(h)), self.log_variance(_squares(h).log1p())], -1)


class ComplexDecoder(nn.Sequential):
    """Complex layers from complex latents to complex parameters, as of :class:`ComplexModel`.

    Without biases, the default, phases go through. The map is not holomorphic: gates see moduli.

    Args:
        dim: Number of complex latents.
        data_shape: Shape of a datum.
        hidden: Widths of the hidden layers, in complex numbers.
        bias: Whether layers have biases, which fix phases.

    Example:
        >>> from pyro_manifolds.nn import ComplexDecoder, ComplexModel, GaussianNoise
        >>> decoder = ComplexDecoder(3, (16,))
        >>> model = ComplexModel(3, (16,), decoder=decoder, likelihood=GaussianNoise(0.1))
        >>> model.decode(torch.randn(10, 3, dtype=torch.cfloat)).mean.dtype
        torch.complex64
    """

    def __init__(
        self,
        dim: int,
        data_shape: Sequence[int],
        *,
        hidden: Sequence[int] = (64, 64),
        bias: bool = False,
    ) -> None:
        layers = _layers((dim, *hidden, Size(data_shape).numel()), bias)
        super().__init__(*layers, nn.Unflatten(-1, tuple(data_shape)))


def _layers(sizes: tuple[int, ...], bias: bool) -> list[nn.Module]:
    """Return complex linear maps with gates between them."""
    layers: list[nn.Module] = []
    for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [
            nn.Linear(size_in, size_out, bias=bias, dtype=torch.cfloat),
            ModulusGate(size_out),
        ]
    return layers[:-1]


def _squares(z: Tensor) -> Tensor:
    return z.real.square() + z.imag.square()
