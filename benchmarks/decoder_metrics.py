"""Volume elements of decoders of complex latents: exact ones against what stands in for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro.distributions import Normal
from torch import Tensor, nn

from benchmarks.timing import Entry, Row, measure
from pyro_manifolds.geometry import (
    EncoderPrecisionProxy,
    LogSumExpPotential,
    log_det_metric,
    mixed_hessian,
)
from pyro_manifolds.ops.complex_linalg import split_parts

__all__ = ["ENTRIES"]

_BATCH = 64
_CODES = 64
_TARGET = 10.0  # times faster than the exact one, in 16 complex dimensions


def decoder_metrics(seconds: float) -> list[Row]:
    """Log-determinants of metrics at a batch of 64 latents, forward and backward.

    The decoder has two layers of 512 and 784 outputs, with normal noise. What stands in for its
    metric is made of 64 codes. The ratio is to the decoder itself.
    """
    return [row for n in (2, 8, 16) for row in _rows(n, seconds / 3)]


def _rows(n: int, seconds: float) -> list[Row]:
    times = measure(_contenders(n), seconds)
    rows = []
    for name, time in times.items():
        target, passed = "", None
        if n == 16 and name == "encoder precision":
            speed = times["exact"] / time
            target, passed = f">= {_TARGET:.0f} x faster than exact", speed >= _TARGET
        label, ratio = f"n = {n}, {name}", time / times["decoder"]
        rows.append(Row("decoder_metrics", label, time, ratio, target=target, passed=passed))
    return rows


def _contenders(n: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(2 * n, 512), nn.Tanh()),
        *(nn.Linear(512, 512), nn.Tanh()),
        nn.Linear(512, 784),
    )
    z = torch.randn(_BATCH, n, dtype=torch.cfloat).requires_grad_()
    loc = torch.randn(_CODES, n, dtype=torch.cfloat).requires_grad_()
    scale = (0.2 + 0.6 * torch.rand(_CODES, n)).requires_grad_()
    leaves = [z, loc, scale, *net.parameters()]

    def potential() -> LogSumExpPotential:
        return LogSumExpPotential("plus", loc, precision_diag=scale)

    def by_hessian() -> Tensor:
        return torch.linalg.slogdet(mixed_hessian(potential(), z)[0]).logabsdet

    def decoder(z: Tensor) -> Normal:
        return Normal(net(split_parts(z)), 0.15)

    return {
        "decoder": _run(leaves, lambda: decoder(z).mean),
        "exact": _run(leaves, lambda: log_det_metric(decoder, z)),
        "encoder precision": _run(leaves, lambda: EncoderPrecisionProxy(loc, scale).log_det(z)),
        "plus potential": _run(leaves, lambda: potential().log_det(z)),
        "plus potential, by its Hessian": _run(leaves, by_hessian),
    }


def _run(leaves: list[Tensor], forward: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        forward().sum().backward()

    return run


ENTRIES: dict[str, Entry] = {"decoder_metrics": decoder_metrics}
