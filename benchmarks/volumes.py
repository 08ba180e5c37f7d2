"""Volume elements of embeddings by network, against the network itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jacfwd, vmap

from benchmarks.timing import Entry, Row, measure
from pyro_manifolds.ops.volume_element import (
    half_log_det_gram,
    half_log_det_gram_surrogate,
    jacobian,
)

__all__ = ["ENTRIES"]

_TARGET = 6.0  # times the network's own forward and backward pass


def volume_element(seconds: float) -> list[Row]:
    """Half the log-determinant of a network from the plane to R^100, forward and backward.

    Three linear layers of width 100, a batch of 256. The last rows are a larger network, from
    R^128 to R^784 by way of 400 units, a batch of 64.
    """
    rows = []
    for name, activation in (("tanh", nn.Tanh), ("SiLU", nn.SiLU)):
        net, z = _network(2, 100, 100, activation), torch.rand(256, 2)
        times = measure(_contenders(net, z), seconds)
        rows += [_row(f"{name}, {what}", time, times["network"]) for what, time in times.items()]
    net, z = _network(128, 400, 784, nn.Tanh), torch.rand(64, 128)
    contenders = {
        **_contenders(net, z),
        "one probe of the surrogate": _run(net, lambda: half_log_det_gram_surrogate(net, z)),
    }
    times = measure(contenders, seconds)
    rows += [
        Row("volume_element", f"from R^128, {what}", time, time / times["network"])
        for what, time in times.items()
    ]
    return rows


def _network(inputs: int, width: int, outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(inputs, width), activation()),
        *(nn.Linear(width, width), activation()),
        nn.Linear(width, outputs),
    )


def _contenders(net: nn.Module, z: Tensor) -> dict[str, Callable[[], None]]:
    return {
        "network": _run(net, lambda: net(z)),
        "vmap(jacfwd) and QR": _run(net, lambda: _textbook(net, z)),
        "ours": _run(net, lambda: half_log_det_gram(jacobian(net, z))),
    }


def _textbook(net: nn.Module, z: Tensor) -> Tensor:
    triangle = torch.linalg.qr(vmap(jacfwd(net))(z)).R
    return triangle.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


def _run(net: nn.Module, forward: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        net.zero_grad()
        forward().sum().backward()

    return run


def _row(name: str, time: float, base: float) -> Row:
    ratio = time / base
    if not name.endswith("ours"):
        return Row("volume_element", name, time, ratio)
    target = f"<= {_TARGET:.0f} x network"
    return Row("volume_element", name, time, ratio, target=target, passed=ratio <= _TARGET)


ENTRIES: dict[str, Entry] = {"volume_element": volume_element}
