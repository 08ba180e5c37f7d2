"""Laws of divergences and entropies."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_manifolds.distributions import covering_kl_bound, covering_kl_estimate
from pyro_manifolds.testing.cases import Case
from pyro_manifolds.testing.quadrature import total
from pyro_manifolds.testing.statistics import assert_mean

__all__ = [
    "check_entropy",
    "check_kl",
    "check_kl_bound",
    "check_kl_estimate",
]


def _kl_by_quadrature(case: Case, q: TorchDistribution, p: TorchDistribution) -> Tensor:
    assert case.quadrature is not None
    nodes, weights = case.quadrature(torch.float64)
    log_q = q.log_prob(nodes)
    return total(log_q.exp() * (log_q - p.log_prob(nodes)), weights)


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-8 if dtype == torch.float64 else 2e-5


def check_entropy(case: Case, dtype: torch.dtype) -> None:
    """The entropy is minus the integral of p log p."""
    assert case.quadrature is not None
    nodes, weights = case.quadrature(torch.float64)
    log_p = case.make(torch.float64).log_prob(nodes)
    exact = -total(log_p.exp() * log_p, weights)
    found = case.make(dtype).entropy()
    assert_close(found.double(), exact, atol=_tolerance(dtype), rtol=0)


def check_kl(case: Case, dtype: torch.dtype) -> None:
    """The registered divergence is that by quadrature, not negative, and zero to itself."""
    assert case.kl is not None
    for overrides in ({}, case.other or {}):
        q = case.make(dtype, **overrides)
        p = case.kl(dtype)
        exact = _kl_by_quadrature(
            case, case.make(torch.float64, **overrides), case.kl(torch.float64)
        )
        found = kl_divergence(q, p)
        assert found.shape == q.batch_shape
        assert found.dtype == dtype
        assert found >= -_tolerance(dtype) / 100
        assert_close(found.double(), exact, atol=_tolerance(dtype), rtol=0)
        batched = kl_divergence(q.expand((3, 2)), p)
        assert_close(batched, found.expand(3, 2))
        if not case.kl_adds:
            continue
        q2, p2 = (d.expand((3, 2)).to_event(1) for d in (q, p))
        assert_close(kl_divergence(q2, p2), batched.sum(-1))


def check_kl_bound(case: Case, dtype: torch.dtype) -> None:
    """The divergence on the cover is at least the one on the manifold."""
    assert case.kl_bound is not None
    for overrides in ({}, case.other or {}):
        q = case.make(dtype, **overrides)
        bound = covering_kl_bound(q, case.kl_bound(dtype))
        exact = _kl_by_quadrature(
            case, case.make(torch.float64, **overrides), case.kl_bound(torch.float64)
        )
        assert bound.shape == q.batch_shape
        assert bound.double() >= exact - _tolerance(dtype), f"{bound} is below {exact}"


def check_kl_estimate(case: Case, dtype: torch.dtype, size: int = 20_000) -> None:
    """The estimate of the divergence is unbiased, and so is its gradient."""
    assert case.kl_estimate is not None
    leaves = case.parameters(torch.float64, requires_grad=True)
    exact = _kl_by_quadrature(case, case.build(**leaves), case.kl_estimate(torch.float64))
    slopes = torch.autograd.grad(exact, list(leaves.values()))
    params = case.parameters(dtype, (size,), requires_grad=True)
    draws = covering_kl_estimate(case.build(**params), case.kl_estimate(dtype))
    # Draws in the tails are rare, and all that a narrow distribution varies by.
    assert_mean(draws, exact, floor=1e-6 + _tolerance(dtype), what="divergence")
    found = torch.autograd.grad(draws.sum(), list(params.values()))
    for name, gradient, slope in zip(params, found, slopes, strict=True):
        assert_mean(gradient, slope, floor=1e-4, what=f"gradient by {name}")
