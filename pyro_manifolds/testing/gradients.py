"""Laws of gradients, and of torch's transformations of functions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from pyro.ops.provenance import detach_provenance, get_provenance, track_provenance
from torch import Tensor
from torch.testing import assert_close

from pyro_manifolds.testing.cases import Case
from pyro_manifolds.testing.quadrature import total
from pyro_manifolds.testing.statistics import assert_mean

__all__ = [
    "check_compile",
    "check_jit_trace",
    "check_log_prob_gradient",
    "check_pathwise_gradient",
    "check_recorded_tensors",
    "check_vmap",
]


def check_pathwise_gradient(case: Case, dtype: torch.dtype, size: int = 100_000) -> None:
    """Gradients of expectations through draws are, on average, those by quadrature.

    Without ``has_rsample``, draws must carry no gradient at all.
    """
    assert case.quadrature is not None
    nodes, weights = case.quadrature(torch.float64)
    exact = case.parameters(torch.float64, requires_grad=True)
    density = case.build(**exact).log_prob(nodes).exp()
    names = list(exact)
    expected = torch.autograd.grad(
        total(density * _wave(case.manifold.embed(nodes)), weights),
        [exact[name] for name in names],
    )
    params = case.parameters(dtype, (size,), requires_grad=True)
    d = case.build(**params)
    if not d.has_rsample:
        assert not d.sample().requires_grad, "draws carry gradients without has_rsample"
        return
    f = _wave(case.manifold.embed(d.rsample()))
    found = torch.autograd.grad(f.sum(), [params[name] for name in names])
    floor = 1e-9 if dtype == torch.float64 else 1e-5
    for name, draws, mean in zip(names, found, expected, strict=True):
        assert_mean(draws, mean, floor=floor, what=f"gradient by {name}")


def _wave(a: Tensor) -> Tensor:
    """Return a smooth function of ambient points without symmetry."""
    k = torch.arange(a.shape[-1], dtype=a.dtype, device=a.device)
    return (
        (0.9 * a * (1.7 * k + 0.4).cos() + 0.3 * a.square() * (k + 1).sin()).sum(-1).add(0.5).sin()
    )


def _density(case: Case) -> Callable[..., Tensor]:
    """Return the density as a function of the value and the parameters, and without checks."""

    def log_prob(value: Tensor, *params: Tensor) -> Tensor:
        named = dict(zip(case.params, params, strict=True))
        if not named:
            return case.build(dtype=value.dtype, validate_args=False).log_prob(value)
        return case.build(**named, validate_args=False).log_prob(value)

    return log_prob


def _arguments(case: Case, dtype: torch.dtype, size: int, grad: bool = True) -> list[Tensor]:
    value = case.points(dtype, size).requires_grad_(grad)
    return [value, *case.parameters(dtype, (size,), requires_grad=grad).values()]


def check_log_prob_gradient(case: Case, dtype: torch.dtype) -> None:
    """Derivatives of the density by value and parameters agree with finite differences."""
    assert torch.autograd.gradcheck(
        _density(case), _arguments(case, dtype, 3), atol=1e-5, rtol=1e-4
    )


def check_recorded_tensors(case: Case, dtype: torch.dtype) -> None:
    """Tensors that record their origin, as in ``TraceGraph_ELBO``, keep their gradients."""
    params = case.parameters(dtype, requires_grad=True)
    x = case.points(dtype, 3).requires_grad_()
    leaves = [x, *params.values()]
    recorded = [track_provenance(leaf, frozenset({"site"})) for leaf in leaves]
    plain = case.build(**params).log_prob(x)
    d = case.build(**dict(zip(params, recorded[1:], strict=True)))
    found = d.log_prob(recorded[0])
    assert get_provenance(found), "the density forgets where its arguments come from"
    results = [
        torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        for value in (plain, detach_provenance(found))
    ]
    for name, expected, gradient in zip(("value", *params), *results, strict=True):
        assert (gradient is None) == (expected is None), f"no gradient by {name}"
        if expected is not None:
            assert_close(gradient, expected)


def check_vmap(case: Case, dtype: torch.dtype) -> None:
    """Mapped over a batch, the density and its gradient are the batched ones."""
    log_prob, arguments = _density(case), _arguments(case, dtype, 4)
    expected = log_prob(*arguments)
    gradients = torch.autograd.grad(
        expected.sum() + 0 * arguments[0].real.sum(), arguments, materialize_grads=True
    )
    fixed = [argument.detach() for argument in arguments]
    assert_close(torch.vmap(log_prob)(*fixed), expected.detach())
    numbers = tuple(range(len(fixed)))
    mapped = torch.vmap(torch.func.grad(log_prob, argnums=numbers))(*fixed)
    for found, gradient in zip(mapped, gradients, strict=True):
        assert_close(found, gradient)


def check_compile(case: Case, dtype: torch.dtype, backend: str = "aot_eager") -> None:
    """The density compiles, forward and backward, and gives the same; to one graph if it can.

    Compiling switches validation off for the whole process; the caller restores it.
    """
    torch._dynamo.reset()
    log_prob = _density(case)
    arguments = _arguments(case, dtype, 4, grad=bool(case.params))
    compiled = torch.compile(log_prob, fullgraph=case.compiles, backend=backend)
    found, expected = compiled(*arguments), log_prob(*arguments)
    assert_close(found, expected)
    if case.params:
        pairs = zip(
            torch.autograd.grad(found.sum(), arguments),
            torch.autograd.grad(expected.sum(), arguments),
            strict=True,
        )
        for gradient, same in pairs:
            # Fused operations round otherwise.
            assert_close(gradient, same, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=1e-6)


def check_jit_trace(case: Case, dtype: torch.dtype) -> None:
    """A traced density gives, at other values, what the density gives."""
    log_prob = _density(case)
    arguments = _arguments(case, dtype, 4, grad=False)
    with warnings.catch_warnings():
        # Shapes become constants of the trace, as they are meant to.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", ".torch.jit", DeprecationWarning)
        traced = torch.jit.trace(log_prob, arguments, check_trace=False)
    others = _arguments(case, dtype, 4, grad=False)
    assert_close(traced(*others), log_prob(*others))
    assert math.isfinite(float(traced(*others).sum()))
