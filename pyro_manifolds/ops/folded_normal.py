"""What folding a normal variable at zero saves of its divergence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_manifolds.ops.function import apply

__all__ = ["folding_loss"]

_CERTAIN = 20.0  # ratio from which on the sign is certain, in either dtype
_ROOT_TAU = math.sqrt(2 * math.pi)


def folding_loss(ratio: Tensor) -> Tensor:
    r"""Expected logarithm of 1 plus the density at -u relative to that at u, for u normal.

    For :math:`u \sim N(a, 1)` it is :math:`E \log(1 + e^{-2 a u})`: from :math:`\log 2` at
    :math:`a = 0`, where the sign is a fair coin, down to 0, where it is certain. For negative u
    the logarithm is split as :math:`\log(1 + e^x) = x + \log(1 + e^{-x})`. The linear part has a
    closed form; the rest is smooth on the half-line, so that Gauss nodes for the weight
    :math:`e^{-w^2/2}` converge fast: 10 to 4e-8, as float32 needs, and 24 to 1e-12 for float64.

    Args:
        ratio: Ratio a of location and scale.

    Example:
        >>> from pyro_manifolds.ops.folded_normal import folding_loss
        >>> folding_loss(torch.tensor([0.0, 1.0, 3.0]))
        tensor([0.6931, 0.3563, 0.0038])
    """
    if torch.is_grad_enabled() and ratio.requires_grad:
        return apply(_FoldingLoss, ratio)[0]
    return _loss_and_slope(ratio)[0]


class _FoldingLoss(torch.autograd.Function):
    """Loss that finds its slope in the same pass: a tenth of what autograd takes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(ratio: Tensor) -> tuple[Tensor, Tensor]:
        return _loss_and_slope(ratio)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *unused: None) -> Tensor | None:
        if grad is None:
            return None
        ratio, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            slope = _loss_and_slope(ratio)[1]
        return grad * slope


def _loss_and_slope(ratio: Tensor) -> tuple[Tensor, Tensor]:
    negative = ratio < 0
    a = torch.where(negative, -ratio, ratio).clamp(max=_CERTAIN)  # of slope 1 at zero, unlike abs
    half = 0.5 * a.square()
    density, tail = torch.exp(-half) / _ROOT_TAU, torch.special.ndtr(-a)
    loss = 2 * a * (density - a * tail)
    slope = 2 * density - 4 * a * tail
    for node, weight in _FINE if ratio.dtype == torch.float64 else _COARSE:
        near = weight * torch.exp(node * a - half)
        other = torch.exp(-2 * node * a)
        log, both = torch.log1p(other), 1 + other
        loss = loss + near * both * log
        slope = slope + near * (((node - a) * both - 2 * node * other) * log - 2 * node * other)
    return loss, torch.where(negative, -slope, slope)


def _half_line_rule(size: int) -> list[tuple[float, float]]:
    """Gauss nodes and weights for the normal density on w > 0, by Stieltjes' recursion."""
    x, weight = np.polynomial.legendre.leggauss(400)
    x, weight = 8 * (x + 1), 8 * weight
    weight = weight * np.exp(-0.5 * x**2) / _ROOT_TAU
    before, now = np.zeros_like(x), np.full_like(x, weight.sum() ** -0.5)
    diagonal, beside = [], [0.0]
    for _ in range(size):
        diagonal.append((weight * x * now**2).sum())
        after = (x - diagonal[-1]) * now - beside[-1] * before
        beside.append(np.sqrt((weight * after**2).sum()))
        before, now = now, after / beside[-1]
    jacobi = np.diag(diagonal) + np.diag(beside[1:-1], 1) + np.diag(beside[1:-1], -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    weights = weight.sum() * vectors[0] ** 2
    return list(zip(nodes.tolist(), weights.tolist(), strict=True))


_COARSE, _FINE = _half_line_rule(10), _half_line_rule(24)
