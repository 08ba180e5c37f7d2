"""Comparing samples with exact numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.testing.quadrature import Rule

__all__ = ["assert_mean", "smooth_test"]


def assert_mean(
    draws: Tensor, expected: Tensor, *, floor: float = 0.0, what: str = "mean"
) -> None:
    """Assert that the mean over the first dimension is within five standard errors.

    Args:
        draws: Independent draws.
        expected: Their mean.
        floor: Error that rounding or quadrature may add.
        what: Name for the message.
    """
    draws, expected = draws.double(), expected.double()
    error = 5 * draws.std(0) / math.sqrt(len(draws)) + floor
    off = (draws.mean(0) - expected).abs()
    assert bool((off <= error).all()), (
        f"{what}: expected {expected.flatten()[:9].tolist()}, "
        f"got {draws.mean(0).flatten()[:9].tolist()}, "
        f"off by up to {(5 * off / error).max():.1f} standard errors"
    )


def smooth_test(draws: Tensor, log_prob: Tensor, rule: Rule, seed: int = 0) -> float:
    """Return the p-value of Neyman's smooth test that embedded draws follow a density.

    Forty random waves, as fine as the distribution is wide, have exact means and covariances by
    quadrature; the deviation of their sample means is a chi-square variable. Unlike the cells of a
    grid, waves are integrated as exactly as the density.

    References:
        | "Smooth" test for goodness of fit (Neyman, 1937)

    Args:
        draws: Draws in ambient coordinates, ``[draws, embed_dim]``.
        log_prob: Log-density at the nodes of the rule.
        rule: Nodes in ambient coordinates, and weights.
        seed: Seed of the frequencies.
    """
    nodes, weights = rule
    mass = (log_prob.exp() * weights).unsqueeze(-1)
    centre = (mass * nodes).sum(0)
    width = (mass * (nodes - centre).square()).sum(0).clamp(min=1e-12).sqrt()
    generator = torch.Generator().manual_seed(seed)
    frequencies = 1.5 * torch.randn(nodes.shape[-1], 40, generator=generator, dtype=nodes.dtype)
    phases = 2 * math.pi * torch.rand(40, generator=generator, dtype=nodes.dtype)

    def waves(a: Tensor) -> Tensor:
        return ((a - centre) / width @ frequencies + phases).cos()

    at_nodes = waves(nodes)
    expected = (mass * at_nodes).sum(0)
    centred = at_nodes - expected
    variances, axes = torch.linalg.eigh(centred.mT @ (mass * centred))
    # Directions in which the waves hardly vary would test rounding.
    kept = variances > 1e-4 * variances[-1]
    deviation = (waves(draws.to(nodes.dtype)).mean(0) - expected) @ axes[:, kept]
    chi_square = len(draws) * (deviation.square() / variances[kept]).sum()
    return float(torch.special.gammaincc(kept.sum().to(nodes.dtype) / 2, chi_square / 2))
