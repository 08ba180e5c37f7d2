"""Mixtures of normal distributions that differ from a standard one in one direction each."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_manifolds.ops.function import apply

__all__ = ["SquareMixture"]

# Numbers in a block of vectors times nodes: 256 kB in float32, which stays in the cache.
_BLOCK = 65536


class SquareMixture:
    r"""The function :math:`x \mapsto \log \sum_n \exp(o_n + g_n (x \cdot f_n)^2) - |x|^2 / 2`.

    Up to constants, the log-density of a mixture of normal distributions of covariance
    :math:`c_n f_n f_n^\top + I`. The :math:`f_n` are combinations of a few vectors, the basis.
    Squares are linear in the products of two coordinates in it: one matrix product and a softmax.

    Args:
        coordinates: The :math:`f_n` in the basis, without gradient, shape ``(n, m)``.
        basis: Shape ``(m, d)``.
        gain: Numbers :math:`g_n \ge 0`, shape ``(n,)``, or more that broadcasts with the batch.
        offset: Numbers :math:`o_n`, likewise.

    Example:
        >>> from pyro_manifolds.ops.square_mixtures import SquareMixture
        >>> mixture = SquareMixture(torch.eye(2), torch.eye(2), torch.ones(2), torch.zeros(2))
        >>> mixture(torch.tensor([1.0, 2.0]))  # log(e + e^4) - 5 / 2
        tensor(1.5486)
    """

    def __init__(self, coordinates: Tensor, basis: Tensor, gain: Tensor, offset: Tensor) -> None:
        self.coordinates, self.basis, self.gain, self.offset = coordinates, basis, gain, offset
        if self._is_shared:
            i, j = torch.triu_indices(*2 * [len(basis)], device=basis.device)
            self._first, self._second = basis[i].mT, basis[j].mT
            terms = torch.where(i == j, 1, 2) * coordinates[:, i] * coordinates[:, j]
            self._table = torch.cat([gain.unsqueeze(-1) * terms, offset.unsqueeze(-1)], -1)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the values at vectors ``batch + (d,)``, shape ``batch``."""
        if self._is_shared:
            keep = self._table.requires_grad
            return apply(_Mixed, x, self._first, self._second, self._table, keep)[0]
        squares = (x @ self.basis.mT @ self.coordinates.mT).square()
        mixed = torch.addcmul(self.offset, squares, self.gain).logsumexp(-1)
        return mixed - 0.5 * x.square().sum(-1)

    @property
    def _is_shared(self) -> bool:
        """Whether all vectors meet the same components."""
        return self.gain.dim() < 2 and self.offset.dim() < 2


class _Mixed(torch.autograd.Function):
    """Value and derivative by the vectors in one go, in ordinary backward passes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, first: Tensor, second: Tensor, table: Tensor, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.reshape(-1, x.shape[-1])
        a, b = flat @ first, flat @ second
        rows = pad(a * b, (0, 1), value=1.0)
        parts = [_block(part, table, keep) for part in rows.split(_block_size(rows, table))]
        mixed, mean, shares = (
            parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        )
        slope = torch.addmm(flat, mean * b, first.mT, beta=-1).addmm(mean * a, second.mT)
        value = mixed - 0.5 * flat.square().sum(-1)
        return value.reshape(x.shape[:-1]), slope.reshape(x.shape), shares

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.keep = inputs
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.save_for_forward(*tensors)
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        x, first, second, table, slope, shares = ctx.saved_tensors
        by_x, by_first, by_second, by_table, _ = ctx.needs_input_grad
        again = torch.is_grad_enabled()  # for second derivatives
        if again or by_first or by_second or (by_table and not ctx.keep):
            found = _derivatives(x, first, second, table, grad.unsqueeze(-1))
            pairs = zip(found, ctx.needs_input_grad, strict=False)
            return *(part if need else None for part, need in pairs), None
        grad = grad.unsqueeze(-1)
        table_grad = None
        if by_table:
            rows = pad((x @ first) * (x @ second), (0, 1), value=1.0)
            table_grad = shares.mT @ (grad * rows).reshape(-1, rows.shape[-1])
        return grad * slope if by_x else None, None, None, table_grad, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, None, None]:
        # Private, so asked for here: a torch without it still imports the package.
        from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

        levels = [level.key().name for level in retrieve_all_functorch_interpreters()]
        if levels.count("Jvp") > 1:  # torch would return a derivative of zero
            raise NotImplementedError(
                "SquareMixture: expected one forward derivative, got one of another; "
                "use torch.func.hessian, or jacrev within"
            )
        x, first, second, table = ctx.saved_tensors
        dx, d_first, d_second, d_table, _ = tangents
        a, b = x @ first, x @ second
        rows = pad(a * b, (0, 1), value=1.0)
        shares = (rows @ table.mT).softmax(-1)
        mean = shares @ table[:, :-1]
        value = x.new_zeros(x.shape[:-1])
        if dx is not None:
            value = (mean * ((dx @ first) * b + a * (dx @ second))).sum(-1) - (x * dx).sum(-1)
        if d_first is not None:
            value = value + (mean * (x @ d_first) * b).sum(-1)
        if d_second is not None:
            value = value + (mean * a * (x @ d_second)).sum(-1)
        if d_table is not None:
            value = value + (shares * (rows @ d_table.mT)).sum(-1)
        return value, None, None


# Torch asks for the signature at every call; found anew each time, it is a sixth of the cost.
_Mixed.forward.__signature__ = inspect.signature(_Mixed.forward)  # type: ignore[attr-defined]


def _block_size(rows: Tensor, table: Tensor) -> int:
    whole = torch.compiler.is_compiling() or rows.device.type != "cpu"
    return max(1, len(rows) if whole else _BLOCK // len(table))


def _block(rows: Tensor, table: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return logarithms of sums, the means of the rest of the table, and their weights."""
    terms = rows @ table.mT
    shares = terms.softmax(-1)
    # The largest share is that of the largest term: neither is lost to underflow.
    mixed = terms.amax(-1) - shares.amax(-1).log()
    return mixed, shares @ table[:, :-1], shares if keep else shares.new_empty(0)


def _derivatives(
    x: Tensor, first: Tensor, second: Tensor, table: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return derivatives by the inputs, in operations of which any derivative can be taken."""
    batch = x.shape
    x, grad = x.reshape(-1, batch[-1]), grad.reshape(-1, 1)
    a, b = x @ first, x @ second
    rows = pad(a * b, (0, 1), value=1.0)
    shares = grad * (rows @ table.mT).softmax(-1)
    mean = shares @ table[:, :-1]
    by_a, by_b = mean * b, mean * a
    by_x = by_a @ first.mT + by_b @ second.mT - grad * x
    return by_x.reshape(batch), x.mT @ by_a, x.mT @ by_b, shares.mT @ rows
