"""Laws of densities and draws: mass, fit, symmetry, limits and extremes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from pyro_manifolds.testing.cases import Case
from pyro_manifolds.testing.quadrature import total
from pyro_manifolds.testing.statistics import assert_mean, smooth_test

__all__ = [
    "check_continuity_across_seams",
    "check_deck_invariance",
    "check_extremes",
    "check_fibre_sum",
    "check_gaussian_limit",
    "check_goodness_of_fit",
    "check_independence_of_the_lift",
    "check_mean",
    "check_normalisation",
    "check_uniform_limit",
]


def _rule(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    assert case.quadrature is not None
    return case.quadrature(dtype)


def check_normalisation(case: Case, dtype: torch.dtype) -> None:
    """The density integrates to one over the manifold."""
    nodes, weights = _rule(case, dtype)
    mass = total(case.make(dtype).log_prob(nodes).double().exp(), weights.double())
    # float32 rounds the nodes, which moves the density by its slope: a few 1e-6 of the whole.
    atol = (1e-10 if dtype == torch.float64 else 2e-5) + case.quadrature_error
    assert abs(mass.item() - 1) <= atol, f"expected a mass of 1, got 1 + {mass.item() - 1:.2e}"


def check_goodness_of_fit(case: Case, dtype: torch.dtype, size: int = 20_000) -> None:
    """Draws follow the density, and would not if the strength were off by a tenth."""
    nodes, weights = _rule(case, torch.float64)
    rule = case.manifold.embed(nodes), weights
    log_prob = case.make(torch.float64).log_prob(nodes)
    p_value = smooth_test(case.manifold.embed(case.points(dtype, size)), log_prob, rule)
    assert p_value > 1e-4, f"the draws do not follow the density: p = {p_value:.1e}"
    if case.wrong:
        params = case.parameters(dtype)
        scaled = {name: params[name] * factor for name, factor in case.wrong.items()}
        wrong = case.make(dtype, **{k: v.tolist() for k, v in scaled.items()}).sample((size,))
        p_value = smooth_test(case.manifold.embed(wrong), log_prob, rule)
        assert p_value < 1e-6, f"a wrong strength of the draws goes unnoticed: p = {p_value:.1e}"


def check_mean(case: Case, dtype: torch.dtype) -> None:
    """The mean squared distance is stationary at ``mean``."""
    nodes, weights = _rule(case, dtype)
    d = case.make(dtype)
    assert bool(case.manifold.contains(d.mean).all()), "the mean is not on the manifold"
    pull = case.manifold.logmap(d.mean.expand_as(nodes), nodes)
    moment = total(
        pull * d.log_prob(nodes).exp().reshape((-1,) + (1,) * (pull.dim() - 1)), weights
    )
    # Directions are cut where the mass is below 1e-8.
    assert_close(moment, torch.zeros_like(moment), atol=1e-7, rtol=0)


def check_deck_invariance(case: Case, dtype: torch.dtype) -> None:
    """Every representative of a point has the same density."""
    d, x = case.make(dtype), case.points(dtype, 100)
    # A representative is off by its rounding, times the slope of the density.
    slope = _slopes(case, dtype, x)
    for move in case.deck:
        y = move(x)
        bound = (1e-14 if dtype == torch.float64 else 4e-6) * (100 + slope)
        for image in (y, move(y)):
            off = (d.log_prob(image) - d.log_prob(x)).abs()
            assert bool((off <= bound).all()), f"the density changes by {off.max():.1e}"


def check_independence_of_the_lift(case: Case, dtype: torch.dtype) -> None:
    """The distribution is a function of the point ``loc``, not of its representative."""
    x = case.points(dtype, 100)
    expected = case.make(dtype).log_prob(x)
    for move in case.deck:
        params = case.parameters(dtype)
        params["loc"] = move(params["loc"])
        bound = (1e-14 if dtype == torch.float64 else 1e-5) * (100 + _slopes(case, dtype, x))
        off = (case.build(**params).log_prob(x) - expected).abs()
        assert bool((off <= bound).all()), f"another lift of loc changes it by {off.max():.1e}"


def _slopes(case: Case, dtype: torch.dtype, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (slope,) = (
        torch.autograd.grad(
            case.make(dtype).log_prob(x).sum(), x, materialize_grads=True, allow_unused=True
        )
        if case.params
        else (torch.zeros_like(x),)
    )
    return slope.detach().abs().reshape(len(x), -1).sum(-1)


def check_continuity_across_seams(case: Case, dtype: torch.dtype, steps: int = 3000) -> None:
    """Along geodesics that cross the seams of the coordinates the density does not jump."""
    manifold = case.manifold
    x = manifold.projx(case.points(dtype, 6))
    u = manifold.proju(x, torch.randn_like(x))
    times = torch.linspace(0, 8, steps, dtype=dtype).reshape((-1,) + (1,) * x.dim())
    path = manifold.expmap(x.expand(steps, *x.shape), times * u)
    jumps = (path[1:] - path[:-1]).abs().reshape(steps - 1, 6, -1).amax(-1)
    crosses = jumps > 20 * jumps.median(0).values
    assert bool(crosses.any()) or not case.deck, "no geodesic crosses a seam"
    log_prob = case.make(dtype).log_prob(path)
    smooth = log_prob - torch.nn.functional.pad(log_prob, (0, 0, 1, 0))[:-1]
    change = smooth[1:].abs()
    # The steps of a continuous function at a seam are like their neighbours.
    before, after = change.roll(1, 0), change.roll(-1, 0)
    bound = 3 * torch.maximum(before, after) + 100 * change[~crosses].mean() / steps + 1e-9
    excess = (change - bound)[1:-1][crosses[1:-1]]
    assert bool((excess <= 0).all()), f"log_prob jumps by {change[crosses].max():.2e} at a seam"


def check_uniform_limit(case: Case, dtype: torch.dtype) -> None:
    """At the weakest strength the density is one over the volume."""
    assert case.uniform is not None
    x = case.points(dtype, 100)
    found = case.make(dtype, **case.uniform).log_prob(x)
    expected = torch.full_like(found, -math.log(case.manifold.volume))
    assert_close(found, expected, atol=1e-12 if dtype == torch.float64 else 2e-6, rtol=0)


def check_gaussian_limit(case: Case, dtype: torch.dtype) -> None:
    """At great strength, draws and density are normal in the tangent space at the location."""
    assert case.gaussian is not None
    s, dim = 1e-3, case.intrinsic_dim
    d = case.make(dtype, **case.gaussian(s))
    y = d.sample((4000,))
    squares = case.manifold.dist(d.mode.expand_as(y), y) / s
    squares = squares.double().square()
    normal = -0.5 * squares - dim * (0.5 * math.log(2 * math.pi) + math.log(s))
    # Curvature enters in the square of the deviation, float32 rounds angles to 1e-4 of it.
    typical = squares < 4 * dim + 10
    atol = 2e-4 if dtype == torch.float64 else 1e-2
    assert_close(d.log_prob(y).double()[typical], normal[typical], atol=atol, rtol=0)
    assert_mean(squares, torch.tensor(float(dim)), floor=1e-3, what="mean squared distance")
    assert_mean((squares > dim).double(), _upper_tail(dim), floor=1e-3, what="share of the tail")


def _upper_tail(dim: int) -> Tensor:
    """Return the probability that a chi-square variable exceeds its mean."""
    half = torch.tensor(dim / 2, dtype=torch.float64)
    return torch.special.gammaincc(half, half)


def check_extremes(case: Case, dtype: torch.dtype) -> None:
    """From the smallest to the largest strength, draws, densities and gradients are finite."""
    anywhere = case.points(dtype, 200)
    for name, extremes in case.extremes.items():
        for extreme in extremes:
            overrides: dict[str, Any] = {name: extreme}
            params = case.parameters(dtype, (200,), **overrides)
            leaves = [value.requires_grad_() for value in params.values()]
            d = case.build(**params)
            own = d.rsample()
            fixed = [v.detach().clone().requires_grad_() for v in (own, anywhere)]
            for value in (own, d.log_prob(own), *map(d.log_prob, fixed)):
                assert bool(value.isfinite().all()), f"value at {name} = {extreme:g} is not finite"
                parts = torch.view_as_real(value) if value.is_complex() else value
                gradients = torch.autograd.grad(
                    parts.sum(), leaves + fixed, retain_graph=True, allow_unused=True
                )
                for gradient in gradients:
                    assert gradient is None or bool(gradient.isfinite().all()), (
                        f"a gradient at {name} = {extreme:g} is not finite"
                    )


def check_fibre_sum(case: Case, dtype: torch.dtype) -> None:
    """The density is the sum of that on the cover over the fibre, listed without cleverness."""
    assert case.orbit is not None
    assert case.base is not None
    for scale in case.fibre_scales or (None,):
        overrides: dict[str, Any] = {} if scale is None else {"scale": scale}
        d = case.make(dtype, **overrides)
        y = d.sample((4,))
        base = case.base(**case.parameters(dtype, **overrides), validate_args=False)
        largest = case.parameters(dtype, **overrides).get("scale", torch.ones(1)).max()
        terms = base.log_prob(case.orbit(y, case.reach(float(largest))))
        # Distances are rounded, and count in units of the scale.
        rounding = 1e-14 / (scale or 1.0)
        assert_close(d.log_prob(y), terms.logsumexp(0), atol=1e-11 + 40 * rounding, rtol=0)
