"""Logarithms of mixtures whose components depend on the square of one projection each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_manifolds.ops.function import apply

__all__ = ["log_square_mixture"]

# Numbers in a block of rows times nodes: 256 kB in float32, which stays in the cache.
_BLOCK = 65536


def log_square_mixture(x: Tensor, nodes: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    r"""Return :math:`\log \sum_n \exp(o_n + g_n (x \cdot f_n)^2)`.

    What a mixture of normal distributions of covariance :math:`c_n f_n f_n^\top + I` comes to.
    The derivative by ``x`` shares its terms with the value and costs little more.

    Args:
        x: Vectors, shape ``batch + (d,)``.
        nodes: Vectors :math:`f_n`, shape ``(n, d)``.
        gain: Numbers :math:`g_n \ge 0`, shape ``(n,)``, or more that broadcasts with ``batch``.
        offset: Numbers :math:`o_n`, likewise.

    Returns:
        Shape ``batch``, broadcast with those of ``gain`` and ``offset``.

    Example:
        >>> from pyro_manifolds.ops.square_mixtures import log_square_mixture
        >>> x, one, zero = torch.tensor([1.0, 2.0]), torch.ones(2), torch.zeros(2)
        >>> log_square_mixture(x, torch.eye(2), one, zero)
        tensor(4.0486)
    """
    if gain.dim() > 1 or offset.dim() > 1:
        return _log_mixture(x, nodes, gain, offset)
    return apply(_LogMixture, x, nodes, gain, offset)[0]


def _log_mixture(x: Tensor, nodes: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    return torch.logsumexp(torch.addcmul(offset, (x @ nodes.mT).square(), gain), -1)


class _LogMixture(torch.autograd.Function):
    """Value and derivative by ``x`` in one go; the other derivatives are left to autograd."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, nodes: Tensor, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.reshape(-1, x.shape[-1])
        nodes = nodes * gain.sqrt().unsqueeze(-1)
        parts = [_block(part, nodes, offset) for part in rows.split(_rows(rows, nodes))]
        value, slope = (torch.cat(results) for results in zip(*parts, strict=True))
        return value.reshape(x.shape[:-1]), slope.reshape(x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, unused: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        *inputs, slope = ctx.saved_tensors
        again = torch.is_grad_enabled()  # for second derivatives
        if not again and not any(ctx.needs_input_grad[1:]):
            return grad.unsqueeze(-1) * slope, None, None, None
        with torch.enable_grad():
            if not again:
                inputs = [tensor.detach().requires_grad_() for tensor in inputs]
            wanted = [i for i, needed in enumerate(ctx.needs_input_grad) if needed]
            found = torch.autograd.grad(
                _log_mixture(*inputs), [inputs[i] for i in wanted], grad, create_graph=again
            )
        results: list[Tensor | None] = [None] * 4
        for i, result in zip(wanted, found, strict=True):
            results[i] = result
        return tuple(results)


def _rows(rows: Tensor, nodes: Tensor) -> int:
    if torch.compiler.is_compiling() or rows.device.type != "cpu":
        return max(1, len(rows))
    return max(1, _BLOCK // len(nodes))


def _block(x: Tensor, nodes: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    projection = x @ nodes.mT
    terms = torch.addcmul(offset, projection, projection)
    top = terms.amax(-1, keepdim=True)
    terms = terms.sub_(top).exp_()
    total = terms.sum(-1, keepdim=True)
    slope = (terms.mul_(projection) @ nodes) * (2 / total)
    return (total.log() + top).squeeze(-1), slope
