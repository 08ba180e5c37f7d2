"""Networks for complex data: complex ones, and real ones of as many parameters."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pyro_manifolds.nn import (
    ComplexDecoder,
    ComplexEncoder,
    ComplexGuide,
    ComplexModel,
    GaussianNoise,
)
from pyro_manifolds.ops.complex_linalg import join_parts, split_parts

__all__ = [
    "Pair",
    "RealLinear",
    "complex_pair",
    "gated_pair",
    "num_parameters",
    "real_pair",
    "widest",
]

Pair = tuple[ComplexModel, ComplexGuide]


def num_parameters(*modules: nn.Module) -> int:
    """Number of real parameters; a complex one is two."""
    return sum(p.numel() * (1 + p.is_complex()) for m in modules for p in m.parameters())


def complex_pair(dim: int, size: int, width: int, *, bias: bool = False) -> Pair:
    """Complex latents and complex networks."""
    hidden = (width, width)
    decoder = ComplexDecoder(dim, (size,), hidden=hidden, bias=bias)
    encoder = ComplexEncoder(dim, (size,), hidden=hidden, bias=bias)
    model = ComplexModel(dim, (size,), decoder=decoder, likelihood=GaussianNoise(0.3))
    return model, ComplexGuide(dim, (size,), encoder=encoder)


def real_pair(dim: int, size: int, width: int, *, twin: bool = True) -> Pair:
    """Perceptrons of real and imaginary parts."""
    options = {"complex_data": True, "real_twin": twin, "hidden": (width, width)}
    model = ComplexModel(dim, (size,), **options, likelihood=GaussianNoise(0.3))
    return model, ComplexGuide(dim, (size,), **options)


class RealLinear(nn.Linear):
    """Linear map of real and imaginary parts, of twice the parameters of a complex one."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__(2 * like.in_features, 2 * like.out_features)

    def forward(self, z: Tensor) -> Tensor:
        return join_parts(super().forward(split_parts(z)))


def gated_pair(dim: int, size: int, width: int) -> Pair:
    """Complex latents, and the complex networks with real linear maps: gates see moduli still."""
    pair = complex_pair(dim, size, width)
    for part in [part for module in pair for part in module.modules()]:
        for name, child in part.named_children():
            if isinstance(child, nn.Linear) and child.weight.is_complex():
                setattr(part, name, RealLinear(child))
    return pair


def widest(build: Callable[[int], Pair], num: int) -> Pair:
    """Networks as wide as ``num`` parameters allow."""
    width = 1
    while num_parameters(*build(width + 1)) <= num:
        width += 1
    return build(width)
