"""Nodes of a quadrature over a manifold: how many, and the mass of a density at them."""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

__all__ = ["counts_for", "given_counts", "lacks_nodes", "log_density", "log_masses", "mass_fault"]

_MAX_NODES = 512
_MASS_ERROR = 1e-3  # of the logarithm of the sum of a density over the nodes: an error of log_prob
_ENOUGH = 1e-4  # of the same, where nodes are added to a density
_FEWER_IN_FLOAT32 = 0.8  # for 1e-6 in place of 1e-8, measured likewise


def given_counts(caller: str, number: int, angles: int) -> tuple[int, ...]:
    """Return the numbers of nodes along each angle, of which the first is given.

    Raises:
        ValueError: In the name of the caller, if it is odd or below four.
    """
    if number < 4 or number % 2:
        raise ValueError(f"{caller}: expected num_nodes to be even and >= 4, got {number}")
    return (number, number // 2)[:angles]


def counts_for(
    caller: str, ratio: Tensor, needed: tuple[tuple[float, float], ...], *, is_fixed: bool
) -> tuple[int, ...]:
    """Return numbers of nodes along each angle that suffice for draws of a distribution.

    Args:
        caller: Name of the distribution.
        ratio: Largest amplitude of a filter in units of the noise, a scalar.
        needed: For each angle, nodes at a ratio of zero in float64, and more by the ratio.
        is_fixed: Whether a ratio for which no number was foreseen is an error. Tensors may be
            draws of a prior or steps of an optimiser, which must not stop midway.

    Raises:
        ValueError: In the name of the caller, if so, or if the ratio is no number.
    """
    fewer = 1.0 if ratio.dtype == torch.float64 else _FEWER_IN_FLOAT32
    foreseen = (_MAX_NODES / fewer - needed[0][0]) / needed[0][1]
    value = _number(caller, ratio)
    if math.isnan(value) or (is_fixed and value > foreseen):
        raise ValueError(
            f"{caller}: expected filters F of an amplitude of at most {foreseen:.0f} times the "
            f"noise, got {value:.3g}; raise noise, or give num_nodes"
        )
    value = min(value, foreseen)
    return tuple(2 * math.ceil(fewer * (a + b * value) / 2) for a, b in needed)


def log_density(density: TorchDistribution, points: Tensor) -> Tensor:
    """Return the log-density at points, ``(n,) + event_shape``, as ``batch_shape + (n,)``."""
    rows = points.reshape(points.shape[:1] + (1,) * len(density.batch_shape) + points.shape[1:])
    return density.log_prob(rows).movedim(0, -1).to(points.dtype)


def log_masses(
    density: TorchDistribution, halves: tuple[Tensor, Tensor], log_cell: float
) -> Tensor:
    """Return the density at nodes times the area of a cell, of sum near one.

    Args:
        density: The density, with respect to the Riemannian volume.
        halves: Nodes of one half of the manifold, and of the other; masses of pairs are added.
        log_cell: Logarithm of the area of a cell.
    """
    first, second = (log_density(density, points) for points in halves)
    return torch.logaddexp(first, second) + log_cell


def lacks_nodes(caller: str, counts: tuple[int, ...], masses: Tensor) -> bool:
    """Return whether twice as many nodes are allowed, and needed for the mass of a density."""
    return 2 * counts[0] <= _MAX_NODES and _mass_error(caller, masses) > _ENOUGH


def mass_fault(caller: str, counts: tuple[int, ...], masses: Tensor) -> str:
    """Return what to tell of nodes that miss mass; empty if they do not, or if it is unknown.

    Under ``torch.jit.trace`` and ``torch.func`` it is.
    """
    if torch.jit.is_tracing() or torch._C._functorch.is_functorch_wrapped_tensor(masses):
        return ""
    error = _mass_error(caller, masses)
    if error <= _MASS_ERROR:
        return ""
    return (
        f"{caller}: expected num_nodes to be so large that density has the mass "
        f"one at the nodes, to {_MASS_ERROR:g}, got {counts[0]} and an error of its "
        f"logarithm of {error:.2g}; give num_nodes of at least 6 / s for standard deviation s"
    )


def _mass_error(caller: str, masses: Tensor) -> float:
    error = _number(caller, masses.detach().logsumexp(-1).abs().amax())
    return math.inf if math.isnan(error) else error


def _number(caller: str, tensor: Tensor) -> float:
    """Return a number on which the number of nodes depends."""
    cause = None
    if not (torch.jit.is_tracing() and _varies(tensor)):
        try:
            return float(tensor)
        except RuntimeError as error:  # of vmap
            cause = error
    raise ValueError(
        f"{caller}: expected num_nodes to be given where amplitude, noise or "
        f"density vary under torch.jit.trace or torch.vmap, got None"
    ) from cause


def _varies(tensor: Tensor) -> bool:
    """Return whether a tensor of a trace depends on its inputs, or on chance."""
    nodes = [torch._C._get_value_trace(tensor).node()]  # type: ignore[attr-defined]
    while nodes:
        node = nodes.pop()
        if node.kind() == "prim::Param" or node.isNondeterministic():
            return True
        nodes += [value.node() for value in node.inputs()]
    return False
