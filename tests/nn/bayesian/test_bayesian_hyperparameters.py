"""Hyperparameters with batches and plates of their own, against models written by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.testing import assert_close

from pyro_manifolds.distributions import GaussianFilter
from pyro_manifolds.nn.bayesian import BayesianModule, regression

X = torch.linspace(-1, 1, 24).reshape(6, 4)
Y = torch.linspace(-2, 2, 12).reshape(6, 2)


def noise_by_plate(output):
    with pyro.plate("outputs", 2):
        scale = pyro.sample("likelihood.scale", dist.HalfNormal(1.0))
    return dist.Normal(output, scale)


def by_plate(weight):
    with pyro.plate("out", weight.shape[0], dim=-2):
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
    return dist.Normal(torch.zeros(weight.shape), scale)


def by_batch(weight):
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(weight.shape[0], 1)))
    return dist.Normal(torch.zeros(weight.shape), scale)


def by_event(weight):
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(weight.shape[0], 1)).to_event(2))
    return dist.Normal(torch.zeros(weight.shape), scale)


LIKELIHOODS = [
    regression(dist.HalfNormal(torch.ones(2))),
    regression(dist.HalfNormal(torch.ones(2)).to_event(1)),
    noise_by_plate,
]


def by_hand(x, y):
    """Log joint of a linear net with a scale for each row of the weight and each output."""
    scale = pyro.sample("weight/scale", dist.HalfNormal(torch.ones(2, 1)).to_event(2))
    weight = pyro.sample("weight", dist.Normal(torch.zeros(2, 4), scale).to_event(2))
    noise = pyro.sample("likelihood.scale", dist.HalfNormal(torch.ones(2)).to_event(1))
    with pyro.plate("data", 6):
        pyro.sample("y", dist.Normal(x @ weight.T, noise).to_event(1), obs=y)


def draws(count):
    trace = poutine.trace(by_hand)
    rows = [trace.get_trace(X, Y).nodes for _ in range(count)]
    names = ("weight/scale", "weight", "likelihood.scale")
    return {name: torch.stack([row[name]["value"] for row in rows]) for name in names}


def log_joint(model, values):
    return poutine.trace(poutine.condition(model, values)).get_trace(X, Y).log_prob_sum()


def linear(prior, likelihood):
    net = nn.Linear(4, 2, bias=False)
    return BayesianModule(net, {"weight": prior}, likelihood=likelihood)


@pytest.mark.parametrize("prior", [by_plate, by_batch, by_event])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_log_joint_is_that_of_the_model_by_hand(prior, likelihood):
    values = {name: value[0] for name, value in draws(1).items()}
    model = linear(prior, likelihood)
    assert_close(log_joint(model, values), log_joint(by_hand, values))
    trace = poutine.trace(model).get_trace(X, Y)
    trace.compute_log_prob()
    assert trace.nodes["y"]["log_prob"].shape == (6,)
    assert trace.nodes["output"]["value"].shape == (6, 2)


@pytest.mark.parametrize("prior", [by_plate, by_event])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_particles_at_once_are_the_model_by_hand_in_turn(prior, likelihood):
    model, dim = linear(prior, likelihood), -3 if prior is by_plate else -2
    with pyro.plate("particles", 3, dim=dim):
        trace = poutine.trace(model).get_trace(X, Y)
    trace.compute_log_prob()
    names = ("weight/scale", "weight", "likelihood.scale")
    shapes = ((2, 1), (2, 4), (2,))
    values = {
        name: trace.nodes[name]["value"].reshape(3, *shape)
        for name, shape in zip(names, shapes, strict=True)
    }
    expected = [log_joint(by_hand, {n: v[i] for n, v in values.items()}) for i in range(3)]
    found = sum(trace.nodes[n]["log_prob"].reshape(3, -1).sum(-1) for n in (*names, "y"))
    assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior", [by_plate, by_event])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("count", [1, 2, 5])  # two is also the number of outputs
def test_predictive_in_parallel_and_in_turn(prior, likelihood, count):
    model, samples = linear(prior, likelihood), draws(count)
    expected = torch.stack([X @ w.T for w in samples["weight"]])
    for parallel in (False, True):
        found = Predictive(model, samples, return_sites=["output", "y"], parallel=parallel)(X)
        assert_close(found["output"].reshape(count, 6, 2), expected)
        assert found["y"].numel() == count * 12


def test_vectorised_noise_is_the_last_dimensions_of_long_outputs():
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Unflatten(1, (3, 2)))
    scale = dist.HalfNormal(torch.ones(2)).to_event(1)
    model = BayesianModule(net, likelihood=regression(scale))
    y = torch.zeros(6, 3, 2)
    with pyro.plate("particles", 6, dim=-2):  # as many as data
        trace = poutine.trace(model).get_trace(X, y)
    trace.compute_log_prob()
    output = trace.nodes["output"]["value"].reshape(6, 6, 3, 2)
    noise = trace.nodes["likelihood.scale"]["value"].reshape(6, 1, 1, 2)
    expected = torch.distributions.Normal(output, noise).log_prob(y).sum((-1, -2))
    assert_close(trace.nodes["y"]["log_prob"], expected)


def test_an_undeclared_batch_in_the_place_of_particles_is_told():
    model = linear(by_batch, regression(1.0))
    with (
        pyro.plate("particles", 2, dim=-2),
        pytest.raises(ValueError, match=r"'weight/scale' .* at most 1 .* got \(2, 1\).*to_event"),
    ):
        model(X, Y)


def test_filters_with_an_amplitude_for_each_channel_train():
    def prior(weight):
        with pyro.plate("out", weight.shape[0], dim=-2):
            scale = pyro.sample("scale", dist.HalfNormal(1.0))
        return GaussianFilter(torch.eye(9)).rescale(scale)

    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(18, 3))
    x, y = torch.randn(6, 1, 7, 7), torch.randint(3, (6,))
    model = BayesianModule(net, {nn.Conv2d: prior})
    guide = AutoNormal(model)
    for elbo in (Trace_ELBO(), Trace_ELBO(num_particles=3, vectorize_particles=True)):
        loss = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo).step(x, y)
        assert math.isfinite(loss)
    trace = poutine.trace(model).get_trace(x, y)
    for name in ("0.weight", "1.weight"):
        (plate,) = trace.nodes[f"{name}/scale"]["cond_indep_stack"]
        assert plate.name == f"{name}/out"
    assert trace.nodes["output"]["value"].shape == (6, 3)
