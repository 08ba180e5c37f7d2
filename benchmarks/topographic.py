"""Neighbourhoods of topographic latents, against the transposed convolutions of published code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose3d, pad

from benchmarks.timing import Entry, Row, measure
from pyro_manifolds.distributions import Neighborhood, Shifted, Torus2d

__all__ = ["ENTRIES"]

_SEQUENCE_TARGET, _MAP_TARGET = 20.0, 500.0  # times faster


def topographic(seconds: float) -> list[Row]:
    """The operator W, forward and backward, in float32.

    Sequences of 18 frames of 18 capsules of 18 slots, in batches of 8, with windows of 5, 13 and
    18 frames whose corners are cut; then maps of 64 by 64 with windows of 25 by 25, in batches of
    64. The other contender pads the rings and convolves.
    """
    rows = []
    for length in (5, 13, 18):
        window = Shifted.band(18, 18, length, 1, num_capsules=18)
        name = f"sequences, window of {length}"
        u = torch.randn(8, *window.event_shape)
        rows += _compare(name, window, _convolution(window, length), u, seconds, _SEQUENCE_TARGET)
    sheet = Torus2d((64, 64), (25, 25))
    u = torch.randn(64, 64, 64)
    rows += _compare("maps of 64 by 64", sheet, _convolution_of_maps(25), u, seconds, _MAP_TARGET)
    return rows


def _compare(
    name: str,
    near: Neighborhood,
    other: Callable[[Tensor], Tensor],
    u: Tensor,
    seconds: float,
    target: float,
) -> list[Row]:
    torch.testing.assert_close(near.forward(u * u), other(u * u), rtol=1e-4, atol=1e-4)
    times = measure({"ours": _run(near.forward, u), "convolution": _run(other, u)}, seconds)
    ratio = times["convolution"] / times["ours"]
    return [
        Row("topographic", f"{name}, transposed convolution", times["convolution"]),
        Row(
            *("topographic", f"{name}, ours: {ratio:.0f} times faster", times["ours"]),
            target=f">= {target:.0f} times faster",
            passed=ratio >= target,
        ),
    ]


def _run(forward: Callable[[Tensor], Tensor], u: Tensor) -> Callable[[], None]:
    leaf, weight = u.square().requires_grad_(), torch.randn_like(u)

    def run() -> None:
        leaf.grad = None
        forward(leaf).backward(weight)

    return run


def _convolution(window: Shifted, length: int) -> Callable[[Tensor], Tensor]:
    """Every capsule is an image of frames by slots, with a third axis of size 1."""
    kernel, before = torch.zeros(1, 1, length, length, 1), length // 2
    for d, e in window.taps:
        kernel[0, 0, before - d, before - e] = 1.0
    spread = _spread(kernel, before)

    def forward(u2: Tensor) -> Tensor:
        capsules = u2.transpose(1, 2).reshape(-1, 1, u2.shape[1], u2.shape[3], 1)
        v = spread(capsules).reshape(u2.shape[0], u2.shape[2], u2.shape[1], u2.shape[3])
        return v.transpose(1, 2).reshape(u2.shape)

    return forward


def _convolution_of_maps(size: int) -> Callable[[Tensor], Tensor]:
    spread = _spread(torch.ones(1, 1, size, size, 1), size // 2)
    return lambda u2: spread(u2[:, None, :, :, None])[:, 0, :, :, 0]


def _spread(kernel: Tensor, before: int) -> Callable[[Tensor], Tensor]:
    """Pad by the opposite ends, convolve, and cut the padding off again."""
    cut = kernel.shape[2] - 1
    ring = (0, 0) + 2 * (cut - before, before)
    return lambda x: conv_transpose3d(pad(x, ring, mode="circular"), kernel, padding=(cut, cut, 0))


ENTRIES: dict[str, Entry] = {"topographic": topographic}
