"""Laws of inference: every case as a latent site of a Pyro model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import (
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.inspect import get_model_relations
from pyro.optim.pytorch_optimizers import Adam  # type: ignore[attr-defined]
from torch import Tensor
from torch.distributions import biject_to, transform_to
from torch.testing import assert_close

from pyro_manifolds.distributions import covering_kl_bound
from pyro_manifolds.infer.reparam import CoveringReparam
from pyro_manifolds.testing.cases import Case

__all__ = [
    "check_cover_bound_is_looser",
    "check_elbo_is_below_the_evidence",
    "check_jit_elbo",
    "check_own_guide_is_exact",
    "check_parameters_on_the_support",
    "check_plates",
    "check_predictive",
    "check_relations",
]

Program = Callable[..., Any]


def _programs(
    prior: TorchDistribution, guide: TorchDistribution, case: Case
) -> tuple[Program, Program]:
    """Return a model that sees embedded points through noise, and a guide without parameters."""

    def model(x: Tensor | None = None) -> None:
        z = pyro.sample("z", prior)
        noisy = dist.Normal(case.manifold.embed(z), 1.0).to_event(1)
        if x is not None:
            pyro.sample("x", noisy, obs=x)

    def guided(x: Tensor | None = None) -> None:
        pyro.sample("z", guide)

    return model, guided


def _datum(case: Case, dtype: torch.dtype) -> Tensor:
    return torch.linspace(-0.5, 1.0, case.manifold.embed_dim, dtype=dtype)


def check_own_guide_is_exact(case: Case, dtype: torch.dtype) -> None:
    """Without data, the prior as its own guide makes a bound of exactly zero."""
    d = case.make(dtype)
    model, guide = _programs(d, d, case)
    for elbo in (Trace_ELBO(), TraceGraph_ELBO(), TraceMeanField_ELBO()):
        loss = elbo.loss(model, guide)
        assert abs(loss) < (1e-9 if dtype == torch.float64 else 1e-5), f"{elbo}: {loss}"


def check_elbo_is_below_the_evidence(case: Case, dtype: torch.dtype) -> None:
    """Minus the ELBO is minus the log-evidence plus the divergence to the posterior.

    Without and with data, by quadrature: no estimator claims more than the evidence.
    """
    assert case.quadrature is not None
    nodes, weights = case.quadrature(torch.float64)
    prior, guide = case.make(torch.float64), case.make_other(torch.float64)
    programs = _programs(case.make(dtype), case.make_other(dtype), case)
    for datum in (None, _datum(case, dtype)):
        log_joint = prior.log_prob(nodes)
        if datum is not None:
            noisy = dist.Normal(case.manifold.embed(nodes), 1.0).to_event(1)
            log_joint = log_joint + noisy.log_prob(datum.double())
        log_evidence = (log_joint + weights.log()).logsumexp(0)
        log_q = guide.log_prob(nodes)
        expected = (weights * log_q.exp() * (log_q - log_joint)).sum()
        assert expected >= -log_evidence - 1e-8
        for kind in (Trace_ELBO, TraceMeanField_ELBO):
            elbo = kind(num_particles=500, vectorize_particles=True)
            losses = torch.tensor([elbo.loss(*programs, datum) for _ in range(8)])
            # Eight means of 500: their own spread is known to a third, hence the wider bound.
            error = 10 * losses.std() / math.sqrt(8) + 1e-4
            off = losses.mean() - expected
            assert off.abs() <= error, (
                f"{kind.__name__}: expected {expected:.4f}, got {losses.mean():.4f}; "
                f"minus the log-evidence is {-log_evidence:.4f}"
            )


def check_cover_bound_is_looser(case: Case, dtype: torch.dtype) -> None:
    """Moved to the cover, the bound is the divergence there, and never the tighter one."""
    prior, guide = case.make(dtype), case.make_other(dtype)
    model, guided = _programs(prior, guide, case)
    reparam = CoveringReparam()
    lifted = poutine.reparam(model, reparam), poutine.reparam(guided, reparam)
    bound = covering_kl_bound(guide, prior)
    _compare_with_cover(case, dtype, (model, guided), lifted, bound)


def _compare_with_cover(
    case: Case,
    dtype: torch.dtype,
    plain: tuple[Program, Program],
    lifted: tuple[Program, Program],
    bound: Tensor,
) -> None:
    on_cover = TraceMeanField_ELBO().loss(*lifted)
    assert_close(torch.tensor(on_cover).to(dtype), bound, rtol=1e-5, atol=1e-5)
    for datum in (None, _datum(case, dtype)):
        losses = []
        for pair in (plain, lifted):
            elbo = TraceMeanField_ELBO(num_particles=500, vectorize_particles=True)
            losses.append(torch.tensor([elbo.loss(*pair, datum) for _ in range(8)]))
        error = 10 * torch.stack(losses).std(-1).sum() / math.sqrt(8) + 1e-4
        assert losses[0].mean() <= losses[1].mean() + error, "the cover gives the tighter bound"


def check_plates(case: Case, dtype: torch.dtype) -> None:
    """Local latents in a subsampled plate train, with particles vectorised or not."""
    data = _datum(case, dtype).expand(6, -1)

    def model(data: Tensor) -> None:
        with pyro.plate("data", 6, subsample_size=3) as index:
            z = pyro.sample("z", case.make(dtype))
            noisy = dist.Normal(case.manifold.embed(z), 1.0).to_event(1)
            pyro.sample("x", noisy, obs=data[index])

    def guide(data: Tensor) -> None:
        start = case.parameters(dtype, (6,), **(case.other or {}))
        # Free numbers: the rows normalise, so that a parameter stays near where it started.
        params = {name: pyro.param(name, value) for name, value in start.items()}
        with pyro.plate("data", 6, subsample_size=3) as index:
            if params:
                chosen = {name: value[index] for name, value in params.items()}
                pyro.sample("z", case.build(**chosen))
            else:
                pyro.sample("z", case.make(dtype))

    for elbo in (Trace_ELBO(), Trace_ELBO(num_particles=4, vectorize_particles=True)):
        pyro.clear_param_store()
        svi = SVI(model, guide, Adam({"lr": 1e-3}), elbo)
        losses = [svi.step(data) for _ in range(2)]
        assert all(map(math.isfinite, losses)), f"losses {losses}"
    trace = poutine.trace(model).get_trace(data)
    trace.compute_log_prob()
    assert trace.nodes["z"]["log_prob"].shape == (3,)
    # The plate scales what it subsamples.
    assert_close(trace.nodes["z"]["log_prob_sum"], 2 * trace.nodes["z"]["unscaled_log_prob"].sum())


def check_predictive(case: Case, dtype: torch.dtype) -> None:
    """``Predictive`` draws of the site are in the support, one by one and in parallel."""
    model, guide = _programs(case.make(dtype), case.make_other(dtype), case)
    for parallel in (False, True):
        draws = Predictive(model, guide=guide, num_samples=5, parallel=parallel)()["z"]
        assert draws.shape == (5,) + case.manifold.event_shape
        assert bool(case.support.check(draws).all())


def check_jit_elbo(case: Case, dtype: torch.dtype) -> None:
    """``JitTrace_ELBO`` gives the loss and the gradients of the plain one, on average."""
    datum = _datum(case, dtype)
    prior = case.make(dtype)

    def model() -> None:
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(case.manifold.embed(z), 1.0).to_event(1), obs=datum)

    def guide() -> None:
        start = case.parameters(dtype, **(case.other or {}))
        params = {name: pyro.param(name, value) for name, value in start.items()}
        pyro.sample("z", case.build(**params))

    results = []
    particles: dict[str, Any] = {"num_particles": 100, "vectorize_particles": True}
    for elbo in (Trace_ELBO(**particles), JitTrace_ELBO(ignore_jit_warnings=True, **particles)):
        pyro.clear_param_store()
        steps = []
        for _ in range(8):
            for _, value in pyro.get_param_store().named_parameters():
                value.grad = None
            loss = torch.tensor(elbo.loss_and_grads(model, guide), dtype=dtype)
            leaves = [value for _, value in pyro.get_param_store().named_parameters()]
            gradients = [leaf.grad.reshape(-1) for leaf in leaves if leaf.grad is not None]
            assert len(gradients) == len(case.params)
            steps.append(torch.cat([loss.reshape(1), *gradients]))
        results.append(torch.stack(steps))
    plain, jit = results
    # The compiled graph may draw in another order, so that only averages agree; the spread of
    # eight means is itself known to a third.
    error = 10 * torch.maximum(plain.std(0), jit.std(0)) / 2 + 1e-4
    off = (plain.mean(0) - jit.mean(0)).abs()
    assert bool((off <= error).all()), f"expected {plain.mean(0)}, got {jit.mean(0)}"


def check_relations(case: Case, dtype: torch.dtype) -> None:
    """The structure of a model with the site is found without running it in vain."""
    model, _ = _programs(case.make(dtype), case.make_other(dtype), case)
    relations = get_model_relations(model, (_datum(case, dtype),))
    assert relations["sample_sample"] == {"z": [], "x": ["z"]}
    assert relations["observed"] == ["x"]


def check_parameters_on_the_support(case: Case, dtype: torch.dtype) -> None:
    """``transform_to`` reaches the support from zero; ``biject_to`` names what to do instead."""
    d = case.make(dtype)
    if case.manifold.support != d.support:
        return  # the registrations of another library
    transform = transform_to(d.support)
    ambient = transform.inverse_shape(d.event_shape)
    feasible = transform(torch.zeros(ambient, dtype=dtype))
    assert feasible.shape == d.event_shape
    assert bool(d.support.check(feasible).all())
    start = d.sample()
    param = pyro.param("point", start, constraint=d.support)
    assert bool(case.manifold.equivalent(param.detach(), start, atol=1e-5).all())
    assert bool(d.support.check(param).all())
    if case.manifold.is_compact:
        message = "no error, but a compact manifold has no bijection from the reals"
        try:
            biject_to(d.support)
        except NotImplementedError as error:
            message = str(error)
        assert "ManifoldReparam" in message, message
        assert "AutoWrappedNormal" in message, message
