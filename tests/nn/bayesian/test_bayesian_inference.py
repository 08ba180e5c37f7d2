"""Pyro's algorithms on Bayesian nets, against the closed form of linear regression."""

import math
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from pyro_manifolds import AutoWrappedNormal
from pyro_manifolds.nn.bayesian import BayesianModule, init_to_weights, predict, regression

PRIOR, NOISE = 1.5, 0.4


class Regression(NamedTuple):
    """Linear regression, its posterior over (weights, bias) and its evidence."""

    model: BayesianModule
    net: nn.Module
    x: Tensor
    y: Tensor
    mean: Tensor
    covariance: Tensor
    evidence: Tensor


@pytest.fixture
def line():
    x = torch.randn(12, 3).double()
    design = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    truth = torch.tensor([1.0, -2.0, 0.5, 0.3]).double()
    y = design @ truth + NOISE * torch.randn(12).double()
    precision = design.T @ design / NOISE**2 + torch.eye(4).double() / PRIOR**2
    covariance = precision.inverse()
    marginal = NOISE**2 * torch.eye(12).double() + PRIOR**2 * design @ design.T
    net = nn.Linear(3, 1).double()
    return Regression(
        BayesianModule(net, default=dist.Normal(0.0, PRIOR), likelihood=regression(NOISE)),
        net,
        x,
        y[:, None],
        covariance @ design.T @ y / NOISE**2,
        covariance,
        MultivariateNormal(torch.zeros(12).double(), marginal).log_prob(y),
    )


def minimise(loss, parameters):
    optimiser = torch.optim.LBFGS(parameters, max_iter=200, tolerance_grad=1e-10)

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(3):
        optimiser.step(closure)


def exact_guide(line):
    guide = AutoMultivariateNormal(line.model)
    guide(line.x, line.y)
    tril = torch.linalg.cholesky(line.covariance)
    guide.loc = nn.Parameter(line.mean.clone())
    guide.scale = tril.diagonal().clone()
    guide.scale_tril = tril / tril.diagonal()[:, None]
    return guide


def test_map_is_the_posterior_mean(line):
    guide = AutoDelta(line.model, init_loc_fn=init_to_weights(line.net))
    elbo = Trace_ELBO()(line.model, guide)
    elbo(line.x, line.y)
    minimise(lambda: elbo(line.x, line.y), list(elbo.parameters()))
    found = guide.median()
    assert_close(torch.cat([found["weight"][0], found["bias"]]), line.mean, atol=1e-7, rtol=0)


def test_laplace_is_the_posterior(line):
    guide = AutoLaplaceApproximation(line.model, init_loc_fn=init_to_weights(line.net))
    elbo = Trace_ELBO()(line.model, guide)
    elbo(line.x, line.y)
    minimise(lambda: elbo(line.x, line.y), list(elbo.parameters()))
    laplace = guide.laplace_approximation(line.x, line.y)
    posterior = laplace.get_posterior()
    assert_close(posterior.mean, line.mean, atol=1e-7, rtol=0)
    assert_close(posterior.covariance_matrix, line.covariance, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("vectorize", [False, True])
def test_at_the_posterior_every_draw_bounds_the_evidence_exactly(line, vectorize):
    guide = exact_guide(line)
    elbo = Trace_ELBO(num_particles=3, vectorize_particles=vectorize, max_plate_nesting=1)
    loss = elbo.loss(line.model, guide, line.x, line.y)
    assert -loss == pytest.approx(float(line.evidence), rel=1e-9)


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("mean_field", [False, True])
def test_mean_field_misses_the_evidence_by_its_divergence(line, vectorize, mean_field):
    guide = AutoNormal(line.model)
    guide(line.x, line.y)
    best = line.covariance.inverse().diagonal().rsqrt()
    guide.locs.weight, guide.locs.bias = line.mean[None, :3].clone(), line.mean[3:].clone()
    guide.scales.weight, guide.scales.bias = best[None, :3].clone(), best[3:].clone()
    kind = TraceMeanField_ELBO if mean_field else Trace_ELBO
    particles = 2000 if vectorize else 10
    elbo = kind(num_particles=particles, vectorize_particles=vectorize, max_plate_nesting=1)
    with torch.no_grad():
        losses = torch.tensor([elbo.loss(line.model, guide, line.x, line.y) for _ in range(20)])
    q = MultivariateNormal(line.mean, torch.diag(best**2))
    gap = torch.distributions.kl_divergence(q, MultivariateNormal(line.mean, line.covariance))
    error = losses.std() / math.sqrt(20)
    assert abs(-losses.mean() - (line.evidence - gap)) < 4 * error
    assert gap > 0


@pytest.mark.parametrize(
    "kind",
    [
        AutoNormal,
        AutoDiagonalNormal,
        AutoMultivariateNormal,
        AutoLowRankMultivariateNormal,
        AutoWrappedNormal,
    ],
)
def test_guides_train_towards_the_evidence_and_not_beyond(line, kind):
    guide = kind(line.model, init_loc_fn=init_to_weights(line.net))
    elbo = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(line.model, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    first = elbo.loss(line.model, guide, line.x, line.y)
    for _ in range(30):
        svi.step(line.x, line.y)
    many = Trace_ELBO(num_particles=500, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        last = [many.loss(line.model, guide, line.x, line.y) for _ in range(4)]
    assert sum(last) / 4 < first
    assert -sum(last) / 4 < line.evidence + 4 * torch.tensor(last).std() / 2


@pytest.mark.parametrize("size", [12, 5])
def test_jit_agrees_for_every_batch_size(line, size):
    model = BayesianModule(
        line.net, default=dist.Normal(0.0, PRIOR), likelihood=regression(NOISE), data_size=12
    )
    guide = AutoDelta(model, init_loc_fn=init_to_weights(line.net))
    jit = JitTrace_ELBO(ignore_jit_warnings=True)
    for x, y in zip(line.x.split(size), line.y.split(size), strict=True):
        expected = Trace_ELBO().loss(model, guide, x, y)
        # What is compiled is the differentiable loss, not loss().
        compiled = jit.differentiable_loss(model, guide, x, y)
        assert compiled.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_nuts_finds_the_posterior(jit_compile):
    x = torch.linspace(-1, 1, 10).double()[:, None]
    y = 2 * x + 0.5 + NOISE * torch.randn(10, 1).double()
    design = torch.cat([x, torch.ones_like(x)], 1)
    covariance = (design.T @ design / NOISE**2 + torch.eye(2).double() / PRIOR**2).inverse()
    mean = covariance @ design.T @ y[:, 0] / NOISE**2
    net = nn.Linear(1, 1).double()
    model = BayesianModule(net, default=dist.Normal(0.0, PRIOR), likelihood=regression(NOISE))
    kernel = NUTS(
        model,
        init_strategy=init_to_weights(net),
        max_tree_depth=3,
        jit_compile=jit_compile,
        ignore_jit_warnings=True,
    )
    mcmc = MCMC(kernel, num_samples=150, warmup_steps=80, disable_progbar=True)
    mcmc.run(x, y)
    samples = mcmc.get_samples()
    draws = torch.cat([samples["weight"][..., 0], samples["bias"]], -1)
    # Four standard errors, of chains whose draws count for a quarter at worst.
    bound = 4 * covariance.diagonal().sqrt() / math.sqrt(38)
    assert bool(((draws.mean(0) - mean).abs() < bound).all())
    assert_close(draws.T.cov(), covariance, rtol=0.6, atol=0.01)
    prediction = predict(model, samples, x)
    expected = (NOISE**2 + (design @ covariance * design).sum(-1)).sqrt()
    assert_close(prediction.std[:, 0], expected, rtol=0.1, atol=0)


def test_predictions_of_the_exact_guide_are_the_exact_predictions(line):
    guide = exact_guide(line)
    x = torch.randn(5, 3).double()
    design = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    found = predict(line.model, guide, x, num_samples=500)
    spread = (design @ line.covariance * design).sum(-1).sqrt()
    assert bool(((found.mean[:, 0] - design @ line.mean).abs() < 5 * spread / 500**0.5).all())
    # The standard error of a standard deviation is 1 / sqrt(2 n) of it.
    assert_close(found.epistemic[:, 0], spread, rtol=5 / 1000**0.5, atol=0)
    assert_close(found.aleatoric[:, 0], torch.full((5,), NOISE).double())


def networks():
    yield "conv", nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    norm = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    yield "running statistics", norm
    group = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 3))
    yield "group", group


@pytest.mark.parametrize("net", [pytest.param(n, id=name) for name, n in networks()])
@pytest.mark.parametrize("default", ["fan_in", "points"])
def test_particles_at_once_are_particles_in_turn(net, default):
    given = {} if default == "fan_in" else {lambda name, p: p.dim() == 1: None}
    model = BayesianModule(net, given, data_size=100)
    x, y = torch.randn(6, 1, 6, 6), torch.randint(3, (6,))
    with pyro.plate("particles", 4, dim=-2):
        trace = poutine.trace(model).get_trace(x, y)
    names = [n for n in trace.stochastic_nodes if n not in ("data", "particles")]
    values = {n: trace.nodes[n]["value"].detach().requires_grad_() for n in names}

    def total(data, handler):
        with handler:
            return poutine.trace(poutine.condition(model, data)).get_trace(x, y).log_prob_sum()

    once = total(values, pyro.plate("particles", 4, dim=-2))
    rows = [{n: v[i, 0] for n, v in values.items()} for i in range(4)]
    turn = sum(total(row, poutine.mask(mask=True)) for row in rows)
    assert_close(once, turn, rtol=1e-5, atol=1e-4)
    grads = [torch.autograd.grad(t, list(values.values())) for t in (once, turn)]
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("net", [pytest.param(n, id=name) for name, n in networks()])
@pytest.mark.parametrize("kind", [AutoNormal, AutoMultivariateNormal, AutoDelta])
def test_predictive_in_parallel_is_predictive_in_turn(net, kind):
    model = BayesianModule(net).eval()
    x, y = torch.randn(6, 1, 6, 6), torch.randint(3, (6,))
    guide = kind(model, init_loc_fn=init_to_weights(net))
    guide(x, y)
    samples = Predictive(guide, num_samples=5)(x)
    samples = {n: v for n, v in samples.items() if n in dict(net.named_parameters())}
    turn, once = (
        Predictive(model, samples, return_sites=("output", "y"), parallel=p)(x)
        for p in (False, True)
    )
    assert once["output"].shape == (5, 6, 3)
    assert once["y"].shape == turn["y"].shape == (5, 6)
    assert_close(once["output"], turn["output"], rtol=1e-4, atol=1e-5)
    whole = Predictive(model, guide=guide, num_samples=5, parallel=True)(x)
    assert whole["output"].shape == (5, 6, 3)


def test_sampled_noise_with_vectorised_particles():
    net = nn.Linear(3, 2)
    priors = [dist.LogNormal(0.0, 1.0), dist.LogNormal(torch.zeros(2), 1.0).to_event(1)]
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    for prior in priors:
        for default in (dist.Normal(0.0, 1.0), None):
            pyro.clear_param_store()
            model = BayesianModule(net, default=default, likelihood=regression(prior))
            with pyro.plate("particles", 4, dim=-2):
                trace = poutine.trace(model).get_trace(x, y)
            trace.compute_log_prob()
            scale = trace.nodes["likelihood.scale"]["value"]
            output = trace.nodes["output"]["value"].expand(4, 6, 2)
            scale = scale.reshape(4, 1, -1)
            expected = torch.distributions.Normal(output, scale).log_prob(y).sum(-1)
            assert_close(trace.nodes["y"]["log_prob"], expected, rtol=1e-5, atol=1e-5)
            samples = Predictive(model, num_samples=4)(x)
            samples = {n: v for n, v in samples.items() if n not in ("y", "output")}
            found = Predictive(model, samples, return_sites=["y"], parallel=True)(x)["y"]
            assert found.shape == (4, 6, 2)


def test_starting_at_the_weights_starts_at_their_loss():
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))
    x, y = torch.randn(6, 3), torch.randint(4, (6,))
    model = BayesianModule(net)
    guide = AutoNormal(model, init_loc_fn=init_to_weights(net), init_scale=1e-6)
    guide(x, y)
    for name, parameter in net.named_parameters():
        assert_close(guide.median()[name], parameter.detach())
    prediction = predict(model, guide, x, num_samples=2)
    assert_close(prediction.probs, net(x).softmax(-1).detach(), rtol=1e-4, atol=1e-5)


def test_starts_that_do_not_fit_are_told():
    x, y = torch.randn(6, 3), torch.randint(4, (6,))
    wrong = AutoDelta(
        BayesianModule(nn.Linear(3, 4)), init_loc_fn=init_to_weights(nn.Linear(2, 4))
    )
    with pytest.raises(ValueError, match=r"shape \(4, 3\) at site 'weight', got \(4, 2\)"):
        wrong(x, y)
    positive = BayesianModule(nn.Linear(3, 4), {"weight": dist.HalfNormal(1.0)})
    guide = AutoDelta(positive, init_loc_fn=init_to_weights(nn.Linear(3, 4)))
    with pytest.raises(ValueError, match="support of site 'weight'"):
        guide(x, y)
